"""Metrics against known values, faults that they find, and real data that they pass."""

import numpy as np
import pytest
import torch
from conftest import gaussian

from dataset import make_dataset
from diffusion import exact_denoiser
from metrics.distances import evaluate_points, exact_draws, rows_of, sliced_wasserstein, wasserstein2
from metrics.likelihood import kl_from_exact, log_likelihood, mean_kl
from metrics.significance import Evidence, negative_log_density
from metrics.table import format_table
from runtime.randomness import generator
from samplers import last, sample
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from schedule import LinearNoiseScheduler

MIXTURE = make_dataset("moons", 1, 0, noise=0.05).mixture
N = 10_000


def draw(n, i):
    return exact_draws(MIXTURE, seed=123)(n, i)


def failed(rows):
    return [row.name for row in rows if not row.passed]


@pytest.mark.parametrize("distance", [wasserstein2, sliced_wasserstein])
def test_the_distance_of_shifted_numbers_is_the_shift(distance):
    a = np.random.default_rng(0).normal(size=(500, 1))
    assert distance(a, a + 0.3) == pytest.approx(0.3)


def test_the_sliced_distance_of_shifted_points_is_the_mean_over_directions():
    # The mean of |cos| over directions in the plane is 2 / pi.
    a = np.random.default_rng(0).normal(size=(500, 2))
    assert sliced_wasserstein(a, a + [0.3, 0]) == pytest.approx(0.3 * 2 / np.pi, rel=0.1)


def test_the_wasserstein_2_distance_of_shifted_points_is_the_length_of_the_shift():
    a = np.random.default_rng(0).normal(size=(500, 2))
    assert wasserstein2(a, a + [0.3, 0.4]) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def density_of_normal_points(standard_normal):
    """The negative log-density of 40,000 draws of a standard normal distribution, with its floor."""
    x = np.random.default_rng(0).normal(size=(40_000, 2))
    return negative_log_density(Evidence(x, x, standard_normal))


ENTROPY = 1 + np.log(2 * np.pi)  # of the standard normal distribution in two dimensions


def test_the_negative_log_density_of_gaussian_points_is_the_entropy(density_of_normal_points):
    assert float(density_of_normal_points.value) == pytest.approx(ENTROPY, abs=0.025)


def test_the_floor_of_the_negative_log_density_is_the_entropy(density_of_normal_points):
    assert float(density_of_normal_points.floor) == pytest.approx(ENTROPY, abs=1e-3)


def test_the_limit_of_the_negative_log_density_is_1_645_standard_errors_above_the_floor(density_of_normal_points):
    # -log p is a constant plus half a chi-squared variable with two degrees of freedom. Its standard deviation is 1.
    found = density_of_normal_points
    assert float(found.high) - float(found.floor) == pytest.approx(1.645 / 200, rel=0.01)


def test_the_table_of_perfect_samples_says_how_often_they_fail():
    real = format_table(evaluate_points(draw(2000, 5), draw, MIXTURE, parts=2))
    assert "indistinguishable by every test" in real
    assert "perfect samples fail any of the tests with a probability of at most 1%" in real
    assert "only large faults" not in real


def test_the_table_of_few_samples_says_that_it_says_little():
    few = format_table(evaluate_points(draw(300, 5), draw, MIXTURE, parts=2))
    assert "indistinguishable by every test (n = 300: only large faults would show)" in few


def test_the_table_says_how_many_points_the_test_for_copies_looks_at():
    rows = evaluate_points(draw(300, 5), draw, MIXTURE, parts=2, train=draw(400, 9))
    (memorised,) = [row for row in rows if row.name == "memorised"]
    assert memorised.verdict.startswith("indistinguishable at n = 300, by the closest 30 (p = ")


def test_parts_are_counted_from_1():
    points = draw(600, 5)
    rows = evaluate_points(points[points[:, 0] > 0], draw, MIXTURE, parts=2)
    (masses,) = [row for row in rows if row.name == "masses"]
    assert masses.verdict.startswith("part 1 of 2 holds ")
    assert "% of the points where 50.0% are expected" in masses.verdict


def test_the_table_of_bad_samples_says_what_failed():
    wide = format_table(evaluate_points(1.1 * draw(2000, 5), draw, MIXTURE, parts=2))
    assert "distinguishable by " in wide
    assert "p < 1e-12" in wide


def verdict_on_the_exact_denoiser(sampler, n):
    """The rows of an evaluation of n samples that this sampler draws with the exact denoiser of moons."""
    scheduler, g = LinearNoiseScheduler(1000), generator(5, "test")
    shift, scale = torch.tensor([0.5, 0.25]), torch.tensor([0.87, 0.5])
    denoise = exact_denoiser(MIXTURE.scaled(shift, scale), scheduler)
    x = last(sample(denoise, scheduler, torch.randn(n, 2, generator=g), SamplingOptions(sampler=sampler), generator=g))
    return evaluate_points((x * scale + shift).numpy(), draw, MIXTURE, parts=2)


def test_samples_of_the_exact_denoiser_are_indistinguishable_by_every_metric():
    assert failed(verdict_on_the_exact_denoiser("dpmpp_2m", N)) == []


