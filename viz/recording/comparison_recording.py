"""The recording of a comparison: the paths of all samplers from the same noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from metrics.sampler_comparison import EXACT, NETWORK, Comparison, Trial
from registry.sampler_rows import SAMPLERS
from samplers.steps import State
from viz.colours import DATA, PALETTE, PREDICTION
from viz.recording.layout import log_panels
from viz.recording.panel import (
    cloud_view,
    curve_view,
    draw_order,
    log_curve,
    log_upright,
    points_type,
    strips_type,
    time_columns,
    time_panel,
)
from viz.recording.text_panel import MARKDOWN
from viz.scene import HELD_S, LASTS_S, Process, Scene

RECORDED = 10  # evaluations: the number nearest to it among those compared is recorded
ENTITIES = {NETWORK: "network", EXACT: "exact"}
EXACT_FLOW = "exact_flow"
EXACT_FLOW_COLOUR = PREDICTION

# Radii in UI points. Later samplers have smaller points, drawn above those of earlier ones, so that
# all can be seen at one place.
EXACT_RADIUS = 3.0
FIRST_RADIUS = 4.5
RADIUS_STEP = 0.8
MIN_RADIUS = 2.0
DOT_RADIUS = 1.6

ABOUT = """**The same noise**, carried to data by every sampler, with at most {asked} evaluations each.
A dot marks each state. Later samplers have smaller dots, so that none hides another.
The legend says how many evaluations a sampler made{left_out}.

Left: with the network. Right: with the exact denoiser, so that whatever is wrong there is the sampler's doing alone.

White: the exact probability flow, which every deterministic sampler approximates. Samplers with fresh noise ({noisy})
go ways of their own, hidden at first, and only end in the same distribution.

Grey: real data. Coordinates are normalised: mean 0 and standard deviation 1 over the data.

Below: distance to the white path at equal noise, mean over the samples.

*Try this*

