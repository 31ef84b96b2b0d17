"""The recording of a training, to scrub through. Rows are sent as they come, for a live viewer."""

from typing import Literal, NamedTuple

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import ArrayLike, NDArray

from viz.colours import DATA, GENERATED, LOSS, NOISE_ON_DARK, TRACKED
from viz.recording.panel import (
    HELD,
    W1,
    cloud_view,
    curve_view,
    draw_order,
    floor_band,
    log_floor_style,
    log_upright,
    points_type,
    strips_type,
    time_panel,
)
from viz.recording.text_panel import MARKDOWN
from viz.recording.text_panel import view as texts

SNAPSHOTS_PER_S = 5
TRACKED_ROWS = 12
HIGHEST_DISTANCE = 0.4  # of the distances that the view shows at first

ABOUT = f"""**The same noise**, turned into samples again and again while the network learns.

* **Red**: the noise. **Blue**: what the network, with averaged weights, makes of it. **Grey**: real data.
* **Cyan**: some of the noise, and where it is carried.
* **Units**: mean 0 and standard deviation 1 over the data.
* **W1**: {W1}
* **Clocks**: `snapshot` counts the pictures, `train_step` the optimizer steps.

*Try this*

* The clock `train_step`, real time: nearly everything happens at the very beginning.
* When does a sample settle on its moon? Does it change its mind?
* Space pauses, the arrow keys step.
"""


class Snapshot(NamedTuple):
    """Samples at one moment of a training.

    Attributes:
        number: how many snapshots came before.
        done: optimizer steps so far.
        points: samples (N, d), in normalised units.
        distance: from the samples to the data.
        floors: (pairs,), distances between two real sets.
        loss: the mean loss since the snapshot before, if there were steps.
    """

    number: int
    done: int
    points: NDArray
    distance: float
    floors: NDArray
    loss: float | None


def log_setting(rec: rr.RecordingStream, real: NDArray, x_T: NDArray) -> None:
    """Send what does not change: real points, the noise, the text, and a layout that follows.

    Args:
        rec: the recording.
        real, x_T: (N, d), in normalised units.
    """
    d = real.shape[1]
    rec.send_blueprint(_blueprint(d, "following"))
    log_upright(rec, "training", d)
    _log_background(rec, "noise", x_T, NOISE_ON_DARK, -20.0)
    _log_background(rec, "data", real, DATA, -10.0)
    rec.log("about", rr.TextDocument(ABOUT, media_type=MARKDOWN), static=True)
    loss = rr.SeriesLines(names="loss", colors=LOSS, widths=1.8)
    rec.log("loss/training", loss, static=True)
    distance = rr.SeriesLines(names="samples", colors=GENERATED, widths=1.8)
    rec.log("distance/samples", distance, static=True)
    log_floor_style(rec, "distance/floor")


def _log_background(
    rec: rr.RecordingStream,
    name: str,
    points: NDArray,
    colour: ArrayLike,
    order: float,
) -> None:
    """Send points (N, d) that do not change, as training/NAME."""
    d = points.shape[1]
    cloud = points_type(d)(
        points,
        colors=colour,
        radii=rr.Radius.ui_points(1.0),
        **draw_order(d, order),
    )
    rec.log(f"training/{name}", cloud, static=True)


def _blueprint(dim: int, play_state: Literal["playing", "following"]) -> rrb.Blueprint:
    """Return a layout with large samples, and the text and curves beside them."""
    samples = cloud_view(
        dim,
        contents="/training/**",
        name="What the network makes of the same noise",
    )
    loss = rrb.TimeSeriesView(
        origin="/loss",
        name="Training loss",
        plot_legend=rrb.PlotLegend(visible=False),
    )
    distance = curve_view(
        "/distance",
        "W1 to the data: samples blue, real grey (thin: 90 %)",
        HIGHEST_DISTANCE,
    )
    side = rrb.Vertical(texts(), loss, distance, row_shares=[7, 2, 2])
    whole = rrb.Horizontal(samples, side, column_shares=[2, 1])
    time = time_panel("snapshot", SNAPSHOTS_PER_S, play_state)
    return rrb.Blueprint(whole, time, collapse_panels=True)


def log_end(rec: rr.RecordingStream, number: int, done: int, dim: int) -> None:
    """Let the viewer play in a loop; a late row holds the last picture before it starts over.

    Args:
        rec: the recording.
        number: of the last snapshot.
        done: optimizer steps at that snapshot.
        dim: the number of coordinates of a point.
    """
    rec.send_blueprint(_blueprint(dim, "playing"))
    rec.reset_time()
    late_number = number + max(1, round(HELD * number))
    late_done = done + max(1, round(HELD * done))
    _set_time(rec, late_number, late_done)
    rec.log("late", rr.AnyValues(after="the last picture"))


def log_loss(rec: rr.RecordingStream, done: int, loss: float) -> None:
    """Send the loss after `done` optimizer steps, on the clock train_step."""
    rec.reset_time()
    rec.set_time("train_step", sequence=done)
    rec.log("loss/training", rr.Scalars(loss))


def log_snapshot(rec: rr.RecordingStream, snapshot: Snapshot, x_T: NDArray) -> None:
    """Send one moment of the training, on both clocks.

    Args:
        rec: the recording.
        snapshot: the moment.
        x_T: (N, d), the noise of which its samples were made.
    """
    _set_time(rec, snapshot.number, snapshot.done)
    _log_samples(rec, snapshot.points, x_T)
    rec.log("distance/samples", rr.Scalars(snapshot.distance))
    rec.log("distance/floor", rr.Scalars(floor_band(snapshot.floors)))
    rec.log("now", rr.TextDocument(_now(snapshot), media_type=MARKDOWN))
    if snapshot.loss is not None:  # the clock train_step has its own rows, which are finer
        rec.reset_time()
        rec.set_time("snapshot", sequence=snapshot.number)
        rec.log("loss/training", rr.Scalars(snapshot.loss))


def _log_samples(rec: rr.RecordingStream, points: NDArray, x_T: NDArray) -> None:
    """Send samples (N, d), and for the first rows the lines from the noise x_T (N, d) to them."""
    d = points.shape[1]
    tracked = points[:TRACKED_ROWS]
    begin = x_T[: len(tracked)]
    samples = points_type(d)(points, colors=GENERATED, radii=rr.Radius.ui_points(1.7))
    rec.log("training/samples", samples)
    ends = points_type(d)(
        tracked,
        colors=TRACKED,
        radii=rr.Radius.ui_points(4.0),
        **draw_order(d, 30.0),
    )
    rec.log("training/tracked", ends)
    ways = strips_type(d)(
        np.stack([begin, tracked], 1),
        colors=TRACKED,
        radii=rr.Radius.ui_points(0.7),
        **draw_order(d, 20.0),
    )
    rec.log("training/ways", ways)


def _set_time(rec: rr.RecordingStream, number: int, done: int) -> None:
    """Set both clocks."""
    rec.set_time("snapshot", sequence=number)
    rec.set_time("train_step", sequence=done)


def _now(snapshot: Snapshot) -> str:
    """Return the text of a snapshot, in Markdown."""
    lines = [
        f"## {snapshot.done:,} optimizer steps",
        f"* distance to the data {snapshot.distance:.3f} (real to real {snapshot.floors.mean():.3f})",
    ]
    if snapshot.loss is not None:
        lines.append(f"* loss {snapshot.loss:.4f}")
    return "\n".join(lines)
