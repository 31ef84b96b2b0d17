"""The two-sample tests: their statistics against brute force, and the distribution of their p-values.

All seeds are fixed.
"""

import functools

import numpy as np
import pytest
from scipy import stats

from benchmarks import power
from metrics import two_sample
from runtime.randomness import generator

# ---------------------------------------------------------------- nearest neighbours


@pytest.fixture(scope="module")
def points():
    """60 points in the plane. Six of them are equal, of which at most 5 can be nearest to another."""
    points = np.random.default_rng(0).normal(size=(60, 2))
    points[:6] = points[0]
    return points


KINDS = np.repeat([1, -1], 30)


@pytest.fixture(scope="module")
def graph(points):
    return two_sample._neighbour_graph(points).toarray()


@pytest.fixture(scope="module")
def shares_of_permutations(graph):
    """The share of neighbours of the same kind, for 20,000 random permutations of the kinds."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(20_000):
        g = rng.permutation(KINDS)
        shares.append((1 + (g @ graph @ g) / graph.sum()) / 2)
    return shares


@pytest.fixture(scope="module")
def neighbours(points):
    """The test by its exact moments, which is used for many points."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_sample, "FEW_POINTS", 0)
        return two_sample.neighbours(points[:30], points[30:])


def test_with_few_points_the_p_value_is_the_share_of_permutations(points, shares_of_permutations):
    found = two_sample.neighbours(points[:30], points[30:])
    expected = np.mean(np.array(shares_of_permutations) >= float(found.value) - 1e-9)
    # 1,299 random permutations: five standard errors
    assert float(found.p) == pytest.approx(expected, abs=5 * (expected / 1299) ** 0.5 + 1e-3)


def test_the_graph_of_neighbours_is_symmetric_and_has_as_many_edges_as_it_should(graph):
    assert graph.sum() == 2 * 60 * two_sample.NEIGHBOURS
    assert (graph == graph.T).all()
    assert (graph.diagonal() == 0).all()


def test_the_share_of_neighbours_is_that_of_the_graph(graph, neighbours):
    same = (graph * (KINDS[:, None] == KINDS)).sum() / graph.sum()
    assert float(neighbours.value) == pytest.approx(same)


def test_the_floor_of_neighbours_is_the_mean_of_all_permutations(shares_of_permutations, neighbours):
    error = np.std(shares_of_permutations) / 20_000**0.5
    assert float(neighbours.floor) == pytest.approx(np.mean(shares_of_permutations), abs=5 * error)


def test_the_spread_of_neighbours_is_that_of_all_permutations(shares_of_permutations, neighbours):
    spread = (float(neighbours.high) - float(neighbours.floor)) / 1.645
    assert spread == pytest.approx(np.std(shares_of_permutations), rel=0.03)


@functools.cache
def moons(count, seed, i):
    return power.real(count, generator(seed, "p", i)).numpy()


def test_p_values_of_neighbours_of_real_points_are_uniform():
    p = [float(two_sample.neighbours(moons(1000, seed, 0), moons(1000, seed, 1)).p) for seed in range(200)]
    assert stats.kstest(p, "uniform").pvalue > 1e-4


# ---------------------------------------------------------------- copies of training points


def nearest_ratio(x, train):
    """The ratio of the distances to the nearest and the second nearest training point, for each row of x."""
    distances = np.linalg.norm(x[:, None] - train, axis=2)
    return two_sample.nearest_ratio(np.sort(distances)[:, :2])


@pytest.fixture(scope="module")
def p_of_copies():
    """Training points and generated points in 30 dimensions, and the p-value of a set of points."""
    rng = np.random.default_rng(0)
    train, made, real = (rng.normal(size=(n, 30)) for n in (2000, 500, 500))
    of_real = nearest_ratio(real, train)
    return train, made, lambda x: float(two_sample.copies(nearest_ratio(x, train), of_real).p)


def test_new_points_are_no_copies(p_of_copies):
    _, made, p = p_of_copies
    assert p(made) > 1e-3


def test_points_nearer_to_all_training_points_are_no_copies(p_of_copies):
    # They are nearer to no training point in particular.
    _, made, p = p_of_copies
    assert p(0.7 * made) > 1e-3


