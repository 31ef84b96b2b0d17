"""Samplers that may run the network equally often, from the same x_T, with the exact denoiser beside it.

No sampler runs it more often than it may. Some run it less often: Heun's method takes an even number of evaluations.

With the exact denoiser all that is wrong is the sampler's error. What the network adds to it is the network's.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset import DataSet, Normaliser, PointSet
from diffusion import Denoiser, Prediction
from images.sets import ImageSet
from metrics import image_metrics, two_sample
from metrics.distances import METRICS, Draw, all_metrics, compute_floors, sliced_wasserstein
from metrics.evaluation import (
    as_frequent,
    check_enough,
    comparable_rows,
    in_deviations,
    real_draws,
    real_rows,
    with_whole_numbers,
)
from metrics.flow_map import EVALUATIONS, FlowMap, PosteriorMeans, exact_flow, flow_map
from metrics.significance import MIN_CLASSIFIED, Evidence, negative_log_density
from pipeline import Pipeline
from registry.plugins import is_added
from runtime.atomic_file import atomic_file
from runtime.progress import progress_bar
from runtime.randomness import generator
from samplers import SAMPLERS, State, sample, sampler_row
from samplers.guidance import exact_predictor
from samplers.options import SamplingOptions
from schedule import CLEAN, NoiseScheduler, evenly_spaced

NETWORK, EXACT = "network", "exact denoiser"
TRACKED = 6  # samples whose states are kept
FLOW_POINTS, FLOW_STATES = 256, 200  # of the exact flow map, and states along the paths of the tracked ones
FURTHEST = 1e6  # samples beyond it count as lost, as NaN and infinity do
ENERGY, CLASSIFIER = "energy distance", "classifier accuracy"
COSTLY = (ENERGY, CLASSIFIER)
SHORT = {
    "sliced Wasserstein-1": "W1",
    ENERGY: "energy",
    "log-density gap": "gap",
    CLASSIFIER: "accuracy",
    "Frechet distance": "Frechet",
}


class Floor(NamedTuple):
    """What real data gives in place of samples: the 90 % band and the median."""

    low: float
    median: float
    high: float


class Truth(NamedTuple):
    """figures: samples in data units (N, *dims), and whether also to compute the COSTLY ones -> the figures by name;
    their floors, at this number of samples.
    """

    figures: Callable[[NDArray, bool], dict[str, float]]
    floors: dict[str, Floor]


class Planned(NamedTuple):
    """A sampler and the evaluations that it may make, `asked`.

    steps: its sampling_steps, the largest that keep to `asked`; None where even one step makes more.
    evaluations: what these steps make; without steps, the fewest that the sampler can make.
    """

    sampler: str
    asked: int
    steps: int | None
    evaluations: int


@dataclass(frozen=True)
class Trial:
    """One sampler with one denoiser, allowed `asked` evaluations: what it took, made and is worth.

    samples: (N, *dims) in data units; path: the states of the first TRACKED of them, in normalised units.
    """

    denoiser: str
    sampler: str
    asked: int
    evaluations: int
    milliseconds: float
    figures: Mapping[str, float]
    samples: NDArray
    path: Sequence[State]


@dataclass(frozen=True)
class Comparison:
    """All trials; real data (N, *dims), in data units and normalised; for points of a known density also the flow map,
    and the exact paths of the first TRACKED x_T at every step of the trials' paths, as `Trial.path`; alpha_bar (T + 1,)

    plan: every pair of sampler and number of evaluations, also those that cannot be kept to and have no trial.
    """

    plan: Sequence[Planned]
    trials: Sequence[Trial]
    floors: Mapping[str, Floor]
    real: NDArray
    normalised: NDArray
    flow: FlowMap | None
    exact_path: Sequence[State]
    alpha_bar: NDArray

    def planned(self, sampler: str, asked: int) -> Planned:
        return next(p for p in self.plan if (p.sampler, p.asked) == (sampler, asked))

    def trial(self, denoiser: str, sampler: str, asked: int) -> Trial:
        """The trial of a pair that has one: `planned(sampler, asked).steps` is not None."""
        return next(t for t in self.trials if (t.denoiser, t.sampler, t.asked) == (denoiser, sampler, asked))

    def figures(self, denoiser: str) -> list[str]:
        """The names of the figures of its trials."""
        return [*next(t for t in self.trials if t.denoiser == denoiser).figures]

    @property
    def denoisers(self) -> list[str]:
        return [*dict.fromkeys(t.denoiser for t in self.trials)]

    @property
    def samplers(self) -> list[str]:
        return [*dict.fromkeys(p.sampler for p in self.plan)]

    @property
    def asked(self) -> list[int]:
        return sorted({p.asked for p in self.plan})


def compare(
    pipeline: Pipeline,
    samplers: Sequence[str] | None,
    evaluations: Sequence[int],
    count: int,
    seed: int,
    guidance: SamplingOptions | None = None,
) -> Comparison:
    """Every sampler (None: all) at every number of evaluations, `count` samples each, all from the same x_T.

    guidance: of the network, out of these options; default: that of the kind of data.

    Raises:
        ValueError: no sampler or no number, one that there is not, or numbers so small that no sampler keeps to them.
    """
    pairs = _pairs(samplers, evaluations)
    check_pairs(pipeline.scheduler, pairs)
    plan = [make_plan(pipeline.scheduler, pipeline.dims, sampler, asked) for sampler, asked in pairs]
    if all(planned.steps is None for planned in plan):
        fewest = min(planned.evaluations for planned in plan)
        raise ValueError(f"none of these samplers can do with so few evaluations of this model; allow {fewest} or more")
    train, unseen = pipeline.data_sets()
    check_enough(unseen, count)
    truth = truth_of(pipeline, train, unseen, count, seed)

    labels = as_frequent(unseen, count, seed).to(pipeline.device) if pipeline.classes else None
    x_T, _ = pipeline.start(count, seed)
    exact = exact_prediction(pipeline, unseen, labels)
    denoisers = {NETWORK: _with_labels(pipeline.denoiser(pipeline.resolve(guidance)), labels)}
    if exact:
        denoisers[EXACT] = _exact_denoiser(exact, pipeline.scheduler)

    real = real_rows(unseen, count, seed)
    comparison = Comparison(
        plan=plan,
        trials=_trials(pipeline, plan, denoisers, x_T, truth, seed),
        floors=truth.floors,
        real=real,
        normalised=pipeline.normaliser.normalise(torch.from_numpy(real)).cpu().numpy(),
        flow=None,
        exact_path=[],
        alpha_bar=pipeline.scheduler.alpha_bar,
    )
    if exact and isinstance(unseen, PointSet) and unseen.mixture and unseen.mixture.has_density:
        return _with_exact_flow(comparison, pipeline.scheduler, exact, denoisers, x_T)
    return comparison


def _pairs(samplers: Sequence[str] | None, evaluations: Sequence[int]) -> list[tuple[str, int]]:
    """The pairs of a sampler (None: all) and a number of evaluations, each once, by rising numbers."""
    names = list(dict.fromkeys(SAMPLERS if samplers is None else samplers))
    return [(name, n) for n in sorted(set(evaluations)) for name in names]


def check_pairs(scheduler: NoiseScheduler, pairs: Sequence[tuple[str, int]]) -> None:
    """Raises ValueError for no pair of sampler and number of evaluations, or one that cannot be run."""
    if not pairs:
        raise ValueError("there is nothing to compare: name at least one sampler and one number of evaluations")
    T = scheduler.num_timesteps
    for name, n in pairs:
        sampler_row(name)
        if not 1 <= n <= T:
            raise ValueError(f"evaluations must lie in 1..{T}, for this model has T = {T}; got {n}")


def make_plan(scheduler: NoiseScheduler, dims: Sequence[int], sampler: str, asked: int) -> Planned:
    """The largest sampling_steps with which the sampler makes at most `asked` evaluations, of data of shape `dims`."""
    # One more step takes at most two evaluations, or one and one for each coordinate, for a covariance.
    at_most = 1 + max(1, math.prod(dims))
    steps = asked
    while True:
        made = evaluations_made(scheduler, dims, SamplingOptions(sampler, steps))
        if made <= asked:
            return Planned(sampler, asked, steps, made)
        if steps == 1:
            return Planned(sampler, asked, None, made)
        steps = max(1, steps - math.ceil((made - asked) / at_most))


def evaluations_made(scheduler: NoiseScheduler, dims: Sequence[int], options: SamplingOptions) -> int:
    """How often `sample` runs a denoiser of data of shape `dims`, with those evaluations that covariances take.

    It is counted in a run of one sample with a denoiser that costs nothing.
    """
    made = 0

    def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        nonlocal made
        made += 1
        return Prediction(torch.zeros_like(x_t), torch.zeros_like(x_t))

    for _ in sample(denoise, scheduler, torch.zeros(1, *dims), options, generator=generator(0, "counting")):
        pass
    return made


# ---------------------------------------------------------------- denoisers


def _with_labels(denoise: Denoiser, labels: Tensor | None) -> Denoiser:
    """The same denoiser of the first rows, each under its own label."""
    if labels is None:
        return denoise

    def denoise_labelled(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return denoise(x_t, t, labels[: len(x_t)])

    return denoise_labelled


def exact_prediction(pipeline: Pipeline, data: DataSet, labels: Tensor | None) -> PosteriorMeans | None:
    """The best predictions in normalised units for rows with these labels; None where the distribution is not known."""
    if not isinstance(data, PointSet) or data.mixture is None:
        return None
    distribution = pipeline.normaliser.normalise_mixture
    if labels is None:
        return distribution(data.mixture).denoise
    predict = exact_predictor([distribution(part) for part in data.parts])
    own_labels = labels.cpu()

    def predict_labelled(x_t: Tensor, alpha: float, sigma: float) -> Prediction:
        return predict(x_t, alpha, sigma, own_labels[: len(x_t)])

    return predict_labelled


def _exact_denoiser(exact: PosteriorMeans, scheduler: NoiseScheduler) -> Denoiser:
    def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        alpha, sigma = scheduler.alpha_sigma_at(int(t))
        return Prediction(*exact(x_t, alpha, sigma))

    return denoise


# ---------------------------------------------------------------- trials


def _trials(
    pipeline: Pipeline,
    plan: Sequence[Planned],
    denoisers: Mapping[str, Denoiser],
    x_T: Tensor,
    truth: Truth,
    seed: int,
) -> list[Trial]:
    """Every pair of the plan with every denoiser, all from the same x_T. The exact denoiser runs on the CPU."""
    starts = {NETWORK: x_T, EXACT: x_T.cpu()}
    jobs = [(denoiser, planned) for planned in plan if planned.steps is not None for denoiser in denoisers]
    trials = []
    for denoiser, planned in progress_bar(jobs, "comparing", len(jobs)):
        trials.append(_trial(pipeline, truth, seed, denoiser, denoisers[denoiser], starts[denoiser], planned))
    return trials


def _trial(
    pipeline: Pipeline,
    truth: Truth,
    seed: int,
    denoiser: str,
    denoise: Denoiser,
    x_T: Tensor,
    planned: Planned,
) -> Trial:
    """One sampler with one denoiser. All samplers with fresh noise draw the same noise."""
    g = generator(seed, "comparison", device=x_T.device)
    begin = time.perf_counter()
    made = 0

    def denoise_counted(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        nonlocal made
        made += 1
        return denoise(x_t, t, label)

    path = []
    x = x_T
    options = SamplingOptions(planned.sampler, planned.steps)
    for state in sample(denoise_counted, pipeline.scheduler, x_T, options, generator=g):
        path.append(State(state.t, state.x_t[:TRACKED].cpu().clone(), state.x_0[:TRACKED].cpu().clone()))
        x = state.x_t
    samples = pipeline.data_units(x.to(pipeline.device)).numpy()
    milliseconds = 1000 * (time.perf_counter() - begin)
    # The costly figures take most of the time, so only the network's samples have them.
    figures = truth.figures(samples, denoiser == NETWORK)
    return Trial(denoiser, planned.sampler, planned.asked, made, milliseconds, figures, samples, path)


# ---------------------------------------------------------------- the exact flow


def _with_exact_flow(
    comparison: Comparison,
    scheduler: NoiseScheduler,
    exact: PosteriorMeans,
    denoisers: Mapping[str, Denoiser],
    x_T: Tensor,
) -> Comparison:
    """The comparison with the flow map and the exact paths."""
    flow = _flow_map_of(scheduler, exact, denoisers, x_T, comparison.samplers)
    exact_path = _exact_path(scheduler, exact, x_T, comparison.trials)
    return replace(comparison, flow=flow, exact_path=exact_path)


def _flow_map_of(
    scheduler: NoiseScheduler,
    exact: PosteriorMeans,
    denoisers: Mapping[str, Denoiser],
    x_T: Tensor,
    samplers: Sequence[str],
) -> FlowMap | None:
    """The flow map of the deterministic samplers; None without one, or for a process of too few steps."""
    deterministic = [name for name in samplers if not sampler_row(name).noisy]
    if not deterministic or scheduler.num_timesteps < EVALUATIONS[0]:
        return None
    some = x_T[:FLOW_POINTS]
    pair = {EXACT: denoisers[EXACT], NETWORK: denoisers[NETWORK]}
    starts = {EXACT: some.double().cpu(), NETWORK: some}
    return flow_map(exact, scheduler, pair, starts, deterministic)


def _exact_path(scheduler: NoiseScheduler, exact: PosteriorMeans, x_T: Tensor, trials: Sequence[Trial]) -> list[State]:
    """The exact paths of the first TRACKED x_T, at every step of the trials' paths and at FLOW_STATES more."""
    steps = {CLEAN, *evenly_spaced(scheduler.num_timesteps - 1, 0, FLOW_STATES)}
    for trial in trials:
        steps |= {state.t for state in trial.path}
    falling = sorted(steps, reverse=True)
    points = exact_flow(exact, scheduler, x_T[:TRACKED], falling)
    return [State(t, x, x) for t, x in zip(falling, points)]


