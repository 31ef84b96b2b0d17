"""The recording of a comparison: the paths of all samplers from the same noise, over each other."""

from collections.abc import Sequence

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from metrics.sampler_comparison import EXACT, NETWORK, Comparison, Trial
from registry.sampler_rows import SAMPLERS
from samplers.steps import State
from viz.colours import DATA, PALETTE, PREDICTION
from viz.recording.layout import log_panels
from viz.recording.panel import clocks, cloud_view, curve_view, in_order, log_curve, points, time_panel
from viz.recording.text_panel import MARKDOWN
from viz.scene import HELD_S, LASTS_S, Process, Scene

RECORDED = 10  # evaluations; of those compared, the number nearest to it is recorded
PLACES = {NETWORK: "network", EXACT: "exact"}  # entities

ABOUT = """**The same noise**, carried to data by every sampler, with {asked} evaluations each: a dot for each of them.

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
    """Paths of points in 2 or 3 dimensions; of images the states of every sampler, a row each."""
    asked = min(found.asked, key=lambda n: abs(n - RECORDED))
    if found.real.ndim == 4:
        log_panels(rec, _image_scene(found, asked))
        return
    d, total = found.real.shape[1], max(state.step for state in found.trials[0].path)
    scene = Scene([Process("reverse", np.empty(0), np.array([total, 0]))], alpha_bar=found.alpha_bar)  # for its clocks
    rec.send_blueprint(_blueprint(found, asked, d))
    noisy = ", ".join(name for name in found.samplers if SAMPLERS[name].noisy) or "none here"
    rec.log("about", rr.TextDocument(ABOUT.format(asked=asked, noisy=noisy), media_type=MARKDOWN), static=True)
    for denoiser in found.denoisers:
        place = PLACES[denoiser]
        if d == 2:  # rerun's 2D views point y down
            rec.log(place, rr.Transform3D(scale=[1, -1, 1]), static=True)
        data = points(d)(found.normalised, colors=DATA, radii=rr.Radius.ui_points(0.8), **in_order(d, -10.0))
        rec.log(f"{place}/data", data, static=True)
        if found.exact_path:
            _log_path(rec, f"{place}/exact_flow", found.exact_path, scene, PREDICTION)
        for i, sampler in enumerate(found.samplers):
            trial, colour = found.of(denoiser, sampler, asked), PALETTE[i % len(PALETTE)]
            _log_path(rec, f"{place}/{sampler}", trial.path, scene, colour, i)
            _log_name(rec, f"{place}/{sampler}/name", sampler, i, d, colour)
            if found.exact_path and not SAMPLERS[sampler].noisy:
                values, steps = _off(trial, found.exact_path)
                log_curve(rec, f"distance/{place}/{sampler}", sampler, values, _clocks(scene, steps), colour)
    late = [rr.TimeColumn("time", duration=[LASTS_S + HELD_S])]
    rec.send_columns("late", indexes=late, columns=rr.AnyValues.columns(after=[0]))


def _clocks(scene: Scene, steps: NDArray) -> list[rr.TimeColumn]:
    return clocks(scene, scene.processes[0], steps)


def _states(path: Sequence[State]) -> tuple[NDArray, NDArray]:
    """(S, K, *dims), float32, and how many forward steps each is away from clean data (S,)."""
    return np.stack([state.x_t.float().numpy() for state in path]), np.array([state.step for state in path])


def _log_path(
    rec: rr.RecordingStream, entity: str, path: Sequence[State], scene: Scene, colour: Sequence[int], row: int = -1
) -> None:
    """ENTITY/now, where the samples are; /way, a segment for each step; and, of the sampler of that row, /dots, where
    the denoiser was asked. Later rows have smaller points above the others', so that at one place all can be seen."""
    states, steps = _states(path)
    (s, k, d), time = states.shape, _clocks(scene, steps)
    archetype, strips = points(d), rr.LineStrips2D if d == 2 else rr.LineStrips3D
    now = ("now", max(2.0, 4.5 - 0.8 * row) if row >= 0 else 3.0, 30.0 + row)
    for name, radius, order in (now, *((("dots", 1.6, 25.0),) if row >= 0 else ())):
        style = archetype.from_fields(radii=rr.Radius.ui_points(radius), colors=[colour], **in_order(d, order))
        rec.log(f"{entity}/{name}", style, static=True)
        columns = archetype.columns(positions=states.reshape(-1, d)).partition([k] * s)
        rec.send_columns(f"{entity}/{name}", indexes=time, columns=columns)
    style = strips.from_fields(radii=rr.Radius.ui_points(1.0), colors=[colour], **in_order(d, 20.0))
    rec.log(f"{entity}/way", style, static=True)
    segments = np.stack([states[:-1], states[1:]], 2).reshape(-1, 2, d)
    later = _clocks(scene, steps[1:])
    rec.send_columns(f"{entity}/way", indexes=later, columns=strips.columns(strips=segments).partition([k] * (s - 1)))


