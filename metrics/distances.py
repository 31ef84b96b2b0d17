"""Distances between samples, each with its floor: the same distance between independent real draws of the same size.

A distance of finite samples is never 0, so a figure without its floor says nothing. `judge` compares the two.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from mixture import GaussianMixture
from runtime.randomness import generator, integer_seed

Draw = Callable[[int, int], NDArray]  # draw(n, i): the i-th independent set of n real points

# ---------------------------------------------------------------- distances of two point sets (n, d) and (m, d)


def classifier_accuracy(a: NDArray, b: NDArray) -> float:
    """How often a classifier tells a from b: 0.5 if it cannot, 1 if always.

    Gradient-boosted trees, 5-fold cross-validation (Lopez-Paz and Oquab 2017, arXiv 1610.06545).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # a second to import, and few need it
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    x, y = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with threadpool_limits(1, "openmp"):  # two threads of it wait for each other for seconds on a busy machine
        trees = HistGradientBoostingClassifier(early_stopping=True, random_state=0)
        return float(cross_val_score(trees, x, y, cv=folds).mean())


def sliced_wasserstein(a: NDArray, b: NDArray, directions: int = 100) -> float:
    """Wasserstein-1 of the projections onto directions, averaged (Bonneel et al. 2015), in the points' units."""
    _same_size(a, b)
    normals = np.random.default_rng(0).normal(size=(a.shape[1], directions))
    normals /= np.linalg.norm(normals, axis=0)
    return float(np.abs(np.sort(a @ normals, 0) - np.sort(b @ normals, 0)).mean())


def wasserstein2(a: NDArray, b: NDArray) -> float:
    """The exact Wasserstein-2 distance (the root of the mean squared length of the best matching)."""
    _same_size(a, b)
    cost = cdist(a, b, "sqeuclidean")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def energy_distance(a: NDArray, b: NDArray) -> float:
    """sqrt(2 E|a - b| - E|a - a'| - E|b - b'|) (Szekely and Rizzo 2013); the means include a point and itself."""
    return float(np.sqrt(max(2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean(), 0)))


def negative_log_density(mixture: GaussianMixture, a: NDArray) -> float:
    """-E[log p(a)] in nats under the exact law. For real points: the law's entropy. Lower is *not* better."""
    return -float(mixture.log_density(torch.as_tensor(a)).mean())


def _same_size(a: NDArray, b: NDArray) -> None:
    if len(a) != len(b):
        raise ValueError(f"this distance matches points one to one: {len(a)} and {len(b)} do not fit")


@dataclass(frozen=True)
class Distance:
    """How a distance is judged: with `least` to `most` points (its cost grows), `repeats` times between real draws.

    `failed` words the verdict from (value, floor, value - floor).
    """

    name: str
    between: Callable[[NDArray, NDArray], float]
    least: int
    most: int
    repeats: int
    failed: str = "{0:.3g} where real points give {1:.3g}"
    two_sided: bool = False
    unit: str = ""


DISTANCES = [
    Distance("classifier accuracy", classifier_accuracy, 100, 10_000, 20, "a classifier tells {0:.1%} apart"),
    Distance("sliced Wasserstein-1", sliced_wasserstein, 20, 10_000, 20),
    Distance("Wasserstein-2", wasserstein2, 20, 1000, 20),
    Distance("energy distance", energy_distance, 20, 2000, 20),
]
CLEARLY = 4.0  # standard deviations of the floor beyond which a figure counts as told apart


def density_distance(mixture: GaussianMixture) -> Distance:
    """The mean negative log-density as a row of the table. It does not look at the real points that it is given."""
    failed = "{2:+.3f} nats from real points"
    return Distance(
        "negative log-density", lambda a, real: negative_log_density(mixture, a), 20, 10_000, 20, failed, True
    )


# ---------------------------------------------------------------- the judgement


@dataclass(frozen=True)
class MetricResult:
    """A figure beside its floor: median and 90 % band of the same figure between real draws of the same size n."""

    name: str
    value: float
    floor: float
    low: float
    high: float
    n: int
    passed: bool
    verdict: str
    unit: str = ""


