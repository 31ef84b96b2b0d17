"""Metrics of points, each with its floor: the same metric between independent sets of real points of the same size.

A distance between finite samples is never 0, so a value without its floor says nothing. `evaluate_points` compares the
two. To add a metric, write a function of two point sets and give it a row in METRICS.
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
from runtime.arrays import floats
from runtime.randomness import generator, integer_seed

Draw = Callable[[int, int], NDArray]  # draw(n, i): the i-th independent set of n real points, (n, d)
LARGEST = 1e100  # of a coordinate

# ---------------------------------------------------------------- functions of two point sets (n, d) and (m, d)


def classifier_accuracy(a: NDArray, b: NDArray) -> float:
    """Accuracy of a classifier trained to separate a from b: 0.5 if it cannot, 1 if it always can.

    Gradient-boosted trees, 5-fold cross-validation (Lopez-Paz and Oquab 2017, arXiv 1610.06545).
    """
    from sklearn.ensemble import (
        HistGradientBoostingClassifier,
    )  # takes a second to import, and most commands never need it
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    x, y = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with threadpool_limits(1, "openmp"):  # on a busy machine two threads would wait for each other for seconds
        trees = HistGradientBoostingClassifier(early_stopping=True, random_state=0)  # pyright: ignore[reportArgumentType]
        return float(cross_val_score(trees, x, y, cv=folds).mean())


def sliced_wasserstein(a: NDArray, b: NDArray, directions: int = 100) -> float:
    """Mean Wasserstein-1 distance along random directions (Bonneel et al. 2015), in the points' units."""
    a, b = _same_size(a, b)
    normals = np.random.default_rng(0).normal(size=(a.shape[1], directions))
    normals /= np.linalg.norm(normals, axis=0)
    return float(np.abs(np.sort(a @ normals, 0) - np.sort(b @ normals, 0)).mean())


def wasserstein2(a: NDArray, b: NDArray) -> float:
    """The exact Wasserstein-2 distance: the root mean squared length of the optimal matching."""
    a, b = _same_size(a, b)
    cost = cdist(a, b, "sqeuclidean")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def energy_distance(a: NDArray, b: NDArray) -> float:
    """sqrt(2 E|a - b| - E|a - a'| - E|b - b'|) (Szekely and Rizzo 2013); the means include a point and itself."""
    a, b = _same_dimension(a, b)
    return float(np.sqrt(max(2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean(), 0)))


def negative_log_density(mixture: GaussianMixture, a: NDArray) -> float:
    """-E[log p(a)] in nats, p the exact density. For real points this is the entropy: lower is *not* better."""
    return -float(mixture.log_density(torch.as_tensor(a)).mean())


def _points(a: NDArray) -> NDArray:
    """Points (n, d) in float64, whose squares float64 can hold."""
    x = floats(a, "points").double()
    if x.ndim != 2 or not x.numel() or float(x.abs().max()) > LARGEST:
        raise ValueError(f"points must have shape (n, d) and lie within {LARGEST:g} of 0; got {tuple(x.shape)}")
    return x.numpy()