# ---------------------------------------------------------------- figures and floors


def truth_of(pipeline: Pipeline, train: DataSet, unseen: DataSet, count: int, seed: int) -> Truth:
    """What samples of this model are held against: in data units, or as evaluate.py does for a file."""
    if isinstance(train, ImageSet) and isinstance(unseen, ImageSet):
        return _of_images(train, unseen, count, seed, pipeline.device)
    assert isinstance(unseen, PointSet)
    if unseen.mixture is None:
        return _of_file(train, unseen, count, seed)
    return _of_points(unseen, real_draws(unseen, seed), count, seed)


def _of_file(train: DataSet, unseen: PointSet, count: int, seed: int) -> Truth:
    """What samples of a table are held against: its distinct rows, in standard deviations of each column."""
    normaliser = Normaliser.fit_dataset(train)
    rows = comparable_rows(unseen, normaliser)
    truth = _of_points(rows, real_draws(rows, seed), count, seed)

    def figures(samples: NDArray, costly: bool) -> dict[str, float]:
        rounded = with_whole_numbers(samples, unseen)
        return truth.figures(in_deviations(rounded, normaliser), costly)

    return Truth(figures, truth.floors)


def _of_points(data: PointSet, draw: Draw, count: int, seed: int) -> Truth:
    real, other = draw(count, 0), draw(count, 1)
    n = min(len(real), len(other))  # of a file there may be fewer than samples
    real, known = real[:n], data.mixture is not None and data.mixture.has_density
    classified = n >= MIN_CLASSIFIED  # a classifier needs as many to learn from
    added = [metric for metric in all_metrics() if is_added("metric", metric.name)]

    def figures(samples: NDArray, costly: bool) -> dict[str, float]:
        made = samples[:n]
        if not np.isfinite(made).all() or np.abs(made).max() > FURTHEST:
            return {name: math.nan for name in floors if costly or name not in COSTLY}
        found = {"sliced Wasserstein-1": sliced_wasserstein(made, real)}
        if costly:
            found[ENERGY] = two_sample.energy_distance(made, real)
        if known:
            density = negative_log_density(Evidence(made, real, data.mixture))
            found["log-density gap"] = float(density.value) - float(density.floor)
        for metric in added:
            found[metric.name] = metric.compute(made[: metric.most], real[: metric.most])
        if costly and classified:
            found[CLASSIFIER] = float(two_sample.classifier(made, real, seed).value)
        return found

    floors = {}
    for metric in [METRICS[0], *added]:
        between_real = compute_floors(metric, draw, min(n, metric.most))
        floors[metric.name] = Floor(*np.quantile(between_real, [0.05, 0.5, 0.95]))
    tests = {ENERGY: two_sample.energy(other[:n], real, seed)}
    if known:
        tests["log-density gap"] = negative_log_density(Evidence(other[:n], real, data.mixture))
    if classified:
        tests[CLASSIFIER] = two_sample.classifier(other[:n], real, seed)
    for name, s in tests.items():
        shift = float(s.floor) if name == "log-density gap" else 0.0
        floors[name] = Floor(*(float(x) - shift for x in (s.low, s.floor, s.high)))
    return Truth(figures, floors)


