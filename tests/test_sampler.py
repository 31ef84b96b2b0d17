"""Reverse processes driven by exact denoisers."""

import pytest
import torch
from scipy import stats

from diffusion import Prediction
from runtime.randomness import generator
from sampler import SAMPLERS, ddim, ddpm, last, sample, timesteps_of
from schedule import CLEAN, LinearNoiseScheduler, NoiseScheduler

MEAN, VARIANCE = 0.8, 0.25


def gaussian_denoiser(scheduler):
    """E[eps | x_t] and E[x_0 | x_t] where x_0 ~ N(MEAN, VARIANCE)."""

    def denoise(x_t, t, label=None):
        alpha, sigma = scheduler.alpha_sigma(t, x_t)
        distance = (x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
        return Prediction(sigma * distance, MEAN + alpha * VARIANCE * distance)

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
        ends = torch.tensor([[[1.0]], [[0.0]]], dtype=torch.float64)
        one, zero = (scheduler.posterior_mean(x, step, denoise(x, step).eps) for x in ends)
        slope = one - zero
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


def test_ddim_with_all_its_noise_is_ddpm():
    scheduler, x_T = LinearNoiseScheduler(30), torch.randn(5, 2, dtype=torch.float64)
    denoise = gaussian_denoiser(scheduler)
    one = ddim(denoise, scheduler, x_T, eta=1.0, generator=generator(0, "test"))
    two = ddpm(denoise, scheduler, x_T, generator=generator(0, "test"))
    for a, b in zip(one, two, strict=True):
        assert a.step == b.step
        torch.testing.assert_close(a.x_t, b.x_t)


def flow(scheduler, x_T):
    """Where the probability flow carries x_T: it keeps each point's place among the deviations of its Gaussian."""
    alpha, sigma = scheduler.alpha_sigma_at(scheduler.num_timesteps - 1)
    return MEAN + VARIANCE**0.5 * (x_T - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2) ** 0.5


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_deterministic_samplers_follow_the_flow_to_their_order(sampler, order):
    scheduler, x_T = LinearNoiseScheduler(4000), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = []
    for steps in (20, 40):
        x = last(sample(gaussian_denoiser(scheduler), scheduler, x_T, sampler=sampler, sampling_steps=steps))
        errors.append(float((x - flow(scheduler, x_T)).abs().max()))
    # halving the strides divides the error by 2 or by 4; rounding to whole timesteps blurs that a little
    assert errors[0] / errors[1] > 1.6**order
    assert errors[1] < 0.1


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_a_process_that_preserves_no_variance_needs_no_other_sampler(sampler, order):
    # flow matching: alpha = 1 - s, sigma = s; the Gaussian's flow is known for it as well
    s = torch.linspace(0, 1, 4002, dtype=torch.float64)[1:-1]
    scheduler, x_T = NoiseScheduler(1 - s, s), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = []
    for steps in (20, 40):
        x = last(sample(gaussian_denoiser(scheduler), scheduler, x_T, sampler=sampler, sampling_steps=steps))
        errors.append(float((x - flow(scheduler, x_T)).abs().max()))
    assert errors[0] / errors[1] > 1.6**order and errors[1] < 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("T", [10, 1000])
def test_the_steps_of_a_sampler_are_known_before(sampler, T):
    scheduler, x_T = LinearNoiseScheduler(T), torch.zeros(1, 2)
    for steps in (None, 7):
        states = sample(gaussian_denoiser(scheduler), scheduler, x_T, sampler=sampler, sampling_steps=steps)
        known = timesteps_of(scheduler, sampler, steps)
        assert [state.t for state in states] == [*known, CLEAN]
        assert (
            known[0] == T - 1 and known[-1] == 0 and len(known) == (steps or min(SAMPLERS[sampler].evaluations or T, T))
        )


def test_ddpm_over_few_steps_is_ddim_with_all_its_noise_over_them():
    scheduler, x_T = LinearNoiseScheduler(100), torch.randn(5, 2, dtype=torch.float64)
    options = {"timesteps": scheduler.timesteps(12, "even"), "generator": None}
    runs = [
        last(
            run(gaussian_denoiser(scheduler), scheduler, x_T, **{**options, "generator": generator(0, "test")}, **more)
        )
        for run, more in ((ddpm, {}), (ddim, {"eta": 1.0}))
    ]
    torch.testing.assert_close(*runs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "euler"}, "choose one of ddpm, ddim, dpmpp_2m"),
        ({"sampler": "ddpm", "sampling_steps": 11}, r"2\.\.10"),
        ({"sampler": "dpmpp_2m", "sampling_steps": 11}, r"2\.\.10"),
        ({"sampler": "dpmpp_2m", "eta": 0.5}, "eta belongs to sampler=ddim"),
    ],
)
def test_impossible_samplers_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        sample(lambda x, t: x, LinearNoiseScheduler(10), torch.zeros(1, 2), **options)
