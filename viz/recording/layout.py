"""Where everything stands on the screen: the blueprints that are sent with the recordings."""

import numpy as np
import rerun.blueprint as rrb

from metrics.scene import Process, Scene

STATES_PER_S = 16
IMAGES_LAST_S = 8  # a film of images: their states lie at very uneven distances
SNAPSHOTS_PER_S = 5
NIGHT = (13, 16, 22)
BOUNDS = rrb.VisualBounds2D(x_range=[-3.3, 3.3], y_range=[-3.3, 3.3])


def of_scene(scene: Scene, tail: int) -> rrb.Blueprint:
    """The processes side by side, their curves below them, the words on the right; it plays in a loop.

    `tail`: recorded states over which the path of a tracked sample stays visible.
    """
    stride = max([1, *(int(np.diff(p.story).max()) for p in scene.processes if len(p.story) > 1)])
    views = [_process(p, scene.dim, tail * stride) for p in scene.processes]
    curves = _curves(scene)
    stage = rrb.Vertical(rrb.Horizontal(*views), rrb.Horizontal(*curves), row_shares=[5, 2], name="Process")
    if not curves:
        stage = rrb.Horizontal(*views, name="Process")
    stage = rrb.Tabs(stage, _paths(), active_tab=0) if scene.dim == 2 else stage
    whole = rrb.Horizontal(stage, _words(), column_shares=[4, 1])
    return rrb.Blueprint(whole, _clock("step", STATES_PER_S * stride), collapse_panels=True)


def of_images(scene: Scene, height: int, width: int, margin: int) -> rrb.Blueprint:
    """Grids of images (pixels, with `margin` for names at their left) above the curves; the words on the right."""
    process = scene.processes[0]
    names = {"x_t": {"forward": "Forward: x_t, images to noise", "reverse": "x_t: from noise to images"}[process.side]}
    if scene.guesses is not None:
        names["x_0"] = "Guess of x_0: where the network believes x_t will end"
    gap = 0.03 * max(height, width)
    bounds = rrb.VisualBounds2D(x_range=[-margin - gap, width + gap], y_range=[-gap, height + gap])
    style = {"background": NIGHT, "visual_bounds": bounds}
    views = [rrb.Spatial2DView(origin=f"/{process.side}/{of}", name=name, **style) for of, name in names.items()]
    stage = rrb.Vertical(rrb.Horizontal(*views), rrb.Horizontal(*_curves(scene)), row_shares=[5, 2], name="Process")
    whole = rrb.Horizontal(stage, _words(), column_shares=[4, 1])
    return rrb.Blueprint(whole, _clock("step", float(process.steps.max()) / IMAGES_LAST_S), collapse_panels=True)


def of_training(dim: int, play_state: str) -> rrb.Blueprint:
    """The samples large, what was reached so far beside them; play_state: "following" a training, or "playing"."""
    options = {"origin": "/", "contents": "/training/**", "name": "What the network makes of the same noise"}
    if dim == 2:
        view = rrb.Spatial2DView(**options, background=NIGHT, visual_bounds=BOUNDS)
    else:
        eye = _eye([3.5, -6.5, 4.5], [0, 0, 0])
        view = rrb.Spatial3DView(**options, background=NIGHT, line_grid=False, eye_controls=eye)
    curves = [
        rrb.TimeSeriesView(origin="/loss", name="Training loss", plot_legend=rrb.PlotLegend(visible=False)),
        _curve("/distance", "Distance to the data (sliced Wasserstein)", 0.3),
    ]
    side = rrb.Vertical(_words(), *curves, row_shares=[5, 2, 2])
    whole = rrb.Horizontal(view, side, column_shares=[2, 1])
    return rrb.Blueprint(whole, _clock("snapshot", SNAPSHOTS_PER_S, play_state), collapse_panels=True)


def _words() -> rrb.Container:
    now, about = rrb.TextDocumentView(origin="/now", name="Now"), rrb.TextDocumentView(origin="/about", name="About")
    return rrb.Vertical(now, about, row_shares=[2, 3])


def _clock(timeline: str, fps: float, play_state: str = "playing") -> rrb.TimePanel:
    loop = "all" if play_state == "playing" else "off"  # who loops cannot follow
    return rrb.TimePanel(state="collapsed", timeline=timeline, play_state=play_state, loop_mode=loop, fps=fps)


def _process(process: Process, dim: int, tail: int) -> rrb.View:
    """One side. Its origin is "/", not the side: only so does the flip of the y axis apply."""
    side = process.side
    name = {"forward": "Forward: data to noise", "reverse": "Reverse: noise to data, by the network"}[side]
    overrides = {f"/{side}/tails": _tails(side, tail), f"/{side}/score/exact": rrb.EntityBehavior(visible=False)}
    options = {"origin": "/", "contents": f"/{side}/**", "name": name, "overrides": overrides, "background": NIGHT}
    if dim == 3:
        return rrb.Spatial3DView(**options, line_grid=False, eye_controls=_eye([3.5, -6.5, 4.5], [0, 0, 0]))
    return rrb.Spatial2DView(**options, visual_bounds=BOUNDS)


def _tails(side: str, tail: int) -> rrb.VisibleTimeRanges:
    """The last `tail` steps of the story; on the clock t the reverse process comes from later, not from earlier."""
    now, before = rrb.TimeRangeBoundary.cursor_relative(), rrb.TimeRangeBoundary.cursor_relative(seq=-tail)
    after = rrb.TimeRangeBoundary.cursor_relative(seq=tail)
    on_t = (now, after) if side == "reverse" else (before, now)
    return rrb.VisibleTimeRanges(
        [
            rrb.VisibleTimeRange("step", start=before, end=now),
            rrb.VisibleTimeRange("t", start=on_t[0], end=on_t[1]),
        ]
    )


def _curves(scene: Scene) -> list[rrb.View]:
    views = []
    if scene.alpha_bar is not None:
        views.append(_curve("/schedule", "Schedule: what x_t is made of", 1.0))
    if scene.distance is not None:
        highest = max(float(values.max()) for values in scene.distance.by_side.values())
        views.append(_curve("/distance", "Distance to the data (sliced Wasserstein)", highest))
    if scene.loss is not None:
        floor = scene.loss.floor
        name = "Training loss" if floor is None else f"Training loss above the least possible, {floor:.3f}"
        views.append(rrb.BarChartView(origin="/loss", name=name, plot_legend=rrb.PlotLegend(visible=False)))
    return views


def _curve(origin: str, name: str, highest: float) -> rrb.TimeSeriesView:
    """Curves from 0 to `highest`, with room for the legend above them."""
    axis = rrb.ScalarAxis(range=(-0.03 * highest, 1.5 * highest))
    return rrb.TimeSeriesView(origin=origin, name=name, plot_legend=rrb.PlotLegend("RightTop"), axis_y=axis)


def _paths() -> rrb.Spatial3DView:
    options = {"origin": "/paths", "name": "Paths in space-time", "background": NIGHT, "line_grid": False}
    return rrb.Spatial3DView(**options, eye_controls=_eye([0, -12.5, 8], [0, 0, 3.6]))


def _eye(position: list[float], target: list[float]) -> rrb.EyeControls3D:
    return rrb.EyeControls3D(position=position, look_target=target, eye_up=[0, 0, 1])
