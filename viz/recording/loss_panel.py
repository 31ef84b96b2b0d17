"""Bars of the training loss."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from viz.colours import LOSS
from viz.recording.panel import Panel, given
from viz.scene import Scene


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """loss, the same at all times: above the least possible one, where that is known."""
    loss = given(scene.loss)
    above = loss.loss - (loss.floor or 0.0)
    widths = np.full(len(above), loss.step[0], np.float32)  # the pieces are equal, the first begins at 0
    bars = rr.BarChart(above, color=LOSS, abscissa=loss.step - widths / 2, widths=0.9 * widths)
    rec.log("loss", bars, static=True)


def views(scene: Scene) -> list[rrb.View]:
    floor = given(scene.loss).floor
    name = "Training loss" if floor is None else f"Loss above its floor {floor:.3f}"
    return [rrb.BarChartView(origin="/loss", name=name, plot_legend=rrb.PlotLegend(visible=False))]


PANEL = Panel(lambda scene: scene.loss is not None, log, "tabs", views)
