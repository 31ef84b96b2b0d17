"""Data as thin as the last noise: the covariance that a guess of x_0 leaves open, and samplers that draw with it."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from diffusion import exact_denoiser
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import last
from samplers.ancestral import ddpm
from samplers.covariance import prediction_and_covariance
from samplers.multistep import dpmpp
from samplers.spacing import spaced_timesteps
from schedule import CLEAN, LinearNoiseScheduler, make_scheduler

MEAN, VARIANCE = 0.8, 0.25


def test_the_covariance_by_differences_is_that_of_the_posterior():
    g, scheduler = generator(0, "test"), LinearNoiseScheduler(1000)
    mixture = GaussianMixture(torch.randn(5, 2, generator=g), torch.tensor([0.1, 0.3]))
    x = torch.randn(4, 2, generator=g, dtype=torch.float64)
    for t in (0, 300, 999):
        _, covariance = prediction_and_covariance(exact_denoiser(mixture, scheduler), scheduler, x, t)
        for point, found in zip(x, covariance):
            posterior = mixture.posterior(point, *scheduler.alpha_sigma_at(t))
            off = posterior.centres - posterior.weights @ posterior.centres
            expected = off.T @ (posterior.weights[:, None] * off) + posterior.variance.diag()
            assert float((found - expected).norm() / expected.norm()) < 0.02  # 0.01 at most was seen in six seeds


def test_ddpm_with_the_exact_covariance_is_exact_for_a_gaussian_in_few_steps():
    # level 1e-4
    scheduler, g = LinearNoiseScheduler(1000), generator(2, "test")
    mixture = GaussianMixture(torch.tensor([[MEAN, MEAN]]), VARIANCE)
    options = {"timesteps": spaced_timesteps(scheduler, 5), "generator": g, "variance": "exact"}
    x_T = torch.randn(20_000, 2, generator=g, dtype=torch.float64)
    x = last(ddpm(exact_denoiser(mixture, scheduler), scheduler, x_T, **options))
    assert stats.kstest(x[:, 0], stats.norm(MEAN, VARIANCE**0.5).cdf).pvalue > 1e-4


def test_ddpm_with_the_exact_variance_ends_on_a_draw_and_other_samplers_on_a_mean_that_is_too_thin():
    # the last stride alone, from x_0's own marginal there, of data as narrow as the noise that is left; level 1e-4
    scheduler, g, noise = LinearNoiseScheduler(100), generator(3, "test"), 0.03
    mixture = GaussianMixture(torch.full((1, 2), MEAN), noise**2)
    x = mixture.noised(*scheduler.alpha_sigma_at(0)).sample(20_000, g)
    denoise = exact_denoiser(mixture, scheduler)
    drawn = last(ddpm(denoise, scheduler, x, timesteps=[0], variance="exact", generator=g))
    mean = last(dpmpp(denoise, scheduler, x, timesteps=[0], stochastic=True, generator=g))
    kept = noise**2 / (noise**2 + float(scheduler.sigma[0] / scheduler.alpha[0]) ** 2)
    assert kept < 0.5
    for i in range(2):
        assert stats.kstest(drawn[:, i], stats.norm(MEAN, noise).cdf).pvalue > 1e-4
        assert stats.kstest(mean[:, i], stats.norm(MEAN, noise * kept**0.5).cdf).pvalue > 1e-4


def variance_of_2m_sde(scheduler, timesteps, variance, draw):
    """That of its samples in closed form, of data N(0, variance): each stride is linear in x_t and the guess before."""
    x_and_guess, h_last = np.diag([1.0, 0.0]), math.inf
    for t, s in zip(timesteps, [*timesteps[1:], CLEAN]):
        (alpha, sigma), (c_t, c_0, std) = scheduler.alpha_sigma_at(t), scheduler.posterior(t, s)
        gain = alpha * variance / (alpha**2 * variance + sigma**2)  # the guess is gain x_t
        h = 0.0 if s == CLEAN else float(scheduler.log_snr[s] - scheduler.log_snr[t])
        on, fresh = h / h_last / 2 if math.isfinite(h) else 0.0, std**2
        if draw and scheduler.log_snr[timesteps[-1]] - scheduler.log_snr[t] <= math.log(2.5):
            on, fresh = 0.0, std**2 + c_0**2 * gain * sigma**2 / alpha  # Var[x_0 | x_t] = sigma^2 / alpha d x_0 / d x_t
        stride = np.array([[c_t + c_0 * (1 + on) * gain, -c_0 * on], [gain, 0.0]])
        x_and_guess, h_last = stride @ x_and_guess @ stride.T + np.diag([fresh, 0.0]), h
    return x_and_guess[0, 0]


@pytest.mark.parametrize(("draw", "kept"), [(False, 0.86), (True, 0.993)])
def test_2m_sde_keeps_the_variance_of_thin_data_only_if_its_end_is_drawn(draw, kept):
    # data as thin as moons with noise 0.02 across their long side; the standard error of the variance is 0.3 %
    scheduler, g, variance = LinearNoiseScheduler(1000), generator(4, "test"), (0.02 / 0.87) ** 2
    denoise, timesteps = (
        exact_denoiser(GaussianMixture(torch.zeros(1, 2), variance), scheduler),
        spaced_timesteps(scheduler, 50),
    )
    x_T = torch.randn(20_000, 2, generator=g)
    x = last(dpmpp(denoise, scheduler, x_T, timesteps=timesteps, stochastic=True, draw=draw, generator=g))
    expected = variance_of_2m_sde(scheduler, timesteps, variance, draw)
    assert expected / variance == pytest.approx(kept, abs=0.005)
    assert float(x.square().mean()) == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize(("schedule", "T"), [("linear", 100), ("linear", 1000), ("cosine", 1000), ("flow", 1000)])
@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_the_drawn_end_is_at_most_three_per_cent_off_in_every_process(schedule, T, noise):
    scheduler, variance = make_scheduler(schedule, T), (noise / 0.87) ** 2  # what is left of it is eq. 18's own
    assert variance_of_2m_sde(scheduler, spaced_timesteps(scheduler, 50), variance, True) == pytest.approx(
        variance, rel=0.03
    )