def test_copies_of_a_tenth_are_caught(p_of_copies):
    train, made, p = p_of_copies
    assert p(np.concatenate([made[:450], train[:50] + 0.1 * made[:50]])) < 1e-9


@pytest.mark.slow  # 400 matrices of 200 x 1,000 distances
def test_p_values_of_copies_of_real_points_are_small_no_more_often_than_they_should_be():
    # The statistic is a count, so that p-values may be a little too large.
    p = []
    for seed in range(200):
        x, real, train = (moons(1000, seed, i) for i in range(3))
        p.append(float(two_sample.copies(nearest_ratio(x[:200], train), nearest_ratio(real[:200], train)).p))
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 4 * (0.05 * 0.95 / 200) ** 0.5


# ---------------------------------------------------------------- energy distance


@pytest.fixture(scope="module")
def shifted_numbers():
    """Two sets of 300 numbers (300, 1), the second shifted by half a standard deviation."""
    return np.random.default_rng(0).normal(size=(2, 300, 1)) + [[[0]], [[0.5]]]


def test_the_energy_distance_is_that_of_scipy(shifted_numbers):
    a, b = shifted_numbers
    found = two_sample.energy(a, b, 0)
    assert float(found.value) == pytest.approx(stats.energy_distance(a[:, 0], b[:, 0]), rel=1e-4)


def test_the_energy_distance_of_a_shift_exceeds_that_of_every_permutation(shifted_numbers):
    a, b = shifted_numbers
    assert float(two_sample.energy(a, b, 0).p) == 1 / (two_sample.PERMUTATIONS + 1)


def test_the_energy_distance_of_equal_sets_is_0_and_their_p_value_1(shifted_numbers):
    a, _ = shifted_numbers
    same = two_sample.energy(a, a[::-1], 0)
    assert float(same.value) == pytest.approx(0, abs=1e-3)
    assert float(same.p) == 1


@pytest.mark.parametrize("order", [np.random.default_rng(0).permutation, np.sort], ids=["drawn", "sorted"])
def test_p_values_of_the_energy_distance_of_real_points_are_uniform(order):
    x = np.random.default_rng(1).normal(size=(100, 2, 60))
    p = [float(two_sample.energy(order(a)[:, None], order(b)[:, None], i).p) for i, (a, b) in enumerate(x)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


@pytest.mark.slow
def test_of_many_sorted_samples_the_energy_test_uses_a_random_part():
    # With a probability of 1 % more than 2 of 10 such p-values are below 0.05. For the smallest samples all would be.
    small = 0
    for seed in range(10):
        samples, real = np.random.default_rng(seed).normal(size=(2, 2 * two_sample.ENERGY_POINTS, 1))
        small += float(two_sample.energy(np.sort(samples, 0), real, seed).p) < 0.05
    assert small <= 2


def test_the_energy_distance_alone_is_that_of_the_test():
    a, b = np.random.default_rng(0).normal(size=(2, 300, 2)) + np.array([[[0.0]], [[0.3]]])
    assert two_sample.energy_distance(a, b) == pytest.approx(float(two_sample.energy(a, b, 0).value), rel=1e-6)


def test_the_energy_distance_alone_of_equal_sets_is_0():
    a, _ = np.random.default_rng(0).normal(size=(2, 300, 2))
    assert two_sample.energy_distance(a, a) == pytest.approx(0, abs=1e-3)


# ---------------------------------------------------------------- classifier


def test_a_classifier_of_two_equal_distributions_is_right_by_half():
    a, b = np.random.default_rng(0).normal(size=(2, 2000, 2))
    found = two_sample.classifier(a, b, 0)
    assert abs(float(found.value) - 0.5) < 0.04
    assert float(found.p) > 1e-3


def test_a_classifier_of_two_distant_distributions_is_always_right():
    a, b = np.random.default_rng(0).normal(size=(2, 2000, 2))
    assert float(two_sample.classifier(a, b + 10, 0).value) == 1


@pytest.mark.parametrize(("a", "b"), [((0, 2), (3, 2)), ((3, 2), (0, 2)), ((3, 2), (3, 3))])
def test_an_energy_distance_needs_points_of_equal_dimensions(a, b):
    with pytest.raises(ValueError, match="an energy distance needs points of equal dimensions, not"):
        two_sample.energy_distance(np.ones(a), np.ones(b))