@pytest.fixture(scope="module")
def verdict_on_ddpm():
    """The rows, by name, of an evaluation of DDPM with the exact denoiser.

    DDPM's steps use the posterior variance of a known x_0 (eq. 7). A Gaussian as thin as the moons keeps 0.88 to 0.93
    of its variance over 1000 such steps. The density shows that (-0.03 to -0.07 nats), and the cells may.
    """
    return {row.name: row for row in verdict_on_the_exact_denoiser("ddpm", 2000)}


@pytest.mark.slow  # 1000 steps and all tests
def test_ddpm_with_the_exact_denoiser_has_a_slightly_too_high_density(verdict_on_ddpm):
    sharp = verdict_on_ddpm["negative log-density"]
    assert -0.15 < sharp.value - sharp.floor < 0


@pytest.mark.slow  # 1000 steps and all tests
def test_ddpm_with_the_exact_denoiser_passes_all_tests_but_density_and_cells(verdict_on_ddpm):
    assert set(failed(verdict_on_ddpm.values())) <= {"cells", "negative log-density"}


def test_the_likelihood_of_the_exact_denoiser_is_the_exact_density():
    scheduler = LinearNoiseScheduler(1000)
    x = MIXTURE.noised(*scheduler.alpha_sigma_at(0)).sample(100, generator(0, "test"))
    denoise = exact_denoiser(MIXTURE, scheduler)
    ours = log_likelihood(denoise, scheduler, x, spaced_timesteps(scheduler, 400))
    exact = MIXTURE.noised(*scheduler.alpha_sigma_at(0)).log_density(x)
    torch.testing.assert_close(ours, exact, atol=0.02, rtol=0)


@pytest.fixture(scope="module")
def kl_of_a_shift(standard_normal):
    """KL and its standard error for data N(0.3, 1) x N(0, 1) and a model that is exact for N(0, 1) x N(0, 1)."""
    scheduler = LinearNoiseScheduler(1000)
    shifted = gaussian([0.3, 0.0], 1.0)
    x = shifted.noised(*scheduler.alpha_sigma_at(0)).sample(4000, generator(0, "test"))
    model = exact_denoiser(standard_normal, scheduler)
    return kl_from_exact(model, scheduler, shifted, x, spaced_timesteps(scheduler, 400))


def test_the_kl_of_a_shifted_gaussian_is_half_the_squared_shift(kl_of_a_shift):
    kl, error = kl_of_a_shift
    assert kl == pytest.approx(0.045, abs=5 * error)


def test_the_control_variate_more_than_halves_the_error_of_a_kl(kl_of_a_shift):
    # log p/q has the standard deviation 0.3.
    _, error = kl_of_a_shift
    assert error < 0.3 / 4000**0.5 / 2


NORMAL_NUMBERS = torch.randn(40_000, generator=generator(0, "test"), dtype=torch.float64)


def test_the_control_variate_removes_most_of_the_error_of_a_small_kl():
    log_ratio = -0.1 * NORMAL_NUMBERS + 0.1**2 / 2  # log p / q of N(0, 1) and N(0.1, 1)
    value, error = mean_kl(log_ratio)
    assert value == pytest.approx(0.005, abs=5 * error)
    assert error < 0.2 * float(log_ratio.std()) / 200


def test_the_control_variate_is_left_out_where_it_would_mislead():
    # Half of q's mass lies where p has none, so log p / q = log 2. The control variate q / p - 1 would halve it.
    log_ratio = torch.full((1000,), 0.5).double().log().neg() + 1e-3 * NORMAL_NUMBERS[:1000]
    assert mean_kl(log_ratio)[0] == pytest.approx(np.log(2), abs=1e-3)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.full((500, 2), np.nan), "NaN"),
        (np.zeros((500, 3)), r"shape \(N, 2\)"),
        (np.zeros((15, 2)), "at least"),
    ],
)
def test_bad_samples_are_named(samples, words):
    with pytest.raises(ValueError, match=words):
        evaluate_points(samples, draw, MIXTURE)


# ---------------------------------------------------------------- held-out points instead of an exact distribution

POINTS = draw(3000, 7)


def test_two_draws_of_held_out_points_have_half_of_them_each_and_none_in_common():
    real = rows_of(POINTS, seed=0)
    a, b = real(5000, 1), real(5000, 2)
    assert len(a) == len(b) == 1500
    assert not {tuple(p) for p in a.tolist()} & {tuple(p) for p in b.tolist()}


def test_every_draw_of_an_odd_number_of_held_out_points_has_the_same_size():
    assert [len(rows_of(POINTS[:2999], seed=0)(5000, i)) for i in range(1, 3)] == [1499] * 2


def test_the_first_draw_of_held_out_points_has_all_of_them():
    assert len(np.unique(rows_of(POINTS, seed=0)(5000, 0), axis=0)) == 3000


def test_real_points_pass_against_held_out_points():
    assert failed(evaluate_points(draw(1500, 8), rows_of(POINTS, seed=0))) == []


def test_without_an_exact_distribution_there_is_no_log_density():
    rows = evaluate_points(draw(1500, 8), rows_of(POINTS, seed=0))
    assert "negative log-density" not in {row.name for row in rows}


def test_copies_of_training_points_fail_against_held_out_points():
    rows = evaluate_points(POINTS[np.arange(1500) % 300], rows_of(POINTS, seed=0), train=POINTS[:300])
    assert {"memorised", "neighbours"} <= set(failed(rows))
