"""Tests of samples against real points, each with a p-value that does not depend on a floor's luck.

Two kinds. Where the exact distribution is a mixture of Gaussians, a real point is a centre and standard normal noise.
Draw for each sample the centre that it came from, out of its posterior: for real points, and for them only, the centres
then are as frequent as their weights, and the noise is standard normal and independent of them. Cells along the curve
therefore have exactly equal probability, and points far off it have an exactly known one.

Where only real points are known, samples and real points could be exchanged if both were real, so p-values come from
permuting them. To add a test, write a function of Evidence and give it a row in TESTS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import KDTree

from metrics import two_sample
from metrics.table import LEVEL, MetricResult, Statistic, tested
from points.mixture import GaussianMixture
from runtime.randomness import generator

FEWEST = 100  # samples
MOST = 10_000  # samples, and real points, that a test looks at
ALONG, CELL = 80, 25  # cells along the curves, and the fewest points due in one
STRAY = 1e-4  # the share of real points that counts as strays
ENTROPY_POINTS = 1 << 14  # evenly spread: the entropy is right to less than a tenth of its standard error


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
    """Pearson's chi-squared over cells of equal probability along the curves, per degree of freedom.

    Cells across the curves as well (5 times as many) only hide a gap of 5 % of a moon: 91 % of 200 were
    caught instead of all.
    """
    n = len(e.samples)
    along = max(2, min(ALONG, n // CELL))
    counts, due, free = np.bincount((e.origin[0] * along).astype(int), minlength=along), n / along, along - 1
    value, null = float(((counts - due) ** 2 / due).sum()), stats.chi2(free)
    low, floor, high = null.ppf([0.05, 0.5, 0.95]) / free
    fault = "some stretches hold too many or too few points"
    return Statistic(value / free, floor, low, high, null.sf(value), fault, n)


def negative_log_density(e: Evidence) -> Statistic:
    """-E[log p] in nats, p the exact density, against the exact entropy: a z-test. Lower is *not* better."""
    assert e.mixture is not None
    n = len(e.samples)
    value = -float(e.mixture.log_density(torch.from_numpy(e.samples)).mean())
    entropy, deviation = _entropy(e.mixture)
    error = deviation / n**0.5
    low, high = entropy - 1.645 * error, entropy + 1.645 * error
    p = 2 * stats.norm.sf(abs(value - entropy) / error)
    return Statistic(value, entropy, low, high, p, f"{value - entropy:+.3f} nats from real points", n)


@lru_cache(maxsize=8)
def _entropy(mixture: GaussianMixture) -> tuple[float, float]:
    """-E[log p] and the standard deviation of log p."""
    logs = mixture.log_density(mixture.sample_evenly(ENTROPY_POINTS, seed=0))
    return -float(logs.mean()), float(logs.std())


def strays(e: Evidence) -> Statistic:
    """The share of points farther off than all but 1 in 10 000 real ones: binomial."""
    n, count = len(e.samples), int((e.origin[1] > 1 - STRAY).sum())
    low, median, high = stats.binom.ppf([0.05, 0.5, 0.95], n, STRAY)
    fault = f"{count:,} points astray where {n * STRAY:.2g} are due"
    return Statistic(count / n, median / n, low / n, high / n, stats.binom.sf(count - 1, n, STRAY), fault, n)


def memorised(e: Evidence) -> Statistic:
    """Copies of training points: see two_sample.copies."""
    assert e.train is not None
    tree = KDTree(e.train)
    made, real = (two_sample.nearest_ratio(np.asarray(tree.query(x, 2)[0])) for x in (e.samples, e.real))
    return two_sample.copies(made, real)


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
    Test("classifier accuracy", lambda e: two_sample.classifier(e.samples, e.real, e.seed)),
    Test("energy distance", lambda e: two_sample.energy(e.samples, e.real, e.seed)),
    Test("neighbours", lambda e: two_sample.neighbours(e.samples, e.real), lambda e: _continuous(e)),
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
    check_enough(len(e.samples), len(e.real))
    return [_tested(test, e, level) for test, level in levels(e)]


def _tested(test: Test, e: Evidence, level: float) -> MetricResult:
    return tested(test.name, test.compute(e), level)


def check_enough(samples: int, real: int) -> None:
    """Raises ValueError where so many samples and real points are too few for an evaluation."""
    if min(samples, real) < FEWEST:
        raise ValueError(
            f"an evaluation needs at least {FEWEST} samples and real points; there are {samples} and {real}"
        )


def levels(e: Evidence) -> list[tuple[Test, float]]:
    """The tests that apply, each with its share of LEVEL."""
    tests = [test for test in TESTS if test.applies(e)]
    total = sum(test.share for test in tests)
    return [(test, LEVEL * test.share / total) for test in tests]
