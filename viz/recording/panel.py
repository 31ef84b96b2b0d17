"""What a panel of a recording is, and what panels share.

A panel is one file with a PANEL; layout.py has one line for it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import ArrayLike, NDArray

from viz.colours import DATA
from viz.scene import HELD_S, LASTS_S, Process, Scene

T = TypeVar("T")
NIGHT = (13, 16, 22)  # the background of all views
HELD = HELD_S / LASTS_S  # how long the last state remains, as a share of the whole length
REACH = 3.3  # a view of points in the plane reaches from -REACH to REACH
ARROW_UNITS = 110  # an arrow in 3D is as thick as one of so many times its UI points in 2D


class Words(NamedTuple):
    """The text of a panel.

    Attributes:
        sees: sentences about what there is to see.
        tries: sentences about what to try.
    """

    sees: Sequence[str]
    tries: Sequence[str] = ()


class Panel(NamedTuple):
    """One thing that a recording shows, from its data to its text.

    Attributes:
        holds: whether a scene has what the panel shows. Nothing else is called if it has not.
        log: sends the entities.
        place: where the panel's own views stand.
        views: its views, if it has any. What `log` sends below forward/ or reverse/ is drawn among
            the points.
        words: its text.
        now: a line about a process at the noise of so many forward steps.
    """

    holds: Callable[[Scene], bool]
    log: Callable[[rr.RecordingStream, Scene], None]
    place: Literal["main", "curves", "tabs"] = "main"
    views: Callable[[Scene], Sequence[rrb.View | rrb.Container]] = lambda scene: []
    words: Callable[[Scene], Words] = lambda scene: Words([])
    now: Callable[[Scene, Process, int], str] | None = None


def known(value: T | None) -> T:
    """Return a part of a scene that `Panel.holds` has found to be there."""
    assert value is not None
    return value


# ---------------------------------------------------------------- clocks


def clock_values(
    scene: Scene,
    process: Process,
    steps: NDArray | None = None,
) -> dict[str, NDArray]:
    """Return the values of the three clocks (rerun_viz.py) for a process.

    Args:
        scene: what is shown.
        process: the process.
        steps: (S,), numbers of forward steps; by default those of its states.

    Returns:
        Arrays (S,) by the names of the clocks.
    """
    if steps is None:
        steps = process.steps
    return {
        "time": scene.seconds(process, steps),
        "step": np.abs(steps - process.steps[0]),
        "t": steps,
    }


def time_columns(
    scene: Scene,
    process: Process,
    steps: NDArray | None = None,
) -> list[rr.TimeColumn]:
    """Return the same values as columns of rerun."""
    values = clock_values(scene, process, steps)
    return [
        rr.TimeColumn("time", duration=values["time"]),
        rr.TimeColumn("step", sequence=values["step"]),
        rr.TimeColumn("t", sequence=values["t"]),
    ]


def time_panel(
    timeline: str,
    fps: float | None = None,
    play_state: Literal["playing", "following"] = "playing",
) -> rrb.TimePanel:
    """Return the time panel of the viewer, which plays in a loop or follows a growing recording."""
    loop = "all" if play_state == "playing" else "off"  # a looping viewer cannot follow
    return rrb.TimePanel(
        state="collapsed",
        timeline=timeline,
        play_state=play_state,
        loop_mode=loop,
        fps=fps,
    )


def median_step(process: Process) -> int:
    """Return the median number of steps from one recorded state to the next, at least 1."""
    elapsed = process.elapsed_steps
    if len(elapsed) < 2:
        return 1
    return max(1, round(float(np.median(np.diff(elapsed)))))


# ---------------------------------------------------------------- points and arrows


def points_type(d: int) -> type[rr.Points2D] | type[rr.Points3D]:
    """Return rerun's type of points of d dimensions."""
    return rr.Points2D if d == 2 else rr.Points3D