* Who strays from the white path first? Who comes back?
* Where left and right differ, the network is wrong, not the sampler.
* Hide samplers, or show the ways of the noisy ones: open the panel at the left edge.
* Space pauses the clock, the arrow keys step it.
"""


def log_comparison(rec: rr.RecordingStream, found: Comparison) -> None:
    """Send the paths of points in 2 or 3 dimensions; for images the states of every sampler."""
    possible = [count for count in found.asked if _shown(found, count)]
    asked = min(possible, key=lambda count: abs(count - RECORDED))
    if found.real.ndim == 4:
        log_panels(rec, _image_scene(found, asked))
        return
    d = found.real.shape[1]
    noisy = [name for name in found.samplers if SAMPLERS[name].noisy]
    samplers = _shown(found, asked)
    left_out = [name for name in found.samplers if name not in samplers]
    text = ABOUT.format(
        asked=asked,
        noisy=", ".join(noisy) or "none here",
        left_out=f"; left out, as they make more: {', '.join(left_out)}" if left_out else "",
    )
    clock = _clock(found)

    rec.send_blueprint(_blueprint(found, asked, d))
    rec.log("about", rr.TextDocument(text, media_type=MARKDOWN), static=True)
    for denoiser in found.denoisers:
        entity = ENTITIES[denoiser]
        log_upright(rec, entity, d)
        _log_data(rec, f"{entity}/data", found.normalised)
        if found.exact_path:
            _log_exact_flow(rec, f"{entity}/{EXACT_FLOW}", found.exact_path, clock)
        for row, sampler in enumerate(samplers):
            trial = found.trial(denoiser, sampler, asked)
            _log_trial(rec, trial, row, found.exact_path, clock)
    late = [rr.TimeColumn("time", duration=[LASTS_S + HELD_S])]
    rec.send_columns("late", indexes=late, columns=rr.AnyValues.columns(after=[0]))


def _shown(found: Comparison, asked: int) -> list[str]:
    """Return the samplers that can keep to so many evaluations."""
    return [name for name in found.samplers if found.planned(name, asked).steps is not None]


# ---------------------------------------------------------------- clocks


def _clock(found: Comparison) -> Scene:
    """Return a scene without points, whose reverse process runs from the noise to the data."""
    total = max(state.step for state in found.trials[0].path)
    process = Process("reverse", np.empty(0), np.array([total, 0]))
    return Scene([process], alpha_bar=found.alpha_bar)


def _time(clock: Scene, steps: NDArray) -> list[rr.TimeColumn]:
    """Return the columns of all clocks for numbers of forward steps (S,)."""
    return time_columns(clock, clock.processes[0], steps)


# ---------------------------------------------------------------- paths


def _log_data(rec: rr.RecordingStream, entity: str, points: NDArray) -> None:
    """Send real points (N, d), in grey below everything else."""
    d = points.shape[1]
    cloud = points_type(d)(
        points,
        colors=DATA,
        radii=rr.Radius.ui_points(0.8),
        **draw_order(d, -10.0),
    )
    rec.log(entity, cloud, static=True)


def _log_exact_flow(
    rec: rr.RecordingStream,
    entity: str,
    path: Sequence[State],
    clock: Scene,
) -> None:
    """Send ENTITY/now and ENTITY/way of the exact probability flow."""
    states, steps = _states(path)
    time = _time(clock, steps)
    _log_points(rec, f"{entity}/now", states, time, EXACT_FLOW_COLOUR, EXACT_RADIUS, 29.0)
    _log_way(rec, f"{entity}/way", states, _time(clock, steps[1:]), EXACT_FLOW_COLOUR)


def _log_trial(
    rec: rr.RecordingStream,
    trial: Trial,
    row: int,
    exact_path: Sequence[State],
    clock: Scene,
) -> None:
    """Send what a sampler did with one denoiser.

    * now, where the samples are; way, a segment for each step; dots, where the denoiser was asked;
    * name, a line of the legend;
    * for a sampler without noise its distance from the exact path, if that is known.

    Args:
        rec: the recording.
        trial: the sampler.
        row: its place in the legend.
        exact_path: the states of the exact probability flow, if it is known.
        clock: see `_clock`.
    """
    place = ENTITIES[trial.denoiser]
    entity = f"{place}/{trial.sampler}"
    colour = PALETTE[row % len(PALETTE)]
    radius = max(MIN_RADIUS, FIRST_RADIUS - RADIUS_STEP * row)
    states, steps = _states(trial.path)
    time = _time(clock, steps)
    _log_points(rec, f"{entity}/now", states, time, colour, radius, 30.0 + row)
    _log_points(rec, f"{entity}/dots", states, time, colour, DOT_RADIUS, 25.0)
    _log_way(rec, f"{entity}/way", states, _time(clock, steps[1:]), colour)
    name = f"{trial.sampler}, {trial.evaluations}"
    _log_name(rec, f"{entity}/name", name, row, states.shape[-1], colour)
    if exact_path and not SAMPLERS[trial.sampler].noisy:
        distances = _distances(trial, exact_path)
        log_curve(rec, f"distance/{entity}", trial.sampler, distances, time, colour)


def _states(path: Sequence[State]) -> tuple[NDArray, NDArray]:
    """Return the states (S, K, *dims) as float32, and their numbers of forward steps (S,)."""
    states = np.stack([state.x_t.float().numpy() for state in path])
    steps = np.array([state.step for state in path])
    return states, steps


def _log_points(
    rec: rr.RecordingStream,
    entity: str,
    states: NDArray,
    time: list[rr.TimeColumn],
    colour: Sequence[int],
    radius: float,
    order: float,
) -> None:
    """Send points, states (S, K, d), that move over `time`."""
    count, per_state, d = states.shape
    points = points_type(d)
    style = points.from_fields(
        radii=rr.Radius.ui_points(radius),
        colors=[colour],
        **draw_order(d, order),
    )
    rec.log(entity, style, static=True)
    columns = points.columns(positions=states.reshape(-1, d)).partition([per_state] * count)
    rec.send_columns(entity, indexes=time, columns=columns)


def _log_way(
    rec: rr.RecordingStream,
    entity: str,
    states: NDArray,
    time: list[rr.TimeColumn],
    colour: Sequence[int],
) -> None:
    """Send a segment from each state (S, K, d) to the next; `time` is that of all but the first."""
    count, per_state, d = states.shape
    strips = strips_type(d)
    style = strips.from_fields(
        radii=rr.Radius.ui_points(1.0),
        colors=[colour],
        **draw_order(d, 20.0),
    )
    rec.log(entity, style, static=True)
    segments = np.stack([states[:-1], states[1:]], 2).reshape(-1, 2, d)
    columns = strips.columns(strips=segments).partition([per_state] * (count - 1))
    rec.send_columns(entity, indexes=time, columns=columns)


def _log_name(
    rec: rr.RecordingStream,
    entity: str,
    name: str,
    row: int,
    d: int,
    colour: Sequence[int],
) -> None:
    """Send a line of the legend, which stands in the corner in the colours of the paths."""
    place = [-2.75, 3.0 - 0.36 * row, 0]
    label = points_type(d)(
        np.array([place[:d]]),
        labels=[name],
        colors=colour,
        radii=rr.Radius.ui_points(3.0),
        show_labels=True,
    )
    rec.log(entity, label, static=True)


def _distances(trial: Trial, exact: Sequence[State]) -> NDArray:
    """Return the mean distance (S,) of a trial's samples from the exact path at equal noise."""
    exact_at = {state.step: state.x_t.numpy() for state in exact}
    states, steps = _states(trial.path)
    distances = []
    for x, step in zip(states, steps.tolist()):
        distances.append(np.linalg.norm(x - exact_at[step], axis=-1).mean())
    return np.array(distances)