def metric_result(distance: Distance, value: float, floors: NDArray, n: int) -> MetricResult:
    """Hold a value against repeated floors; it passes within CLEARLY standard deviations of their median.

    Distances scatter evenly around it in their logarithm; the two-sided figure, which may be negative, as it is.
    """
    low, median, high = (float(q) for q in np.quantile(floors, [0.05, 0.5, 0.95]))
    scale = (lambda a: a) if distance.two_sided else (lambda a: np.log(np.maximum(a, 1e-12)))
    beyond = scale(value) - scale(median)
    passed = bool((abs(beyond) if distance.two_sided else beyond) <= CLEARLY * np.std(scale(floors), ddof=1))
    within = value <= high and (value >= low or not distance.two_sided)
    if passed:
        verdict = f"indistinguishable at n = {n:,}" if within else "a little beyond its floor's band"
    else:
        verdict = distance.failed.format(value, median, value - median)
    return MetricResult(distance.name, value, median, low, high, n, passed, verdict, distance.unit)


def measure(samples: NDArray, draw: Draw, mixture: GaussianMixture | None = None) -> list[MetricResult]:
    """Every distance between the samples (N, d) and real points, each with its floor.

    Args:
        draw: real points (see Draw); `from_law` and `from_points` make one.
        law: the exact law where it is known; adds the mean negative log-density where there is a density.

    Raises:
        ValueError: NaN, the wrong dimension, or too few samples for a distance.
    """
    samples = _checked(samples, dim=draw(1, 0).shape[1])
    distances = [*DISTANCES, density_distance(mixture)] if mixture and mixture.has_density else DISTANCES
    return [_held_against_floor(distance, samples, draw) for distance in distances]


def _held_against_floor(distance: Distance, samples: NDArray, draw: Draw) -> MetricResult:
    n = min(len(samples), distance.most, len(draw(distance.most, 0)))
    if n < distance.least:
        raise ValueError(f"{distance.name} needs at least {distance.least} samples and real points, got {n}")
    return metric_result(distance, distance.between(samples[:n], draw(n, 0)), floors(distance, draw, n), n)


def floors(distance: Distance, draw: Draw, n: int) -> NDArray:
    """The distance between independent real draws of size n, `distance.repeats` times."""
    return np.array([distance.between(draw(n, 2 * i + 1), draw(n, 2 * i + 2)) for i in range(distance.repeats)])


def exact_draws(mixture: GaussianMixture, seed: int) -> Draw:
    """Fresh independent draws of a law."""
    return lambda n, i: mixture.sample(n, generator(seed, "real draws", i)).float().numpy()


def rows_of(points: NDArray, seed: int) -> Draw:
    """Random rows of a finite set: draws 2i + 1 and 2i + 2 share none, so that at most half of the set is in each."""

    def draw(n: int, i: int) -> NDArray:
        order = np.random.default_rng(integer_seed(seed, "real draws", (i + 1) // 2)).permutation(len(points))
        half = len(points) // 2
        return points[order[:half] if i % 2 else order[half:]][:n]

    return draw


def _checked(samples: NDArray, dim: int) -> NDArray:
    samples = np.asarray(samples)
    if samples.ndim != 2 or samples.shape[1] != dim:
        raise ValueError(f"samples must have shape (N, {dim}) like the data, not {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError("the samples hold NaN or infinity")
    return samples


# ---------------------------------------------------------------- what a person reads


def table(rows: list[MetricResult]) -> str:
    """One line for each figure (value, floor with its 90 % band, verdict) and one for all."""
    lines = [f"  {'figure':<24}{'value':>9}   {'floor [90 % band]':<26} verdict"]
    for r in rows:
        floor = f"{r.floor:.4f} [{r.low:.4f}, {r.high:.4f}]"
        lines.append(f"  {r.name:<24}{r.value:>9.4f}   {floor:<26} {r.verdict}")
    apart = [r.name for r in rows if not r.passed]
    lines.append(
        "  verdict: " + (f"told apart by {', '.join(apart)}" if apart else "indistinguishable by every figure")
    )
    return "\n".join(lines)


def as_json(rows: list[MetricResult]) -> dict[str, dict]:
    """The same for metrics.json."""
    return {r.name: {k: v for k, v in asdict(r).items() if k != "name"} for r in rows}
