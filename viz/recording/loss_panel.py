"""Bars of the training loss."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from viz.colours import LOSS
from viz.recording.panel import Panel, known
from viz.scene import Scene

BAR_WIDTH = 0.9  # of the distance between two bars


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """Send loss, the same at all times: above the lowest possible loss where that is known."""
    loss = known(scene.loss)
    heights = loss.loss
    if loss.floor is not None:
        heights = heights - loss.floor
    # The bars stand for equally many optimizer steps, and the first begins at 0.
    widths = np.full(len(heights), loss.step[0], np.float32)
    bars = rr.BarChart(
        heights,
        color=LOSS,
        abscissa=loss.step - widths / 2,
        widths=BAR_WIDTH * widths,
    )
    rec.log("loss", bars, static=True)


def views(scene: Scene) -> list[rrb.View]:
    """Return the view of the bars."""
    floor = known(scene.loss).floor
    name = "Training loss" if floor is None else f"Loss above its floor {floor:.3f}"
    legend = rrb.PlotLegend(visible=False)
    return [rrb.BarChartView(origin="/loss", name=name, plot_legend=legend)]


PANEL = Panel(lambda scene: scene.loss is not None, log, "tabs", views)
