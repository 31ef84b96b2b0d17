"""The divergence in nats of metrics/binned_kl.py, against closed forms and against chance."""

import math

import numpy as np
import pytest
import torch

from metrics.binned_kl import REGIONS, fit_partition, highest_mean, mean_p
from runtime.randomness import generator

N = 1000


def draw(count, seed, scale=1.0):
    return scale * torch.randn(count, 2, generator=generator(seed, "binned"), dtype=torch.float64)


def log_density(x):
    return -0.5 * x.square().sum(1).numpy()


@pytest.fixture(scope="module")
def partition():
    points = draw(2**16, 0)
    return fit_partition(points, log_density(points))


@pytest.fixture(scope="module")
def floor(partition):
    return partition.floor(N)


def divergence(partition, floor, x):
    return partition.divergence(partition.counts(x, log_density(x)), floor)


def test_every_place_and_every_region_has_its_share(partition):
    by_place = partition.shares.reshape(32, len(REGIONS) + 1)
    assert np.allclose(by_place.sum(1), 1 / 32, rtol=2e-3)
    assert np.allclose(by_place.sum(0), [0.5, 0.4, 0.09, 0.01], atol=5e-4)


def test_the_regions_are_those_of_a_normal_distribution(partition):
    radius = np.sqrt(-2 * partition.edges)  # of the circles that hold the shares of REGIONS
    assert np.allclose(1 - np.exp(-(radius**2) / 2), REGIONS, atol=0.006)


@pytest.mark.parametrize("scale", [1.1, 0.9])
def test_it_is_a_lower_bound_of_the_divergence_in_closed_form(partition, scale):
    """KL(N(0, s^2) || N(0, 1)) in two dimensions is s^2 - 1 - log s^2. The cells keep most of it."""
    exact = scale**2 - 1 - 2 * math.log(scale)
    count = 100_000
    found = divergence(partition, partition.floor(count), draw(count, 1, scale))
    assert 0.7 * exact < found.nats < exact


def test_real_points_have_the_floor(partition, floor):
    """Where many cells are all but empty, as here, half a point in each of them puts real points a little below 0."""
    nats = [divergence(partition, floor, draw(N, seed)).nats for seed in range(1, 201)]
    deviation = math.sqrt(floor.variance)
    assert -0.35 * deviation < np.mean(nats) < 0.2 * deviation
    assert np.std(nats) == pytest.approx(deviation, rel=0.15)
    failed = sum(mean_p(value, [floor]) <= 0.05 for value in nats)
    assert failed <= 19  # of 200; a binomial number of mean 10 is at most that with 99 %


def test_the_error_is_the_standard_deviation_of_faulty_samples_too(partition, floor):
    found = [divergence(partition, floor, draw(N, seed, 1.4)) for seed in range(100)]
    deviation = np.std([each.nats for each in found])
    assert np.mean([each.error for each in found]) == pytest.approx(deviation, rel=0.25)


def test_the_p_value_of_a_mean_belongs_to_its_bound(floor):
    floors = [floor] * 6
    assert mean_p(6 * highest_mean(0.005, floors), floors) == pytest.approx(0.005)


def test_a_collapsed_set_is_far_from_the_truth(partition, floor):
    found = divergence(partition, floor, torch.zeros(N, 2))
    assert found.nats == pytest.approx(-math.log(partition.shares.max()), abs=2.0)
    assert found.nats > 3
