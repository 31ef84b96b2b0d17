"""What a panel of a recording is, and what panels share. A panel is one file with a PANEL, and its row in layout.py."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import ArrayLike, NDArray

from metrics.scene import Process, Scene

T = TypeVar("T")
NIGHT = (13, 16, 22)  # behind all pictures
HELD = 0.08  # of the whole length: how long the last picture stays before the loop starts over


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
    views: Callable[[Scene], list[rrb.View]] = lambda scene: []
    overrides: Mapping[str, Any] = {}  # entity: how the views on the stage treat it
    words: Callable[[Scene], Words] = lambda scene: Words([])
    now: Callable[[Scene, Process, int], str] | None = None  # a line on a process at the noise of so many forward steps


def given(value: T | None) -> T:
    """What a panel shows: that it is there, `holds` has said."""
    assert value is not None
    return value


# ---------------------------------------------------------------- clocks


def clocks(story: NDArray, steps: NDArray) -> list[rr.TimeColumn]:
    """The two clocks (rerun_viz.py), for the same rows."""
    return [rr.TimeColumn("step", sequence=story), rr.TimeColumn("t", sequence=steps)]


def time_panel(timeline: str, fps: float, play_state: Literal["playing", "following"] = "playing") -> rrb.TimePanel:
    loop = "all" if play_state == "playing" else "off"  # who loops cannot follow
    return rrb.TimePanel(state="collapsed", timeline=timeline, play_state=play_state, loop_mode=loop, fps=fps)


def stride(scene: Scene) -> int:
    """The most steps from one recorded state to the next."""
    return max([1, *(int(np.diff(p.story).max()) for p in scene.processes if len(p.story) > 1)])


# ---------------------------------------------------------------- points and arrows


def points(d: int) -> type[rr.Points2D] | type[rr.Points3D]:
    return rr.Points2D if d == 2 else rr.Points3D


def arrows(d: int) -> type[rr.Arrows2D] | type[rr.Arrows3D]:
    return rr.Arrows2D if d == 2 else rr.Arrows3D


def arrow_radius(d: int, ui_points: float) -> Any:
    """In three dimensions only an arrow in the scene's own units gets a head of a fitting size."""
    return rr.Radius.ui_points(ui_points) if d == 2 else ui_points / 40


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


def curve_view(origin: str, name: str, highest: float) -> rrb.View:
    """Curves from 0 to `highest`, with room for the legend above them."""
    axis = rrb.ScalarAxis(range=(-0.03 * highest, 1.5 * highest))
    return rrb.TimeSeriesView(origin=origin, name=name, plot_legend=rrb.PlotLegend("RightTop"), axis_y=axis)
