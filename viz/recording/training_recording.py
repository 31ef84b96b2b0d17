"""The recording that scrubs through a training: rows are logged as they come, so that a viewer can follow live."""

from typing import Literal, NamedTuple

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from viz.colours import DATA, GENERATED, LOSS, TRACKED, noise_colours
from viz.recording.panel import (
    HELD,
    cloud_view,
    curve_view,
    floor_of,
    in_order,
    log_floor_style,
    points,
    time_panel,
)
from viz.recording.text_panel import MARKDOWN
from viz.recording.text_panel import view as texts

SNAPSHOTS_PER_S = 5
TRACKED_ROWS = 12

ABOUT = """**The same noise**, turned into samples again and again while the network learns.

* **Dark red**: the noise. **Blue**: what the network, with averaged weights, makes of it. **Grey**: real data.
* **Cyan**: some of the noise, and where it is carried.
* **Units**: mean 0 and standard deviation 1 over the data.

*Try this*

* The clock `train_step`, real time: nearly everything happens at the very beginning.
* When does a sample settle on its moon? Does it change its mind?
* Space pauses, the arrow keys step.
"""


class Snapshot(NamedTuple):
    """The `number`-th samples (N, d), after `done` optimizer steps, their distance to the data, the mean loss since.

    floors: distances between two real sets, (pairs,).
    """

    number: int
    done: int
    points: NDArray
    distance: float
    floors: NDArray
    loss: float | None


def log_setting(rec: rr.RecordingStream, real: NDArray, x_T: NDArray) -> None:
    """What stays: real points (N, d), the noise, the words, and a layout that follows the training."""
    d = real.shape[1]
    rec.send_blueprint(_blueprint(d, "following"))
    if d == 2:  # rerun's 2D views point y down
        rec.log("training", rr.Transform3D(scale=[1, -1, 1]), static=True)
    red = (0.7 * noise_colours(1)).astype(np.uint8)
    for name, where, colour, order in (("noise", x_T, red, -20.0), ("data", real, DATA, -10.0)):
        cloud = points(d)(where, colors=colour, radii=rr.Radius.ui_points(1.0), **in_order(d, order))
        rec.log(f"training/{name}", cloud, static=True)
    rec.log("about", rr.TextDocument(ABOUT, media_type=MARKDOWN), static=True)
    rec.log("loss/training", rr.SeriesLines(names="loss", colors=LOSS, widths=1.8), static=True)
    rec.log("distance/samples", rr.SeriesLines(names="samples", colors=GENERATED, widths=1.8), static=True)
    log_floor_style(rec, "distance/floor")


def _blueprint(dim: int, play_state: Literal["playing", "following"]) -> rrb.Blueprint:
    """The samples large, what was reached so far beside them; it follows a training, or plays."""
    view = cloud_view(dim, contents="/training/**", name="What the network makes of the same noise")
    curves = [
        rrb.TimeSeriesView(origin="/loss", name="Training loss", plot_legend=rrb.PlotLegend(visible=False)),
        curve_view("/distance", "W1 to the data: samples blue, real grey", 0.4),
    ]
    side = rrb.Vertical(texts(), *curves, row_shares=[7, 2, 2])
    whole = rrb.Horizontal(view, side, column_shares=[2, 1])
    return rrb.Blueprint(whole, time_panel("snapshot", SNAPSHOTS_PER_S, play_state), collapse_panels=True)


def log_end(rec: rr.RecordingStream, number: int, done: int, dim: int) -> None:
    """From now on it plays in a loop; a late row holds the last picture before it starts over."""
    rec.send_blueprint(_blueprint(dim, "playing"))
    rec.reset_time()
    _at(rec, number + max(1, round(HELD * number)), done + max(1, round(HELD * done)))
    rec.log("late", rr.AnyValues(after="the last picture"))


def log_loss(rec: rr.RecordingStream, done: int, loss: float) -> None:
    """The loss after `done` optimizer steps, on the clock train_step."""
    rec.reset_time()
    rec.set_time("train_step", sequence=done)
    rec.log("loss/training", rr.Scalars(loss))


def log_snapshot(rec: rr.RecordingStream, snapshot: Snapshot, x_T: NDArray) -> None:
    """One moment of the training, on both clocks."""
    number, done, where = snapshot.number, snapshot.done, snapshot.points
    d, some = where.shape[1], where[:TRACKED_ROWS]
    _at(rec, number, done)
    rec.log("training/samples", points(d)(where, colors=GENERATED, radii=rr.Radius.ui_points(1.7)))
    on_top, below = in_order(d, 30.0), in_order(d, 20.0)
    rec.log("training/tracked", points(d)(some, colors=TRACKED, radii=rr.Radius.ui_points(4.0), **on_top))
    strips, ways = rr.LineStrips2D if d == 2 else rr.LineStrips3D, np.stack([x_T[: len(some)], some], 1)
    rec.log("training/ways", strips(ways, colors=TRACKED, radii=rr.Radius.ui_points(0.7), **below))
    rec.log("distance/samples", rr.Scalars(snapshot.distance))
    rec.log("distance/floor", rr.Scalars(floor_of(snapshot.floors)))
    rec.log("now", rr.TextDocument(_now(snapshot), media_type=MARKDOWN))
    if snapshot.loss is not None:  # the clock train_step has its own, finer rows
        rec.reset_time()
        rec.set_time("snapshot", sequence=number)
        rec.log("loss/training", rr.Scalars(snapshot.loss))


def _at(rec: rr.RecordingStream, number: int, done: int) -> None:
    rec.set_time("snapshot", sequence=number)
    rec.set_time("train_step", sequence=done)


def _now(snapshot: Snapshot) -> str:
    lines = [f"## {snapshot.done:,} optimizer steps", f"* distance to the data {snapshot.distance:.3f}"]
    lines += [] if snapshot.loss is None else [f"* loss {snapshot.loss:.4f}"]
    return "\n".join(lines)
