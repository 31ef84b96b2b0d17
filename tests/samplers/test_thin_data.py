"""Data as thin as the noise of the last step: the posterior covariance of x_0, and samplers that draw with it."""

import math

import numpy as np
import pytest
import torch
from conftest import gaussian
from scipy import stats

from diffusion import exact_denoiser
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import last
from samplers.ancestral import ddpm
from samplers.covariance import prediction_and_covariance
from samplers.multistep import dpmpp_2m_sde
from samplers.spacing import spaced_timesteps
from schedule import CLEAN, LinearNoiseScheduler, make_scheduler

MEAN, VARIANCE = 0.8, 0.25


@pytest.mark.parametrize("t", [0, 300, 999])
def test_the_covariance_by_finite_differences_is_that_of_the_posterior(t):
    g, scheduler = generator(0, "test"), LinearNoiseScheduler(1000)
    mixture = GaussianMixture(torch.randn(5, 2, generator=g), torch.tensor([0.1, 0.3]))
    x = torch.randn(4, 2, generator=g, dtype=torch.float64)
    _, covariance = prediction_and_covariance(exact_denoiser(mixture, scheduler), scheduler, x, t)
    for point, found in zip(x, covariance):
        posterior = mixture.posterior(point, *scheduler.alpha_sigma_at(t))
        off = posterior.centres - posterior.weights @ posterior.centres
        expected = off.T @ (posterior.weights[:, None] * off) + posterior.variance.diag()
        assert float((found - expected).norm() / expected.norm()) < 0.02  # With six seeds we saw at most 0.01.


def test_ddpm_with_the_exact_covariance_is_exact_for_a_gaussian_in_few_steps():
    # level 1e-4
    scheduler, g = LinearNoiseScheduler(1000), generator(2, "test")
    mixture = gaussian([MEAN, MEAN], VARIANCE)
    options = {"timesteps": spaced_timesteps(scheduler, 5), "generator": g, "variance": "exact"}
    x_T = torch.randn(20_000, 2, generator=g, dtype=torch.float64)
    x = last(ddpm(exact_denoiser(mixture, scheduler), scheduler, x_T, **options))
    assert stats.kstest(x[:, 0], stats.norm(MEAN, VARIANCE**0.5).cdf).pvalue > 1e-4


# ---------------------------------------------------------------- the last transition alone

# Data as narrow as the noise that is left at step 0. The transition begins at the exact marginal of that step.
NARROW = 0.03  # the standard deviation
NARROW_DATA = gaussian([MEAN, MEAN], NARROW**2)
HUNDRED_STEPS = LinearNoiseScheduler(100)
# The share of the variance of x_0 that its posterior mean, given x_t at step 0, has.
SHARE_OF_MEAN = NARROW**2 / (NARROW**2 + float(HUNDRED_STEPS.sigma[0] / HUNDRED_STEPS.alpha[0]) ** 2)


def after_the_last_step(sampler, **options):
    g = generator(3, "test")
    x = NARROW_DATA.noised(*HUNDRED_STEPS.alpha_sigma_at(0)).sample(20_000, g)
    denoise = exact_denoiser(NARROW_DATA, HUNDRED_STEPS)
    return last(sampler(denoise, HUNDRED_STEPS, x, timesteps=[0], generator=g, **options))


def test_ddpm_with_the_exact_variance_ends_on_a_draw_of_the_posterior():
    x = after_the_last_step(ddpm, variance="exact")
    for i in range(2):  # level 1e-4 each
        assert stats.kstest(x[:, i], stats.norm(MEAN, NARROW).cdf).pvalue > 1e-4


def test_2m_sde_ends_on_the_posterior_mean():
    x = after_the_last_step(dpmpp_2m_sde, draw=False)
    for i in range(2):  # level 1e-4 each
        assert stats.kstest(x[:, i], stats.norm(MEAN, NARROW * SHARE_OF_MEAN**0.5).cdf).pvalue > 1e-4


def test_the_posterior_mean_of_narrow_data_has_less_than_half_of_their_variance():
    assert SHARE_OF_MEAN < 0.5


# ---------------------------------------------------------------- many transitions


def variance_of_2m_sde(scheduler, timesteps, variance, draw):
    """The variance of the samples of 2M SDE in closed form, for data N(0, variance).

    Each transition t -> s is linear in x_t and in the prediction of x_0 before, so a 2 x 2 covariance is enough.
    """
    covariance = np.diag([1.0, 0.0])  # of x_t and the prediction of x_0 at the transition before
    h_last = math.inf
    for t, s in zip(timesteps, [*timesteps[1:], CLEAN]):
        alpha, sigma = scheduler.alpha_sigma_at(t)
        c_t, c_0, std = scheduler.posterior(t, s)
        gain = alpha * variance / (alpha**2 * variance + sigma**2)  # The prediction of x_0 is gain x_t.
        h = 0.0 if s == CLEAN else float(scheduler.log_snr[s] - scheduler.log_snr[t])
        extrapolation = h / h_last / 2 if math.isfinite(h) else 0.0
        fresh = std**2
        if draw and scheduler.log_snr[timesteps[-1]] - scheduler.log_snr[t] <= math.log(2.5):
            extrapolation = 0.0
            fresh = std**2 + c_0**2 * gain * sigma**2 / alpha  # Var[x_0 | x_t] = sigma^2 / alpha d x_0 / d x_t
        transition = np.array([[c_t + c_0 * (1 + extrapolation) * gain, -c_0 * extrapolation], [gain, 0.0]])
        covariance = transition @ covariance @ transition.T + np.diag([fresh, 0.0])
        h_last = h
    return covariance[0, 0]


# Data as thin as moons with noise 0.02 are across their long side.
THIN = (0.02 / 0.87) ** 2  # the variance


@pytest.mark.parametrize(("draw", "kept"), [(False, 0.86), (True, 0.993)])
def test_2m_sde_keeps_the_variance_of_thin_data_only_if_its_end_is_drawn(draw, kept):
    scheduler = LinearNoiseScheduler(1000)
    found = variance_of_2m_sde(scheduler, spaced_timesteps(scheduler, 50), THIN, draw)
    assert found / THIN == pytest.approx(kept, abs=0.005)


@pytest.mark.parametrize("draw", [False, True])
def test_samples_of_2m_sde_have_the_variance_in_closed_form(draw):
    # The standard error of the variance is 0.3 %.
    scheduler, g = LinearNoiseScheduler(1000), generator(4, "test")
    denoise = exact_denoiser(gaussian([0.0, 0.0], THIN), scheduler)
    timesteps = spaced_timesteps(scheduler, 50)
    x_T = torch.randn(20_000, 2, generator=g)
    x = last(dpmpp_2m_sde(denoise, scheduler, x_T, timesteps=timesteps, draw=draw, generator=g))
    expected = variance_of_2m_sde(scheduler, timesteps, THIN, draw)
    assert float(x.square().mean()) == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize(("schedule", "T"), [("linear", 100), ("linear", 1000), ("cosine", 1000), ("flow", 1000)])
@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_the_drawn_end_is_at_most_three_per_cent_off_in_every_process(schedule, T, noise):
    # The rest of the error is that of eq. 18 itself.
    scheduler = make_scheduler(schedule, T)
    variance = (noise / 0.87) ** 2
    found = variance_of_2m_sde(scheduler, spaced_timesteps(scheduler, 50), variance, True)
    assert found == pytest.approx(variance, rel=0.03)