def _of_images(train: ImageSet, unseen: ImageSet, count: int, seed: int, device: torch.device) -> Truth:
    measure, floors = image_metrics.frechet_measure(train, unseen, count, seed=seed, device=device)
    low, median, high = np.quantile(floors, [0.05, 0.5, 0.95]).tolist()

    def figures(samples: NDArray, costly: bool) -> dict[str, float]:
        images = torch.from_numpy(samples)
        return {"Frechet distance": measure(images.clamp(-1, 1)) if bool(images.isfinite().all()) else math.nan}

    return Truth(figures, {"Frechet distance": Floor(low, median, high)})


# ---------------------------------------------------------------- in numbers


def table(found: Comparison) -> str:
    """One line for each sampler at each number of evaluations; a star where a figure lies within its floor's band."""
    figures = {d: found.figures(d) for d in found.denoisers}
    heads = [f"{' with the ' + d + ' ':-^{9 * len(names)}}" for d, names in figures.items()]
    columns = ["".join(f"{_short(name):>9}" for name in names) for names in figures.values()]
    names = ", ".join(f"{_short(name)}: {name}" for name in found.floors)
    lines = [f"  {names}", "  allowed, made: evaluations of the denoiser"]
    lines.append("  *: not above 95 % of real data; the gap not below 5 % of them either")
    lines += ["", " " * 34 + "   ".join(heads)]
    lines.append(f"  {'sampler':<13}{'allowed':>7}{'made':>6}{'ms':>6}" + "   ".join(columns))
    for title, pick in (("real data, median", 1), ("95 % of it below", 2)):
        cells = ["".join(f"{found.floors[name][pick]:>8.4f} " for name in names) for names in figures.values()]
        lines.append(f"  {title:<32}" + "   ".join(cells))
    for n in found.asked:
        lines.append("")
        for name in found.samplers:
            planned = found.planned(name, n)
            first = f"  {name:<13}{n:>7}"
            if planned.steps is None:
                lines.append(f"{first}      left out: it makes {planned.evaluations} or more")
                continue
            trials = [found.trial(d, name, n) for d in found.denoisers]
            first += f"{trials[0].evaluations:>6}{trials[0].milliseconds:>6.0f}"
            cells = ["".join(_cell(t, f, found.floors[f]) for f in figures[t.denoiser]) for t in trials]
            lines.append(first + "   ".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def _short(name: str) -> str:
    """A figure's name as the head of a column of the table."""
    return SHORT.get(name, name[:8])


def _cell(trial: Trial, figure: str, floor: Floor) -> str:
    value = trial.figures[figure]
    within = value <= floor.high and (value >= floor.low or figure != "log-density gap")  # a gap has two sides
    return f"{value:>8.4f}{'*' if within else ' '}" if abs(value) < 100 else f"{value:>8.2g} "


def save_numbers(path: Path, found: Comparison, **facts: object) -> None:
    """compare.json: the facts, floors, a row for each trial, what was left out, and the flow map.

    A figure that is not finite is null.
    """
    rows = []
    for trial in found.trials:
        row = {
            "denoiser": trial.denoiser,
            "sampler": trial.sampler,
            "evaluations": trial.evaluations,
            "asked": trial.asked,
            "milliseconds": round(trial.milliseconds, 1),
        }
        for name, value in trial.figures.items():
            row[name] = _finite_or_none(value)
        rows.append(row)

    floors = {name: floor._asdict() for name, floor in found.floors.items()}
    left_out = []
    for planned in found.plan:
        if planned.steps is None:
            left_out.append({"sampler": planned.sampler, "asked": planned.asked, "fewest": planned.evaluations})
    result = {**facts, "floors": floors, "trials": rows, "left_out": left_out}
    if found.flow:
        result["flow_map"] = {
            "evaluations": found.flow.evaluations,
            "errors": found.flow.errors,
            "slopes": {name: _finite_or_none(value) for name, value in found.flow.slopes.items()},
            "last_step": found.flow.last_step,
        }
    with atomic_file(path) as file:
        file.write(f"{json.dumps(result, indent=2)}\n".encode())


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
