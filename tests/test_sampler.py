"""Reverse processes driven by exact denoisers."""

import pytest
import torch
from scipy import stats

from randomness import generator
from sampler import ddpm, in_chunks, last
from schedule import LinearNoiseScheduler

MEAN, VARIANCE = 0.8, 0.25


def gaussian_denoiser(scheduler):
    """E[eps | x_t] where x_0 ~ N(MEAN, VARIANCE)."""

    def denoise(x_t, t):
        alpha, sigma = scheduler.alpha_sigma(t, x_t)
        return sigma * (x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)

    return denoise


def test_ddpm_with_the_exact_denoiser_ends_in_the_gaussian():
    # Started from x_T's own marginal, the chain's mean is exact; its variance comes short by O(1 / T), because the
    # posterior variance (eq. 7) is that of known x_0. So we follow the variance through the 1000 steps in closed form.
    scheduler = LinearNoiseScheduler(1000)
    denoise, g = gaussian_denoiser(scheduler), generator(0, "test")
    x = last(ddpm(denoise, scheduler, torch.randn(20_000, 2, generator=g, dtype=torch.float64), generator=g))
    variance = 1.0
    for t in range(999, -1, -1):
        step = torch.tensor(t)
        one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
        slope = scheduler.posterior_mean(one, step, denoise(one, step)) - scheduler.posterior_mean(
            zero, step, denoise(zero, step)
        )
        variance = float(slope) ** 2 * variance + float(scheduler.posterior_variance[t])
    assert variance == pytest.approx(VARIANCE, rel=0.02)
    for i in range(2):  # level 1e-4 each
        assert stats.kstest(x[:, i], stats.norm(MEAN, variance**0.5).cdf).pvalue > 1e-4


def test_ddpm_yields_every_state_newest_last():
    scheduler = LinearNoiseScheduler(10)
    x_T = torch.randn(3, 1, 2, 2)
    states = list(ddpm(gaussian_denoiser(scheduler), scheduler, x_T, generator=generator(0, "test")))
    assert [s.step for s in states] == list(range(10, -1, -1))
    assert states[0].x_t is x_T and torch.equal(states[-1].x_t, states[-1].x_0)
    # the last step adds no noise: it ends on its own guess of x_0
    torch.testing.assert_close(states[-1].x_t, states[-2].x_0, atol=1e-5, rtol=1e-5)


def test_ddpm_is_a_function_of_its_generator():
    scheduler = LinearNoiseScheduler(10)
    runs = [
        last(ddpm(gaussian_denoiser(scheduler), scheduler, torch.ones(4, 2), generator=generator(seed, "test")))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_chunks_change_nothing():
    scheduler, x = LinearNoiseScheduler(10), torch.randn(7, 2)
    denoise = gaussian_denoiser(scheduler)
    assert torch.equal(in_chunks(denoise, 3)(x, torch.tensor(4)), denoise(x, torch.tensor(4)))
