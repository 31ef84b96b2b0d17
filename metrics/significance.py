"""Tests of samples of points against real points, each with a p-value.

The null hypothesis of every test is that the samples come from the data's exact distribution. There
are two kinds of tests.

1. Where the exact distribution is a mixture of Gaussians with a density, a real point is a centre
   plus normal noise. For each sample a centre is drawn from the posterior distribution of the
   centre given the point. Under the null hypothesis, and only then, the drawn centres are as
   frequent as their weights, and the remaining noise is normal and independent of the centre. So
   cells along the curve have exactly equal probabilities, and the distance from the curve has a
   known distribution.

2. Where only real points are known, samples and real points are exchangeable under the null
   hypothesis (two_sample.py).

The levels of all tests that apply add up to LEVEL (1 %). So at most 1 % of perfect sets of samples
fail any test (Bonferroni's inequality). To add a test, write a function of Evidence and give it a
row in TESTS.

What a test sees was measured on two moons of noise 0.05 with n = 10,000. Under "Seen" stand the
faults that failed the test on every set of samples (four sets or two), and under "Not seen" those
that passed every time.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from metrics import two_sample
from metrics.by_label import MIN_PAIRS, LabelEnergy, energies_by_label
from metrics.table import LEVEL, Bounds, MetricResult, Statistic, to_result
from points.mixture import GaussianMixture
from runtime.progress import progress_bar
from runtime.randomness import generator

MIN_SAMPLES = 20
MIN_CLASSIFIED = 100  # samples: with fewer, the classifier has too little to learn from
MAX_SAMPLES = 10_000  # samples, and as many real points, that a test uses
MAX_SEARCHES_WITHOUT_TREE = 2000  # samples that `memorised` uses in many dimensions, to take seconds
MAX_CELLS = 80  # along the curves
POINTS_PER_CELL = 25  # the fewest that are expected in a cell: then chi-squared keeps its level
STRAY_SHARE = 1e-4  # of real points, those farthest from the curves, count as strays
ENTROPY_POINTS = 1 << 14  # evenly spread: the error is less than a tenth of the standard error
HALF_BAND = 1.645  # standard deviations from the median to the end of a normal 90 % band
BAND = [0.05, 0.5, 0.95]  # quantiles: the ends of the 90 % band, and the median


@dataclass(frozen=True)
class Evidence:
    """What a test may use.

    samples: the points to test, of shape (n, d) with n at most 10,000.
    real: as many real points, independent of all others.
    mixture: the exact distribution, or None where it is not known.
    parts: the number of parts of equal mass in the mixture, which come one after the other.
    train: the points (N, d) that the model learnt from, or None where they are not known.
    seed: of the tests' random numbers.
    labels, real_labels: the labels (n,) of the samples and of the real points. None: there are none.
    """

    samples: NDArray
    real: NDArray
    mixture: GaussianMixture | None = None
    parts: int = 1
    train: NDArray | None = None
    seed: int = 0
    labels: NDArray | None = None
    real_labels: NDArray | None = None

    @cached_property
    def by_label(self) -> tuple[Statistic, list[LabelEnergy]]:
        """The energy distance within each label, see by_label.energies_by_label."""
        assert self.labels is not None
        assert self.real_labels is not None
        return energies_by_label(self.samples, self.labels, self.real, self.real_labels, self.seed)

    @cached_property
    def origin(self) -> tuple[NDArray, NDArray]:
        """The place of each sample along the curves and its distance from them, both (n,).

        Under the null hypothesis both are uniform on [0, 1) and independent of each other. The
        place is that of the drawn centre in the order of the centres, weighted by their masses. The
        distance is that from the drawn centre, transformed by its distribution function.
        """
        assert self.mixture is not None
        g = generator(self.seed, "origin")
        x = torch.from_numpy(self.samples).double()
        centre = self.mixture.sample_centres(x, g)

        # Each centre takes up a stretch of [0, 1] as long as its weight. The place in it is random.
        end = self.mixture.weights.cumsum(0)[centre]
        uniform = torch.rand(len(x), generator=g, dtype=torch.float64)
        along = end - self.mixture.weights[centre] * uniform

        offset = x - self.mixture.centres[centre]
        squared_distance = (offset.square() / self.mixture.variance).sum(1)
        off = stats.chi2.cdf(squared_distance.numpy(), df=x.shape[1])
        return along.clamp(0, 1 - 1e-12).numpy(), off


# ---------------------------------------------------------------- against the exact distribution


def masses(e: Evidence) -> Statistic:
    """Test the share of samples in each part of the data, such as each of two moons.

    The statistic is the share of the part whose count is farthest from the expected one. Under the
    null hypothesis a count is binomial. The p-value is two-sided, and multiplied by the number of
    parts (Bonferroni), except for two parts, whose counts determine each other. So the level is at
    most what it says.

    Seen: masses of 48 % and 52 %.
    Not seen: anything within a part.
    """
    n = len(e.samples)
    expected = 1 / e.parts
    along, _ = e.origin
    counts = np.bincount((along * e.parts).astype(int), minlength=e.parts)
    part = int(np.abs(counts - n * expected).argmax())
    count = counts[part]

    comparisons = e.parts if e.parts > 2 else 1
    lower_tail = stats.binom.cdf(count, n, expected)
    upper_tail = stats.binom.sf(count - 1, n, expected)
    p = min(1, 2 * comparisons * min(lower_tail, upper_tail))
    low, high = stats.binom.interval(1 - 0.1 / comparisons, n, expected)
    share = count / n
    fault = f"part {part + 1} of {e.parts} holds {share:.1%} of the points where {expected:.1%} are expected"

    def bounds(level: float) -> Bounds:
        tail = level / (2 * comparisons)
        lowest = stats.binom.ppf(tail, n, expected)
        highest = stats.binom.isf(tail, n, expected)
        return float(lowest) / n, float(highest) / n

    return Statistic(share, expected, low / n, high / n, p, fault, n, bounds)


def cells(e: Evidence) -> Statistic:
    """Test the counts in cells of equal probability along the curves, by Pearson's chi-squared.

    The value is chi-squared divided by its degrees of freedom, about 1 under the null hypothesis.
    Its null distribution is that of chi-squared with (cells - 1) degrees of freedom. With at least
    25 points expected in each cell it keeps its level: 0.1 % of 100,000 multinomial draws are
    beyond the 0.1 % point.

    Seen: a gap of 5 % of a moon; masses of 45 % and 55 %.
    Not seen: the distance from the curve.

    Additional cells across the curve, 5 times as many, only hide gaps: a gap of 5 % of a moon then
    failed in 91 % of 200 sets instead of all.
    """
    n = len(e.samples)
    num_cells = max(2, min(MAX_CELLS, n // POINTS_PER_CELL))
    expected = n / num_cells
    freedom = num_cells - 1
    along, _ = e.origin
    counts = np.bincount((along * num_cells).astype(int), minlength=num_cells)
    chi_squared = float(((counts - expected) ** 2 / expected).sum())

    null = stats.chi2(freedom)
    low, floor, high = null.ppf(BAND) / freedom
    p = null.sf(chi_squared)
    fault = "some stretches hold too many or too few points"

    def bounds(level: float) -> Bounds:
        return None, float(null.isf(level)) / freedom

    return Statistic(chi_squared / freedom, floor, low, high, p, fault, n, bounds)


def negative_log_density(e: Evidence) -> Statistic:
    """Test -E[log p] of the samples in nats, where p is the exact density, against the exact
    entropy.

    It is a two-sided z-test. The null distribution is normal with the entropy as its mean; its
    standard deviation is that of log p, divided by sqrt(n). A lower value is *not* better.

    Seen: noise 10 % too wide (too high a value); noise 30 % too narrow (too low a value); 0.3 % of
        strays.
    Not seen: masses of 45 % and 55 %; a gap of half a moon.
    """
    assert e.mixture is not None
    n = len(e.samples)
    log_density = e.mixture.log_density(torch.from_numpy(e.samples))
    value = -float(log_density.mean())
    entropy, deviation = _entropy(e.mixture)
    error = deviation / n**0.5
    p = 2 * stats.norm.sf(abs(value - entropy) / error)
    low = entropy - HALF_BAND * error
    high = entropy + HALF_BAND * error
    fault = f"{value - entropy:+.3f} nats from real points"

    def bounds(level: float) -> Bounds:
        reach = float(stats.norm.isf(level / 2)) * error
        return entropy - reach, entropy + reach

    return Statistic(value, entropy, low, high, p, fault, n, bounds)


@lru_cache(maxsize=8)
def _entropy(mixture: GaussianMixture) -> tuple[float, float]:
    """Return the entropy -E[log p] of a mixture, and the standard deviation of log p."""
    log_density = mixture.log_density(mixture.sample_evenly(ENTROPY_POINTS, seed=0))
    return -float(log_density.mean()), float(log_density.std())


def strays(e: Evidence) -> Statistic:
    """Test the share of strays: samples farther from the curves than all but 1 in 10,000 real
    points.

    Under the null hypothesis the number of strays is binomial. The test is one-sided and exact.

    Seen: 0.3 % of points anywhere around the moons; noise 30 % too wide.
    Not seen: noise that is too narrow; anything along the curves.
    """
    n = len(e.samples)
    _, off = e.origin
    count = int((off > 1 - STRAY_SHARE).sum())
    low, median, high = stats.binom.ppf(BAND, n, STRAY_SHARE)
    p = stats.binom.sf(count - 1, n, STRAY_SHARE)
    fault = f"{count:,} strays where {n * STRAY_SHARE:.2g} are expected"

    def bounds(level: float) -> Bounds:
        return None, float(stats.binom.isf(level, n, STRAY_SHARE)) / n

    return Statistic(count / n, median / n, low / n, high / n, p, fault, n, bounds)


def memorised(e: Evidence) -> Statistic:
    """Test whether samples are copies of training points (see `two_sample.copies`)."""
    assert e.train is not None
    n = len(e.samples)
    if e.train.shape[1] > two_sample.MAX_TREE_DIM:
        n = min(n, MAX_SEARCHES_WITHOUT_TREE)
    nearest_to_samples, _ = two_sample.nearest_points(e.train, e.samples[:n], 2)
    nearest_to_real, _ = two_sample.nearest_points(e.train, e.real[:n], 2)
    made = two_sample.nearest_ratio(nearest_to_samples)
    real = two_sample.nearest_ratio(nearest_to_real)
    return two_sample.copies(made, real)


# ---------------------------------------------------------------- all tests


def _always(e: Evidence) -> bool:
    return True


def _enough_to_classify(e: Evidence) -> bool:
    return len(e.samples) >= MIN_CLASSIFIED


def _labelled(e: Evidence) -> bool:
    """True where some label has two samples and two real points."""
    if e.labels is None or e.real_labels is None:
        return False
    samples = Counter(e.labels.tolist())
    real = Counter(e.real_labels.tolist())
    return any(min(samples[label], real[label]) >= MIN_PAIRS for label in real)


def _classified(e: Evidence) -> Statistic:
    return two_sample.classifier(e.samples, e.real, e.seed, e.labels, e.real_labels)


def _continuous(e: Evidence) -> bool:
    """False where real points are the nodes of a curve without noise. Samples never are nodes."""
    return e.mixture is None or e.mixture.has_density


def _known(e: Evidence) -> bool:
    """True where the exact distribution is known and has a density."""
    return e.mixture is not None and e.mixture.has_density


@dataclass(frozen=True)
class Test:
    """A row of TESTS.

    name: its name in the table.
    compute: the test.
    applies: whether the evidence contains what the test needs.
    share: its share of the level, compared with the other tests. For `masses` it is 4: at n =
        10,000 a part whose mass is 2 % off is only just visible, at 4 standard errors.
    needs_truth: whether it needs the exact distribution, or the points that the model learnt from.
    """

    name: str
    compute: Callable[[Evidence], Statistic]
    applies: Callable[[Evidence], bool] = _always
    share: int = 1
    needs_truth: bool = False
    __test__ = False  # not a test class of pytest


TESTS = [
    Test("classifier accuracy", _classified, _enough_to_classify),
    Test("energy distance", lambda e: two_sample.energy(e.samples, e.real, e.seed)),
    Test("energy by label", lambda e: e.by_label[0], _labelled),
    Test("neighbours", lambda e: two_sample.neighbours(e.samples, e.real), _continuous),
    Test("memorised", memorised, lambda e: _continuous(e) and e.train is not None, needs_truth=True),
    Test("masses", masses, lambda e: _known(e) and e.parts > 1, share=4, needs_truth=True),
    Test("cells", cells, _known, needs_truth=True),
    Test("negative log-density", negative_log_density, _known, needs_truth=True),
    Test("strays", strays, _known, needs_truth=True),
]


def run_tests(e: Evidence) -> list[MetricResult]:
    """Run every test that applies, each at its share of LEVEL, so that together they keep LEVEL.

    Raises:
        ValueError: there are too few samples or real points.
    """
    check_enough(len(e.samples), len(e.real))
    tests = levels(e)
    return [_result(test, e, level) for test, level in progress_bar(tests, "tests", len(tests))]


def _result(test: Test, e: Evidence, level: float) -> MetricResult:
    return to_result(test.name, test.compute(e), level)


def check_enough(samples: int, real: int) -> None:
    """Check that the numbers of samples and of real points suffice for an evaluation.

    Raises:
        ValueError: there are fewer than MIN_SAMPLES of either.
    """
    if min(samples, real) < MIN_SAMPLES:
        needed = f"at least {MIN_SAMPLES} samples and as many held-out points"
        raise ValueError(f"an evaluation needs {needed}; there are {samples} samples and {real} such points")


def levels(e: Evidence) -> list[tuple[Test, float]]:
    """Return the tests that apply, each with its share of LEVEL."""
    tests = [test for test in TESTS if test.applies(e)]
    total = sum(test.share for test in tests)
    return [(test, LEVEL * test.share / total) for test in tests]