def arrows_type(d: int) -> type[rr.Arrows2D] | type[rr.Arrows3D]:
    """Return rerun's type of arrows of d dimensions."""
    return rr.Arrows2D if d == 2 else rr.Arrows3D


def strips_type(d: int) -> type[rr.LineStrips2D] | type[rr.LineStrips3D]:
    """Return rerun's type of lines of d dimensions."""
    return rr.LineStrips2D if d == 2 else rr.LineStrips3D


def arrow_radius(d: int, ui_points: float) -> Any:
    """Return the radius of arrows.

    In three dimensions the head of an arrow has a fitting size only if its radius is in the units
    of the scene.
    """
    return rr.Radius.ui_points(ui_points) if d == 2 else ui_points / ARROW_UNITS


def draw_order(d: int, order: float) -> dict[str, Any]:
    """Return the option that draws higher orders above lower ones; 3D views need none."""
    return {"draw_order": order} if d == 2 else {}


def log_upright(rec: rr.RecordingStream, entity: str, d: int) -> None:
    """Let y point up below an entity: in rerun's 2D views it points down."""
    if d == 2:
        rec.log(entity, rr.Transform3D(scale=[1, -1, 1]), static=True)


def cloud_view(d: int, **options: Any) -> rrb.View:
    """Return a view of points in normalised units.

    Its origin is "/": `log_upright` applies only then.
    """
    if d == 3:
        return rrb.Spatial3DView(
            origin="/",
            background=NIGHT,
            line_grid=False,
            eye_controls=eye([3.5, -6.5, 4.5], [0, 0, 0]),
            **options,
        )
    bounds = rrb.VisualBounds2D(x_range=[-REACH, REACH], y_range=[-REACH, REACH])
    return rrb.Spatial2DView(origin="/", background=NIGHT, visual_bounds=bounds, **options)


def eye(position: list[float], target: list[float]) -> rrb.EyeControls3D:
    """Return a camera in `position` that looks at `target`, with z upwards."""
    return rrb.EyeControls3D(position=position, look_target=target, eye_up=[0, 0, 1])


# ---------------------------------------------------------------- curves


def log_curve(
    rec: rr.RecordingStream,
    entity: str,
    name: str,
    values: NDArray,
    time: list[rr.TimeColumn],
    colour: ArrayLike,
    held: bool = False,
) -> None:
    """Send a curve of `values` (S,) over `time`.

    With `held` it keeps each value until the next, as the points beside it keep their places.
    """
    style = rr.SeriesLines(
        names=name,
        colors=colour,
        widths=1.8,
        interpolation_mode="StepAfter" if held else "Linear",
    )
    rec.log(entity, style, static=True)
    rec.send_columns(entity, indexes=time, columns=rr.Scalars.columns(scalars=values))


W1 = """the sliced Wasserstein-1 distance between points and real data. Grey: between two sets of real data, the mean
and the range of 90 % of such pairs."""


def floor_band(floors: NDArray) -> NDArray:
    """Return the mean and the 90 % band of distances between pairs of real sets, (3,)."""
    low, high = np.quantile(floors, [0.05, 0.95])
    return np.array([floors.mean(), low, high])


def log_floor_style(rec: rr.RecordingStream, entity: str) -> None:
    """Send the style of three lines, whose values are those of `floor_band`."""
    style = rr.SeriesLines(
        names=["real to real: mean", "90 % of pairs: from", "90 % of pairs: to"],
        colors=[DATA] * 3,
        widths=[1.8, 0.7, 0.7],
    )
    rec.log(entity, style, static=True)


def curve_view(origin: str, name: str, highest: float) -> rrb.View:
    """Return a view of curves from 0 to `highest`.

    The name says the colours of the curves, because a legend would cover them.
    """
    return rrb.TimeSeriesView(
        origin=origin,
        name=name,
        plot_legend=rrb.PlotLegend(visible=False),
        axis_y=rrb.ScalarAxis(range=(-0.03 * highest, 1.1 * highest)),
    )
