"""The evaluation of points: tests with p-values (significance.py), and distances, each with its floor.

A distance between finite samples is never 0, so a value without its floor says nothing: the floor is the same distance
between independent sets of real points of the same size. Of points, distances inform and do not vote. To add one,
write a function of two point sets and give it a row in METRICS.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from metrics.significance import MOST, Evidence, run_tests
from metrics.table import MetricResult
from points.mixture import GaussianMixture
from runtime.arrays import floats
from runtime.randomness import generator, integer_seed

Draw = Callable[[int, int], NDArray]  # draw(n, i): the i-th independent set of n real points, (n, d)
LARGEST = 1e100  # of a coordinate

# ---------------------------------------------------------------- functions of two point sets (n, d) and (m, d)


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
    """A function of two point sets, used on at most `most` of each (the cost grows with them)."""

    name: str
    compute: Callable[[NDArray, NDArray], float]
    most: int


METRICS = [
    Metric("sliced Wasserstein-1", sliced_wasserstein, 10_000),
    Metric("Wasserstein-2", wasserstein2, 500),
]
REPEATS = 20  # of a floor


# ---------------------------------------------------------------- value against floor


def evaluate_points(
    samples: NDArray,
    draw: Draw,
    mixture: GaussianMixture | None = None,
    *,
    parts: int = 1,
    train: NDArray | None = None,
    seed: int = 0,
) -> list[MetricResult]:
    """Every test of the samples (N, d) against the exact distribution and against real points; then the distances.

    Args:
        draw: real points (see Draw); `exact_draws` and `rows_of` make one.
        mixture: the exact distribution where it is known; adds the tests that need it if it has a density.
        parts: of equal mass, of which the mixture consists.
        train: points (M, d) of which the samples should not be copies; None: not known.

    Raises:
        ValueError: NaN, the wrong dimension, or fewer than 100 samples or real points.
    """
    samples = _checked(samples, dim=draw(1, 0).shape[1])
    real = draw(MOST, 0)
    n = min(len(samples), len(real), MOST)
    tests = run_tests(Evidence(samples[:n], real[:n], mixture, parts, train, seed))
    return tests + [_distance(metric, samples[:n], draw) for metric in METRICS]


def _distance(metric: Metric, samples: NDArray, draw: Draw) -> MetricResult:
    n = min(len(samples), metric.most)
    value, floors = metric.compute(samples[:n], draw(n, 0)), compute_floors(metric, draw, n)
    low, median, high = (float(q) for q in np.quantile(floors, [0.05, 0.5, 0.95]))
    verdict = f"{'within' if value <= high else 'above'} its floor's band at n = {n:,} (no vote)"
    return MetricResult(metric.name, value, median, low, high, n, True, verdict)


def compute_floors(metric: Metric, draw: Draw, n: int) -> NDArray:
    """The metric between independent sets of n real points, (REPEATS,)."""
    return np.array([metric.compute(draw(n, 2 * i + 1), draw(n, 2 * i + 2)) for i in range(REPEATS)])


def exact_draws(mixture: GaussianMixture, seed: int) -> Draw:
    """Fresh independent draws from the exact distribution."""
    return lambda n, i: mixture.sample(n, generator(seed, "real draws", i)).float().numpy()


def rows_of(points: NDArray, seed: int) -> Draw:
    """Random rows of a finite set: draws 2i + 1 and 2i + 2 share none, so each holds at most half of the set."""

    def draw(n: int, i: int) -> NDArray:
        order = np.random.default_rng(integer_seed(seed, "real draws", (i + 1) // 2)).permutation(len(points))
        half = len(points) // 2
        return points[order[:half] if i % 2 else order[-half:]][:n]

    return draw


def _checked(samples: NDArray, dim: int) -> NDArray:
    samples = np.asarray(samples)
    if samples.ndim != 2 or samples.shape[1] != dim:
        raise ValueError(f"samples must have shape (N, {dim}) like the data, not {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError("the samples hold NaN or infinity")
    return samples
