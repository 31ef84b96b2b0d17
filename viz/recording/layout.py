"""Which panels a recording has, and where they stand. A new panel is a file and a line here."""

from collections.abc import Sequence
from typing import Any

import rerun as rr
import rerun.blueprint as rrb

from viz.recording import (
    distance_panel,
    image_panel,
    loss_panel,
    path_panel,
    point_panel,
    prediction_panel,
    schedule_panel,
    score_panel,
    text_panel,
)
from viz.recording.panel import Panel, time_panel
from viz.scene import Scene

# In the order in which they stand, and in which the texts describe them.
PANELS: list[Panel] = [
    point_panel.PANEL,
    image_panel.PANEL,
    prediction_panel.PANEL,
    score_panel.PANEL,
    schedule_panel.PANEL,
    distance_panel.PANEL,
    loss_panel.PANEL,
    path_panel.PANEL,
]


def log_panels(rec: rr.RecordingStream, scene: Scene) -> None:
    """Send everything that a scene holds, with the layout and the texts."""
    panels = [panel for panel in PANELS if panel.holds(scene)]
    rec.send_blueprint(blueprint(scene, panels))
    for panel in panels:
        panel.log(rec, scene)
    text_panel.log(rec, scene, panels)


def blueprint(scene: Scene, panels: Sequence[Panel]) -> rrb.Blueprint:
    """Return the layout.

    The processes are large, with curves below them and other views in tabs beside them; texts are
    at the right. The recording plays in a loop.
    """
    curves = _views(scene, panels, "curves")
    rows: list[Any] = [rrb.Horizontal(*_views(scene, panels, "main"), name="Processes")]
    if curves:
        rows.append(rrb.Horizontal(*curves, name="Curves"))
    pictures = rrb.Vertical(*rows, row_shares=[5, 2][: len(rows)], name="Process")

    tabs = _views(scene, panels, "tabs")
    if tabs:
        pictures = rrb.Tabs(pictures, *tabs, active_tab=0, name="Pictures")
    whole = rrb.Horizontal(pictures, text_panel.view(), column_shares=[7, 2], name="moonwalk")
    return rrb.Blueprint(whole, time_panel("time"), collapse_panels=True)


def _views(scene: Scene, panels: Sequence[Panel], place: str) -> list[rrb.View | rrb.Container]:
    """Return the views of all panels of one place, in order."""
    views = []
    for panel in panels:
        if panel.place == place:
            views += panel.views(scene)
    return views
