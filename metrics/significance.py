"""Tests of samples against real points, each with a p-value that does not depend on a floor's luck.

Two kinds. Where the exact distribution is a mixture of Gaussians, a real point is a centre and standard normal noise.
Draw for each sample the centre that it came from, out of its posterior: for real points, and for them only, the centres
then are as frequent as their weights, and the noise is standard normal and independent of them. Cells along the curve
(and across it) therefore have exactly equal probability, and points far off it have an exactly known one.

Where only real points are known, samples and real points could be exchanged if both were real, so p-values come from
permuting them. To add a test, write a function of Evidence and give it a row in TESTS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import coo_array, csr_array
from scipy.spatial import KDTree
from threadpoolctl import threadpool_limits

from metrics.table import LEVEL, MetricResult, in_words
from mixture import GaussianMixture
from runtime.randomness import generator, integer_seed

FEWEST = 100  # samples
MOST = 10_000  # samples, and real points, that a test looks at
ALONG, ACROSS, CELL = 80, 5, 25  # cells along the curves and across, and the fewest points due in one
STRAY = 1e-4  # the share of real points that counts as strays
NEIGHBOURS = 5
BLOCKS = 5  # of the classifier
PAIRED, PERMUTATIONS = 2000, 1299  # points of each kind for the energy distance, and permutations of them
ENTROPY_POINTS = 1 << 16
MEMORISED = 0.05  # the share of points, those nearest to one training point alone, that is looked at


@dataclass(frozen=True)
class Evidence:
    """What tests may look at. samples, real: (n, d) each, n at most MOST; real ones are independent of all others.

    mixture: the exact distribution, None where it is not known or has no density; parts: how many parts of equal mass
    it has, one after the other; train: what the model learnt from (N, d), None where that is not known.
    """

    samples: NDArray
    real: NDArray
    mixture: GaussianMixture | None = None
    parts: int = 1
    train: NDArray | None = None
    seed: int = 0

    @cached_property
    def origin(self) -> tuple[NDArray, NDArray]:
        """For real points uniform on [0, 1) and independent: the place along the curves, and the distance from it."""
        assert self.mixture is not None
        g, x = generator(self.seed, "origin"), torch.from_numpy(self.samples).double()
        centre = self.mixture.sample_centres(x, g)
        end = self.mixture.weights.cumsum(0)[centre]
        along = end - self.mixture.weights[centre] * torch.rand(len(x), generator=g, dtype=torch.float64)
        square = ((x - self.mixture.centres[centre]).square() / self.mixture.variance).sum(1)
        return along.clamp(0, 1 - 1e-12).numpy(), stats.chi2.cdf(square.numpy(), x.shape[1])

    @cached_property
    def strays(self) -> NDArray:
        """Which samples are farther from their centre than all but a share STRAY of real points: (n,)."""
        return self.origin[1] > 1 - STRAY


@dataclass(frozen=True)
class Statistic:
    """A value, its median and 90 % band among perfect samples, its p-value, and what it says if that is too small."""

    value: SupportsFloat  # NumPy's and SciPy's numbers have many types
    floor: SupportsFloat
    low: SupportsFloat
    high: SupportsFloat
    p: SupportsFloat
    fault: str
    n: int


# ---------------------------------------------------------------- against the exact distribution


def masses(e: Evidence) -> Statistic:
    """The share of the part farthest from its due: binomial, two-sided, times the number of parts (Bonferroni)."""
    n, due = len(e.samples), 1 / e.parts
    counts = np.bincount((e.origin[0] * e.parts).astype(int), minlength=e.parts)
    part, different = int(np.abs(counts - n * due).argmax()), e.parts if e.parts > 2 else 1
    tail = min(stats.binom.cdf(counts[part], n, due), stats.binom.sf(counts[part] - 1, n, due))
    low, high = stats.binom.interval(1 - 0.1 / different, n, due)
    share = counts[part] / n
    fault = f"part {part} of {e.parts} holds {share:.1%} of the points where {due:.1%} are due"
    return Statistic(share, due, low / n, high / n, min(1, 2 * different * tail), fault, n)


def cells(e: Evidence) -> Statistic:
    """Pearson's chi-squared over cells of equal probability along and across the curves, per degree of freedom."""
    n = len(e.samples)
    along = max(1, min(ALONG, n // (ACROSS * CELL)))
    place = (e.origin[0] * along).astype(int) * ACROSS + np.minimum((e.origin[1] * ACROSS).astype(int), ACROSS - 1)
    due, free = n / (along * ACROSS), along * ACROSS - 1
    counts = np.bincount(place, minlength=along * ACROSS)
    value, null = float(((counts - due) ** 2 / due).sum()), stats.chi2(free)
    low, floor, high = null.ppf([0.05, 0.5, 0.95]) / free
    return Statistic(
        value / free, floor, low, high, null.sf(value), "some stretches hold too many or too few points", n
    )


def negative_log_density(e: Evidence) -> Statistic:
    """-E[log p] in nats, p the exact density, against the exact entropy: a z-test. Lower is *not* better."""
    assert e.mixture is not None
    n = len(e.samples)
    value = -float(e.mixture.log_density(torch.from_numpy(e.samples)).mean())
    logs = e.mixture.log_density(e.mixture.sample_evenly(ENTROPY_POINTS, seed=0))
    entropy, error = -float(logs.mean()), float(logs.std()) / n**0.5
    low, high = entropy - 1.645 * error, entropy + 1.645 * error
    p = 2 * stats.norm.sf(abs(value - entropy) / error)
    return Statistic(value, entropy, low, high, p, f"{value - entropy:+.3f} nats from real points", n)


def strays(e: Evidence) -> Statistic:
    """The share of points farther off than all but 1 in 10 000 real ones: binomial."""
    n, count = len(e.samples), int(e.strays.sum())
    low, median, high = stats.binom.ppf([0.05, 0.5, 0.95], n, STRAY)
    fault = f"{count:,} points astray where {n * STRAY:.2g} are due"
    return Statistic(count / n, median / n, low / n, high / n, stats.binom.sf(count - 1, n, STRAY), fault, n)


# ---------------------------------------------------------------- against real points


def neighbours(e: Evidence) -> Statistic:
    """How many of the 5 nearest neighbours of a point, in the union, are of its own kind (Schilling 1986; Henze 1988).

    Half if both are real; more where samples repeat each other, or one kind is denser. With g = +1 for samples and -1
    for real points, it is linear in sum w_ij g_i g_j over the edges of a graph. Of that, mean and variance over all
    permutations of g are known: E g_i g_j = -1 / (N - 1), and with four different points 3 / ((N - 1) (N - 3)).
    """
    points, n = np.concatenate([e.samples, e.real]), len(e.samples)
    graph = _neighbour_graph(points)
    kind = np.repeat([1.0, -1.0], n)
    edges, N = graph.sum() / 2, 2 * n  # each edge stands in the matrix twice
    squares, degrees = graph.power(2).sum() / 2, np.square(np.asarray(graph.sum(0))).sum()
    mean = -edges / (N - 1)
    second = squares - (degrees - 2 * squares) / (N - 1) + 3 * (edges**2 - degrees + squares) / ((N - 1) * (N - 3))
    value, deviation = kind @ (graph @ kind) / 2, np.sqrt(second - mean**2)
    p = stats.norm.sf((value - mean) / deviation)
    share, floor, spread = (1 + value / edges) / 2, (1 + mean / edges) / 2, 1.645 * deviation / edges / 2
    fault = f"{share:.1%} of a point's nearest neighbours are of its kind"
    return Statistic(share, floor, floor - spread, floor + spread, p, fault, n)


def _neighbour_graph(points: NDArray) -> csr_array:
    """How often each of two points is among the other's nearest neighbours, 0 to 2: sparse (N, N), symmetric."""
    N = len(points)
    nearest = np.asarray(
        KDTree(points).query(points, NEIGHBOURS + 1)[1]
    )  # (N, 6); a point itself is one, unless it has copies
    own = nearest == np.arange(N)[:, None]
    own[~own.any(1), -1] = True
    ends = np.repeat(np.arange(N), NEIGHBOURS), nearest[~own]
    one = coo_array((np.ones(len(ends[0])), ends), (N, N)).tocsr()
    return one + one.T


def classifier(e: Evidence) -> Statistic:
    """Accuracy of a classifier trained to separate samples from real points: 0.5 if it cannot, 1 if it always can.

    Gradient-boosted trees (Lopez-Paz and Oquab 2017, arXiv 1610.06545). The points come in 5 blocks; each block but the
    first is guessed after learning from the blocks before it. Whatever has been learnt, a real point is then guessed
    right with probability 1/2, so the hits are binomial; those of cross-validation are not (1.18 times as scattered).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # takes a second, and most commands never need it

    n, rng = len(e.samples), np.random.default_rng(integer_seed(e.seed, "classifier"))
    x, y = np.concatenate([e.samples, e.real]), np.repeat([0, 1], n)
    block = np.concatenate([rng.permutation(n) % BLOCKS, rng.permutation(n) % BLOCKS])
    hits = 0
    with threadpool_limits(1, "openmp"):  # on a busy machine two threads would wait for each other for seconds
        for i in range(1, BLOCKS):
            trees = HistGradientBoostingClassifier(early_stopping=True, random_state=0)  # pyright: ignore[reportArgumentType]
            trees.fit(x[block < i], y[block < i])
            hits += int((trees.predict(x[block == i]) == y[block == i]).sum())
    guessed = int((block > 0).sum())
    low, high = stats.binom.interval(0.9, guessed, 0.5)
    fault = f"a classifier is right on {hits / guessed:.1%} of points"
    p = stats.binom.sf(hits - 1, guessed, 0.5)
    return Statistic(hits / guessed, 0.5, low / guessed, high / guessed, p, fault, n)


def energy(e: Evidence) -> Statistic:
    """The energy distance sqrt(2 E|a - b| - E|a - a'| - E|b - b'|) (Szekely and Rizzo 2013), by permutations.

    The means include a point and itself. With g as in `neighbours`, its square is -sum g_i g_j |x_i - x_j| / n^2.
    """
    n = min(len(e.samples), PAIRED)
    points = torch.from_numpy(np.concatenate([e.samples[:n], e.real[:n]])).float()
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    rng = np.random.default_rng(integer_seed(e.seed, "permutations"))
    order = rng.random((PERMUTATIONS + 1, 2 * n), dtype=np.float32).argsort(1).T  # (2n, R + 1)
    order[:, 0] = np.arange(2 * n)  # the first is the one that happened
    kinds = 2 * torch.from_numpy(order < n).float() - 1  # (2n, R + 1)
    squares = -(kinds * (distances @ kinds)).double().sum(0).numpy() / n**2
    value, *floors = np.sqrt(np.maximum(squares, 0))
    low, floor, high = np.quantile(floors, [0.05, 0.5, 0.95])
    p = (1 + np.sum(floors >= value)) / (PERMUTATIONS + 1)
    return Statistic(value, floor, low, high, p, f"{value:.3g} where real points give {floor:.3g}", n)


def memorised(e: Evidence) -> Statistic:
    """Copies of training points: see `copies`."""
    assert e.train is not None
    tree = KDTree(e.train)
    return copies(*(nearest_ratio(tree.query(x, 2)[0]) for x in (e.samples, e.real)), of="training points")


def nearest_ratio(nearest: NDArray) -> NDArray:
    """Distance to the nearest over that to the second nearest, of distances (n, 2): 0 for a copy, near 1 by chance."""
    return nearest[:, 0] / np.maximum(nearest[:, 1], 1e-12)


def copies(made: NDArray, real: NDArray, of: str) -> Statistic:
    """The share of `made` among the smallest 5 % of all ratios (see nearest_ratio): hypergeometric, for n of each kind.

    Real ones that were held out are as often close to a single training example as perfect samples are.
    """
    n = len(made)
    chosen = max(10, round(MEMORISED * 2 * n))
    ties = np.random.default_rng(0).random(2 * n)
    smallest = np.lexsort([ties, np.concatenate([made, real])])[:chosen]
    count = int((smallest < n).sum())
    null = stats.hypergeom(2 * n, n, chosen)
    low, high = null.interval(0.9)
    fault = f"{count / chosen:.0%} of the points next to one of the {of} are samples"
    return Statistic(count / chosen, 0.5, low / chosen, high / chosen, null.sf(count - 1), fault, n)


# ---------------------------------------------------------------- all together


@dataclass(frozen=True)
class Test:
    """A function of Evidence; what it needs of it; and how large a share of the level it gets, compared with others.

    A share: samples that are 2 % off in the mass of a part are only just visible at n = 10 000 (4 standard errors), so
    that test gets four times as much as any other.
    """

    name: str
    compute: Callable[[Evidence], Statistic]
    applies: Callable[[Evidence], bool] = lambda e: True
    share: int = 1
    __test__ = False  # not one of pytest's


TESTS = [
    Test("classifier accuracy", classifier),
    Test("energy distance", energy),
    Test("neighbours", neighbours, lambda e: _continuous(e)),
    Test("memorised", memorised, lambda e: _continuous(e) and e.train is not None),
    Test("masses", masses, lambda e: _known(e) and e.parts > 1, share=4),
    Test("cells", cells, lambda e: _known(e)),
    Test("negative log-density", negative_log_density, lambda e: _known(e)),
    Test("strays", strays, lambda e: _known(e)),
]


def _continuous(e: Evidence) -> bool:
    """False where the exact draws are the nodes of a curve without noise, as samples are not."""
    return e.mixture is None or e.mixture.has_density


def _known(e: Evidence) -> bool:
    return e.mixture is not None and e.mixture.has_density


def run_tests(e: Evidence) -> list[MetricResult]:
    """Every test that applies. Each p-value is compared with its share of LEVEL, so that all together keep LEVEL.

    Raises:
        ValueError: too few samples or real points.
    """
    if min(len(e.samples), len(e.real)) < FEWEST:
        raise ValueError(f"an evaluation needs at least {FEWEST} samples and real points, got {len(e.samples)}")
    return [_result(test.name, test.compute(e), level) for test, level in tests_of(e)]


def tests_of(e: Evidence) -> list[tuple[Test, float]]:
    """The tests that apply, each with its share of LEVEL."""
    tests = [test for test in TESTS if test.applies(e)]
    total = sum(test.share for test in tests)
    return [(test, LEVEL * test.share / total) for test in tests]


def _result(name: str, s: Statistic, level: float) -> MetricResult:
    value, floor, low, high, p = (float(x) for x in (s.value, s.floor, s.low, s.high, s.p))
    words = f"indistinguishable at n = {s.n:,}" if p > level else s.fault
    return MetricResult(name, value, floor, low, high, s.n, p > level, f"{words} ({in_words(p)})", p=p)