def _same_dimension(a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:
    a, b = _points(a), _points(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"points of {a.shape[1]} and {b.shape[1]} coordinates cannot be compared")
    return a, b


def _same_size(a: NDArray, b: NDArray) -> tuple[NDArray, NDArray]:
    a, b = _same_dimension(a, b)
    if len(a) != len(b):
        raise ValueError(f"this metric matches points one to one, so {len(a)} and {len(b)} points cannot be compared")
    return a, b


@dataclass(frozen=True)
class Metric:
    """A function of two point sets, and how to use it: on `fewest` to `most` points (the cost grows with them).

    The floor is computed `repeats` times. `failed` words the verdict from (value, floor, value - floor). `two_sided`:
    values below the floor are as bad as values above it, and the scale is linear, not logarithmic.
    """

    name: str
    compute: Callable[..., float]  # of two sets: arrays of points, or tensors of an image's features
    fewest: int
    most: int
    repeats: int
    failed: str = "{0:.3g} where real points give {1:.3g}"
    two_sided: bool = False
    unit: str = ""


METRICS = [
    Metric("classifier accuracy", classifier_accuracy, 100, 10_000, 20, "a classifier is right on {0:.1%} of points"),
    Metric("sliced Wasserstein-1", sliced_wasserstein, 20, 10_000, 20),
    Metric("Wasserstein-2", wasserstein2, 20, 1000, 20),
    Metric("energy distance", energy_distance, 20, 2000, 20),
]
THRESHOLD = 4.0  # standard deviations of the floor beyond which samples count as distinguishable


def density_metric(mixture: GaussianMixture) -> Metric:
    """The mean negative log-density as a metric. It ignores the real points that it is given."""
    failed = "{2:+.3f} nats from real points"
    return Metric("negative log-density", lambda a, _: negative_log_density(mixture, a), 20, 10_000, 20, failed, True)


# ---------------------------------------------------------------- value against floor


@dataclass(frozen=True)
class MetricResult:
    """A value and its floor: median and 90 % band (low, high) of the same metric between sets of n real points each."""

    name: str
    value: float
    floor: float
    low: float
    high: float
    n: int
    passed: bool
    verdict: str
    unit: str = ""


def evaluate_points(samples: NDArray, draw: Draw, mixture: GaussianMixture | None = None) -> list[MetricResult]:
    """Every metric between the samples (N, d) and real points, each with its floor.

    Args:
        draw: real points (see Draw); `exact_draws` and `rows_of` make one.
        mixture: the exact distribution where it is known; adds the mean negative log-density if it has a density.

    Raises:
        ValueError: NaN, the wrong dimension, or too few samples for a metric.
    """
    samples = _checked(samples, dim=draw(1, 0).shape[1])
    metrics = [*METRICS, density_metric(mixture)] if mixture and mixture.has_density else METRICS
    return [_result(metric, samples, draw) for metric in metrics]


def _result(metric: Metric, samples: NDArray, draw: Draw) -> MetricResult:
    n = min(len(samples), metric.most, len(draw(metric.most, 0)))
    if n < metric.fewest:
        raise ValueError(f"{metric.name} needs at least {metric.fewest} samples and real points, got {n}")
    return compare_with_floors(metric, metric.compute(samples[:n], draw(n, 0)), compute_floors(metric, draw, n), n)


def compute_floors(metric: Metric, draw: Draw, n: int) -> NDArray:
    """The metric between independent sets of n real points, (metric.repeats,)."""
    return np.array([metric.compute(draw(n, 2 * i + 1), draw(n, 2 * i + 2)) for i in range(metric.repeats)])


def compare_with_floors(metric: Metric, value: float, floors: NDArray, n: int) -> MetricResult:
    """Compare a value with repeated floors (R,): it passes within THRESHOLD standard deviations of their median.

    The logarithm of a distance scatters evenly around its median; a two-sided metric, which may be negative, as it is.
    """
    low, median, high = (float(q) for q in np.quantile(floors, [0.05, 0.5, 0.95]))
    x = np.array([value, median, *floors])
    x = x if metric.two_sided else np.log(np.maximum(x, 1e-12))  # value, median, floors: (2 + R,)
    beyond = abs(x[0] - x[1]) if metric.two_sided else x[0] - x[1]
    passed = bool(beyond <= THRESHOLD * np.std(x[2:], ddof=1))
    within = value <= high and (value >= low or not metric.two_sided)
    if passed:
        verdict = f"indistinguishable at n = {n:,}" if within else "slightly outside its floor's band"
    else:
        verdict = metric.failed.format(value, median, value - median)
    return MetricResult(metric.name, value, median, low, high, n, passed, verdict, metric.unit)


def exact_draws(mixture: GaussianMixture, seed: int) -> Draw:
    """Fresh independent draws from the exact distribution."""
    return lambda n, i: mixture.sample(n, generator(seed, "real draws", i)).float().numpy()


def rows_of(points: NDArray, seed: int) -> Draw:
    """Random rows of a finite set: draws 2i + 1 and 2i + 2 share none, so each holds at most half of the set."""

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


# ---------------------------------------------------------------- output


def table(rows: list[MetricResult]) -> str:
    """One line for each metric (value, floor with its 90 % band, verdict) and an overall verdict."""
    lines = [f"  {'metric':<24}{'value':>9}   {'floor [90 % band]':<26} verdict"]
    for r in rows:
        floor = f"{r.floor:.4f} [{r.low:.4f}, {r.high:.4f}]"
        lines.append(f"  {r.name:<24}{r.value:>9.4f}   {floor:<26} {r.verdict}")
    failed = ", ".join(r.name for r in rows if not r.passed)
    lines.append("  verdict: " + (f"distinguishable by {failed}" if failed else "indistinguishable by every metric"))
    return "\n".join(lines)


def as_json(rows: list[MetricResult]) -> dict[str, dict]:
    """The same results for metrics.json, by name."""
    return {r.name: {k: v for k, v in asdict(r).items() if k != "name"} for r in rows}