def _log_name(rec: rr.RecordingStream, entity: str, name: str, row: int, d: int, colour: Sequence[int]) -> None:
    """A legend in the corner, in the colours of the paths."""
    at = np.array([[-2.75, 3.0 - 0.36 * row, 0][:d]])
    label = points(d)(at, labels=[name], colors=colour, radii=rr.Radius.ui_points(3.0), show_labels=True)
    rec.log(entity, label, static=True)


def _off(trial: Trial, exact: Sequence[State]) -> tuple[NDArray, NDArray]:
    """The mean distance (S,) of a trial's samples from the exact path after the same numbers of forward steps (S,)."""
    (states, steps), there = _states(trial.path), {state.step: state.x_t.numpy() for state in exact}
    return np.array([np.linalg.norm(x - there[step], axis=-1).mean() for x, step in zip(states, steps.tolist())]), steps


def _blueprint(found: Comparison, asked: int, d: int) -> rrb.Blueprint:
    until_now = rrb.VisibleTimeRanges([
        rrb.VisibleTimeRange(clock, start=start, end=end)
        for clock, start, end in (
            ("time", rrb.TimeRangeBoundary.infinite(), rrb.TimeRangeBoundary.cursor_relative()),
            ("step", rrb.TimeRangeBoundary.infinite(), rrb.TimeRangeBoundary.cursor_relative()),
            ("t", rrb.TimeRangeBoundary.cursor_relative(), rrb.TimeRangeBoundary.infinite()),
        )
    ])  # fmt: skip
    hidden, places = rrb.EntityBehavior(visible=False), {d: PLACES[d] for d in found.denoisers}

    def cloud(denoiser: str, place: str) -> rrb.View:
        noisy = {name: SAMPLERS[name].noisy for name in found.samplers} | {"exact_flow": False}
        ways = {
            f"/{place}/{name}/{of}": hidden if noisy[name] else until_now for name in noisy for of in ("way", "dots")
        }
        return cloud_view(d, contents=f"/{place}/**", name=f"With the {denoiser}", overrides=ways)

    rows: list[rrb.Container | rrb.View] = [rrb.Horizontal(*(cloud(*pair) for pair in places.items()))]
    quiet = [name for name in found.samplers if not SAMPLERS[name].noisy]
    if found.exact_path and quiet:  # one that goes far astray shall not flatten the others
        highest = [_off(found.of(d, s, asked), found.exact_path)[0].max() for d in places for s in quiet]
        title, top = "Distance to the exact flow", float(min(1.05 * max(highest), 4 * np.median(highest)))
        rows.append(rrb.Horizontal(*(curve_view(f"/distance/{p}", title, top) for p in places.values())))
    stage = rrb.Vertical(*rows, row_shares=[5, 2][: len(rows)])
    about = rrb.TextDocumentView(origin="/about", name="About")
    whole = rrb.Horizontal(stage, about, column_shares=[4, 1])
    return rrb.Blueprint(whole, time_panel("time"), collapse_panels=True)


def _image_scene(found: Comparison, asked: int) -> Scene:
    """x_t and guess of every sampler at every step that one of them visits; between its own, a sampler stands still."""
    trials = [found.of(found.denoisers[0], name, asked) for name in found.samplers]
    steps = sorted({state.step for trial in trials for state in trial.path}, reverse=True)

    def filmed(of: str) -> NDArray:
        films = []
        for trial in trials:
            reached = [max(i for i, s in enumerate(trial.path) if i == 0 or s.step >= step) for step in steps]
            films.append(np.stack([getattr(trial.path[i], of).float().numpy() for i in reached]))
        return np.concatenate(films, 1)

    count = len(trials[0].path[0].x_t)
    process = Process("reverse", filmed("x_t"), np.array(steps))
    rows = f"Each row: another sampler, from the same noise, {asked} evaluations each"
    labels, guesses = np.repeat(np.arange(len(trials)), count), (process.states, filmed("x_0"))
    return Scene(
        [process],
        alpha_bar=found.alpha_bar,
        guesses=guesses,
        labels=labels,
        classes=found.samplers,
        row_words=rows,
    )
