"""Which panels a recording has, and where they stand on the screen. A new panel is a file and its row here."""

from collections.abc import Sequence
from typing import Any

import rerun as rr
import rerun.blueprint as rrb

from viz.recording import (
    distance_panel as distance,
)
from viz.recording import (
    image_panel as images,
)
from viz.recording import (
    loss_panel as loss,
)
from viz.recording import (
    path_panel as paths,
)
from viz.recording import (
    point_panel as points,
)
from viz.recording import (
    prediction_panel as guess,
)
from viz.recording import (
    schedule_panel as schedule,
)
from viz.recording import (
    score_panel as score,
)
from viz.recording import (
    text_panel as texts,
)
from viz.recording.panel import Panel, time_panel
from viz.scene import Scene

# in the order in which they stand, and in which the texts speak of them
PANELS: list[Panel] = [row.PANEL for row in (points, images, guess, score, schedule, distance, loss, paths)]


def log_panels(rec: rr.RecordingStream, scene: Scene) -> None:
    """Everything that the scene holds, with the layout and the texts."""
    panels = [panel for panel in PANELS if panel.holds(scene)]
    rec.send_blueprint(blueprint(scene, panels))
    for panel in panels:
        panel.log(rec, scene)
    texts.log(rec, scene, panels)


def blueprint(scene: Scene, panels: Sequence[Panel]) -> rrb.Blueprint:
    """The stage large, curves below it, other views in tabs beside it, texts on the right; it plays in a loop."""
    stage, curves, tabs = (
        [view for panel in panels if panel.place == place for view in panel.views(scene)]
        for place in ("stage", "curves", "tabs")
    )
    rows: list[Any] = [rrb.Horizontal(*stage, name="Processes")]
    rows += [rrb.Horizontal(*curves, name="Curves")] if curves else []
    process = rrb.Vertical(*rows, row_shares=[5, 2][: len(rows)], name="Process")
    main = rrb.Tabs(process, *tabs, active_tab=0, name="Pictures") if tabs else process
    whole = rrb.Horizontal(main, texts.view(), column_shares=[7, 2], name="moonwalk")
    return rrb.Blueprint(whole, time_panel("time"), collapse_panels=True)
