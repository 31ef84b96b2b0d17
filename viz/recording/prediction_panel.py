"""White arrows from each tracked sample to the x_0 that the network predicts from it."""

import numpy as np
import rerun as rr

from viz.colours import PREDICTION
from viz.recording.panel import (
    Panel,
    Words,
    arrow_radius,
    arrows_type,
    draw_order,
    known,
    time_columns,
)
from viz.scene import Scene

MIN_SIGNAL = 0.02  # alpha_bar; below it a prediction of x_0 divides by a number close to 0


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """Send reverse/prediction; without arrows while there is hardly any signal."""
    (reverse,) = (process for process in scene.processes if process.side == "reverse")
    where, predicted = known(scene.predictions)
    count, tracked, d = where.shape
    drawn = np.ones(count, bool)
    if scene.alpha_bar is not None:
        drawn = scene.alpha_bar[reverse.steps] >= MIN_SIGNAL

    arrows = arrows_type(d)
    style = arrows.from_fields(
        radii=arrow_radius(d, 1.6),
        colors=[PREDICTION],
        **draw_order(d, 25.0),
    )
    rec.log("reverse/prediction", style, static=True)
    columns = arrows.columns(
        origins=where[drawn].reshape(-1, d),
        vectors=(predicted - where)[drawn].reshape(-1, d),
    )
    columns = columns.partition(np.where(drawn, tracked, 0))
    time = time_columns(scene, reverse)
    rec.send_columns("reverse/prediction", indexes=time, columns=columns)


def words(scene: Scene) -> Words:
    """Return the text of the arrows."""
    return Words(["**White**: where the network predicts that they end."])


PANEL = Panel(
    lambda scene: scene.predictions is not None and not scene.of_images,
    log,
    words=words,
)