# ---------------------------------------------------------------- layout


def _blueprint(found: Comparison, asked: int, d: int) -> rrb.Blueprint:
    """Return the layout: a view for each denoiser, and below it the distances to the exact flow."""
    clouds = [_cloud(found, denoiser, d) for denoiser in found.denoisers]
    rows: list[Any] = [rrb.Horizontal(*clouds)]
    quiet = [name for name in _shown(found, asked) if not SAMPLERS[name].noisy]
    if found.exact_path and quiet:
        top = _highest(found, quiet, asked)
        curves = []
        for denoiser in found.denoisers:
            origin = f"/distance/{ENTITIES[denoiser]}"
            title = f"With the {denoiser}: distance to the exact flow"
            curves.append(curve_view(origin, title, top))
        rows.append(rrb.Horizontal(*curves))
    pictures = rrb.Vertical(*rows, row_shares=[5, 2][: len(rows)])
    about = rrb.TextDocumentView(origin="/about", name="About")
    whole = rrb.Horizontal(pictures, about, column_shares=[4, 1])
    return rrb.Blueprint(whole, time_panel("time"), collapse_panels=True)


def _cloud(found: Comparison, denoiser: str, d: int) -> rrb.View:
    """Return the view of all paths with one denoiser; those of noisy samplers are hidden."""
    entity = ENTITIES[denoiser]
    until_now = _until_now()
    overrides: dict[str, Any] = {}
    for name in [*found.samplers, EXACT_FLOW]:
        noisy = name != EXACT_FLOW and SAMPLERS[name].noisy
        shown = rrb.EntityBehavior(visible=False) if noisy else until_now
        overrides[f"/{entity}/{name}/way"] = shown
        overrides[f"/{entity}/{name}/dots"] = shown
    return cloud_view(
        d,
        contents=f"/{entity}/**",
        name=f"With the {denoiser}",
        overrides=overrides,
    )


def _until_now() -> rrb.VisibleTimeRanges:
    """Return the ranges that show everything up to now; t falls in a reverse process."""
    infinite = rrb.TimeRangeBoundary.infinite()
    now = rrb.TimeRangeBoundary.cursor_relative()
    return rrb.VisibleTimeRanges(
        [
            rrb.VisibleTimeRange("time", start=infinite, end=now),
            rrb.VisibleTimeRange("step", start=infinite, end=now),
            rrb.VisibleTimeRange("t", start=now, end=infinite),
        ]
    )


def _highest(found: Comparison, samplers: Sequence[str], asked: int) -> float:
    """Return the largest distance of a sampler from the exact flow, in any view."""
    highest = 0.0
    for denoiser in found.denoisers:
        for sampler in samplers:
            trial = found.trial(denoiser, sampler, asked)
            highest = max(highest, float(_distances(trial, found.exact_path).max()))
    return highest


# ---------------------------------------------------------------- images


def _image_scene(found: Comparison, asked: int) -> Scene:
    """Return x_t and the predicted x_0 of every sampler, at each step that one of them visits.

    Between its own steps a sampler does not move.
    """
    samplers = _shown(found, asked)
    trials = [found.trial(found.denoisers[0], name, asked) for name in samplers]
    visited = {state.step for trial in trials for state in trial.path}
    steps = sorted(visited, reverse=True)
    x_t = []
    x_0 = []
    for step in steps:
        reached = [_state_at(trial.path, step) for trial in trials]
        x_t.append(np.concatenate([state.x_t.float().numpy() for state in reached]))
        x_0.append(np.concatenate([state.x_0.float().numpy() for state in reached]))

    count = len(trials[0].path[0].x_t)
    process = Process("reverse", np.stack(x_t), np.array(steps))
    return Scene(
        [process],
        alpha_bar=found.alpha_bar,
        predictions=(process.states, np.stack(x_0)),
        labels=np.repeat(np.arange(len(trials)), count),
        classes=[f"{trial.sampler}, {trial.evaluations}" for trial in trials],
        row_words=f"Each row: another sampler from the same noise, and its evaluations (at most {asked})",
    )


def _state_at(path: Sequence[State], step: int) -> State:
    """Return the last state of a path that has at least so many forward steps, or the first."""
    reached = path[0]
    for state in path:
        if state.step >= step:
            reached = state
    return reached
