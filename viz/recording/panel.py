"""What a panel of a recording is, and what panels share. A panel is one file with a PANEL, and its row in layout.py."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import ArrayLike, NDArray

from viz.colours import DATA
from viz.scene import HELD_S, LASTS_S, Process, Scene

T = TypeVar("T")
NIGHT = (13, 16, 22)  # behind all pictures
HELD = HELD_S / LASTS_S  # of the whole length: how long the last picture stays before the loop starts over


class Words(NamedTuple):
    """What the texts beside the pictures say of a panel: what there is to see, and what to try."""

    sees: Sequence[str]
    tries: Sequence[str] = ()


class Panel(NamedTuple):
    """One thing that a recording shows, from its data to its words."""

    holds: Callable[[Scene], bool]  # whether the scene has what it shows; nothing else is called where it has not
    log: Callable[[rr.RecordingStream, Scene], None]  # sends its entities
    # where its own views stand, if it has any; what it logs below forward/ or reverse/ is drawn among the points
    place: Literal["stage", "curves", "tabs"] = "stage"
    views: Callable[[Scene], Sequence[rrb.View | rrb.Container]] = lambda scene: []
    words: Callable[[Scene], Words] = lambda scene: Words([])
    now: Callable[[Scene, Process, int], str] | None = None  # a line on a process at the noise of so many forward steps


def given(value: T | None) -> T:
    """What a panel shows: that it is there, `holds` has said."""
    assert value is not None
    return value


# ---------------------------------------------------------------- clocks


def hands(scene: Scene, process: Process, steps: NDArray | None = None) -> dict[str, NDArray]:
    """Where the clocks (rerun_viz.py) stand at each state of a process, or at its states after these `steps`."""
    steps = process.steps if steps is None else steps
    return {"time": scene.seconds(process, steps), "step": np.abs(steps - process.steps[0]), "t": steps}


def clocks(scene: Scene, process: Process, steps: NDArray | None = None) -> list[rr.TimeColumn]:
    """The same for rows that are sent."""
    time, step, t = hands(scene, process, steps).values()
    return [rr.TimeColumn("time", duration=time), rr.TimeColumn("step", sequence=step), rr.TimeColumn("t", sequence=t)]


def time_panel(
    timeline: str, fps: float | None = None, play_state: Literal["playing", "following"] = "playing"
) -> rrb.TimePanel:
    loop = "all" if play_state == "playing" else "off"  # who loops cannot follow
    return rrb.TimePanel(state="collapsed", timeline=timeline, play_state=play_state, loop_mode=loop, fps=fps)


def median_step(process: Process) -> int:
    """How many steps it is from one recorded state to the next, as a rule."""
    return max(1, round(float(np.median(np.diff(process.elapsed_steps))))) if len(process.elapsed_steps) > 1 else 1


# ---------------------------------------------------------------- points and arrows


def points(d: int) -> type[rr.Points2D] | type[rr.Points3D]:
    return rr.Points2D if d == 2 else rr.Points3D


def arrows(d: int) -> type[rr.Arrows2D] | type[rr.Arrows3D]:
    return rr.Arrows2D if d == 2 else rr.Arrows3D


def arrow_radius(d: int, ui_points: float) -> Any:
    """In three dimensions only an arrow in the scene's own units gets a head of a fitting size."""
    return rr.Radius.ui_points(ui_points) if d == 2 else ui_points / 110


def in_order(d: int, order: float) -> dict[str, Any]:
    """What is drawn above what; three dimensions sort themselves."""
    return {"draw_order": order} if d == 2 else {}


def cloud_view(d: int, **options: Any) -> rrb.View:
    """A picture of points in normalised units. Its origin is "/": only so does the flip of the y axis apply."""
    if d == 3:
        return rrb.Spatial3DView(
            origin="/", background=NIGHT, line_grid=False, eye_controls=eye([3.5, -6.5, 4.5], [0, 0, 0]), **options
        )
    bounds = rrb.VisualBounds2D(x_range=[-3.3, 3.3], y_range=[-3.3, 3.3])
    return rrb.Spatial2DView(origin="/", background=NIGHT, visual_bounds=bounds, **options)


def eye(position: list[float], target: list[float]) -> rrb.EyeControls3D:
    return rrb.EyeControls3D(position=position, look_target=target, eye_up=[0, 0, 1])


# ---------------------------------------------------------------- curves


def log_curve(
    rec: rr.RecordingStream, entity: str, name: str, values: NDArray, time: list[rr.TimeColumn], colour: ArrayLike
) -> None:
    rec.log(entity, rr.SeriesLines(names=name, colors=colour, widths=1.8), static=True)
    rec.send_columns(entity, indexes=time, columns=rr.Scalars.columns(scalars=values))


def floor_of(floors: NDArray) -> NDArray:
    """Mean and 90 % band of the distances between two real sets: (3,)."""
    return np.array([floors.mean(), *np.quantile(floors, [0.05, 0.95])])


def log_floor_style(rec: rr.RecordingStream, entity: str) -> None:
    """Three lines, whose values are those of `floor_of`."""
    names, widths = ["real to real: mean", "90 % of pairs: from", "90 % of pairs: to"], [1.8, 0.7, 0.7]
    rec.log(entity, rr.SeriesLines(names=names, colors=[DATA] * 3, widths=widths), static=True)


def curve_view(origin: str, name: str, highest: float) -> rrb.View:
    """Curves from 0 to `highest`. Their colours stand in the name: a legend would hide what it explains."""
    axis = rrb.ScalarAxis(range=(-0.03 * highest, 1.1 * highest))
    return rrb.TimeSeriesView(origin=origin, name=name, plot_legend=rrb.PlotLegend(visible=False), axis_y=axis)
