"""The exact flow map, and how fast samplers approach it."""

import math

import pytest
import torch
from conftest import gaussian

from diffusion import exact_denoiser
from metrics.flow_map import exact_flow, flow_map, slope
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import SAMPLERS, sample
from samplers.options import SamplingOptions
from schedule import CLEAN, CosineNoiseScheduler, LinearNoiseScheduler, NoiseScheduler

SMOOTH = GaussianMixture(torch.tensor([[-0.9, 0.3], [0.7, 0.8], [0.4, -1.0], [-0.3, -0.6]]), 0.4**2)
X_T = torch.randn(64, 2, generator=generator(0, "x_T"), dtype=torch.float64)


@pytest.mark.parametrize("scheduler", [LinearNoiseScheduler(1000), CosineNoiseScheduler(100)])
def test_the_exact_flow_keeps_the_place_of_each_point_in_a_gaussian(scheduler):
    mean, variance = torch.tensor([0.8, -0.3], dtype=torch.float64), 0.25
    last_t = scheduler.num_timesteps - 1

    def moments(t):
        alpha, sigma = scheduler.alpha_sigma_at(t)
        return alpha * mean, math.sqrt(alpha**2 * variance + sigma**2)

    steps = [last_t, last_t // 2, 0, CLEAN]
    centre_T, spread_T = moments(last_t)
    for t, x in zip(steps, exact_flow(gaussian(mean, variance).denoise, scheduler, X_T, steps)):
        centre, spread = moments(t)
        torch.testing.assert_close(x, centre + spread * (X_T - centre_T) / spread_T, rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------- orders of convergence


def even_in_log_snr(T=1921, reach=2.0):
    """A process whose steps are exactly even in log-SNR if 41, 81 or 161 of them are chosen.

    With other processes, rounding to whole steps would make the measured order inexact.
    """
    log_snr = torch.linspace(reach, -reach, T, dtype=torch.float64)
    return NoiseScheduler(torch.sigmoid(2 * log_snr).sqrt(), torch.sigmoid(-2 * log_snr).sqrt())


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        ("ddim", 1),
        ("dpmpp_2m", 2),
        ("heun", 2),
        ("unipc", 3),
        ("adams", 3),
        ("dpmpp_3m", 2),  # The method as its authors published it has this order: see dpmpp.
    ],
)
def test_samplers_have_their_order_of_convergence_with_the_exact_denoiser(sampler, order):
    # We compare states at t = 0, before the prediction of x_0 on which most samplers end. Slopes were 1.01 to 3.13.
    scheduler = even_in_log_snr()
    truth = exact_flow(SMOOTH.denoise, scheduler, X_T, [0])[0]
    denoise = exact_denoiser(SMOOTH, scheduler)
    counts = (40, 80, 160)
    errors = []
    for n in counts:
        evaluations = SAMPLERS[sampler].evaluations_per_step * n + 1
        options = SamplingOptions(sampler, evaluations, "log_snr")
        state = list(sample(denoise, scheduler, X_T, options))[-2]
        assert state.t == 0
        errors.append(float((state.x_t - truth).square().mean().sqrt()))
    assert slope(counts, errors) == pytest.approx(order, abs=0.2), errors


# ---------------------------------------------------------------- the map of errors


@pytest.fixture(scope="module")
def exact_map():
    """The flow map of all noiseless samplers, with the exact denoiser in place of the network too."""
    scheduler = LinearNoiseScheduler(20_000)
    denoise = exact_denoiser(SMOOTH, scheduler)
    noiseless = [name for name, row in SAMPLERS.items() if not row.noisy]
    pair = {"exact": denoise, "network": denoise}
    return flow_map(SMOOTH.denoise, scheduler, pair, {"exact": X_T, "network": X_T}, noiseless)


def test_the_flow_map_has_the_errors_of_both_denoisers(exact_map):
    assert exact_map.errors.keys() == {"exact", "network"}


def test_the_flow_map_finds_no_error_in_an_exact_network(exact_map):
    assert exact_map.errors["exact"] == exact_map.errors["network"]


def test_the_flow_map_counts_evaluations_of_heun(exact_map):
    assert exact_map.evaluations["heun"][1:3] == [6, 10]


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("heun", 2)])
def test_the_flow_map_has_the_order_of_a_sampler(exact_map, sampler, order):
    assert exact_map.slopes[sampler] == pytest.approx(order, abs=0.4)


def test_the_smallest_error_of_unipc_is_that_of_its_last_step(exact_map):
    # It ends on the prediction of x_0.
    assert min(exact_map.errors["exact"]["unipc"]) == pytest.approx(exact_map.last_step, rel=0.2)


def test_the_smallest_error_of_adams_is_below_that_of_a_last_step(exact_map):
    # It integrates beyond t = 0.
    assert min(exact_map.errors["exact"]["adams"]) < exact_map.last_step / 3


COUNTS = [5, 10, 20, 40, 80]


def test_the_slope_of_a_power_is_its_exponent():
    assert slope(COUNTS, [7 * k**-2.5 for k in COUNTS]) == pytest.approx(2.5)


def test_errors_below_a_limit_do_not_count_for_the_slope():
    errors = [max(k**-2.0, 1e-3) for k in COUNTS]
    assert slope(COUNTS, errors, above=2e-3) != slope(COUNTS, errors)


def test_without_errors_above_the_limit_there_is_no_slope():
    assert math.isnan(slope(COUNTS, [1e-4] * 5, above=1e-3))
