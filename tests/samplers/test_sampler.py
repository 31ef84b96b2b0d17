"""Reverse processes driven by exact denoisers."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

from diffusion import denoiser, exact_denoiser
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import ALIASES, SAMPLERS, count_evaluations, last, sample, sampler_timesteps
from samplers.ancestral import _noise, ddim, ddpm
from samplers.multistep import dpmpp
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from schedule import CLEAN, CosineNoiseScheduler, LinearNoiseScheduler, NoiseScheduler, make_scheduler

MEAN, VARIANCE = 0.8, 0.25


def gaussian_denoiser(scheduler):
    """E[eps | x_t] where x_0 ~ N(MEAN, VARIANCE), written out and as a network would predict it."""

    def network(x_t, t, label=None):
        alpha, sigma = scheduler.alpha_sigma(t, x_t)
        return sigma * (x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)

    return denoiser(network, scheduler, "eps")


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
        slope = scheduler.posterior_mean(one, step, denoise(one, step).eps) - scheduler.posterior_mean(
            zero, step, denoise(zero, step).eps
        )
        variance = float(slope) ** 2 * variance + float(scheduler.posterior_variance[t])
    assert variance == pytest.approx(VARIANCE, rel=0.02)
    for i in range(2):  # level 1e-4 each
        assert stats.kstest(x[:, i], stats.norm(MEAN, variance**0.5).cdf).pvalue > 1e-4


@pytest.mark.parametrize(("variance", "right"), [("optimal", True), ("fixed_small", False)])
def test_long_strides_keep_the_spread_of_a_gaussian_with_the_optimal_variance_only(variance, right):
    scheduler, g = LinearNoiseScheduler(1000), generator(0, "test")
    one = GaussianMixture(torch.tensor([[MEAN]]), VARIANCE)
    begin, expected = (one.noised(*scheduler.alpha_sigma_at(t)) for t in (400, 100))
    x_T, options = begin.sample(20_000, g), {"timesteps": [400, 250, 100], "generator": g, "variance": variance}
    x_t = next(s.x_t for s in ddpm(gaussian_denoiser(scheduler), scheduler, x_T, **options) if s.t == 100)[:, 0]
    expected = stats.norm(float(expected.centres), float(expected.variance) ** 0.5)
    assert (stats.kstest(x_t, expected.cdf).pvalue > 1e-4) == right


@pytest.mark.parametrize("schedule", ["linear", "flow"])
def test_the_optimal_variance_of_a_gaussian_is_right_up_to_pure_noise(schedule):
    # Var[x_s | x_t] in closed form. The estimate of Var[x_0 | x_t] is worth nothing where x_t is all but noise (seen: 0
    # or 1 for 0.05), but hardly counts there. Over six seeds the ratio was off by 2.7 % at most.
    scheduler, g = make_scheduler(schedule, 1000), generator(2, "test")
    for spread in (0.05, 1.0):
        denoise = exact_denoiser(GaussianMixture(torch.zeros(1, 2), spread), scheduler)
        timesteps = spaced_timesteps(scheduler, 10, "even")
        for t, s in pairwise(timesteps[:7]):
            alpha, sigma = scheduler.alpha_sigma_at(t)
            x_t = math.sqrt(alpha**2 * spread + sigma**2) * torch.randn(50_000, 2, generator=g, dtype=torch.float64)
            drawn = _noise(scheduler, t, s, "optimal", denoise(x_t, torch.tensor(t)), g).square().mean()
            _, c_0, std = scheduler.posterior(t, s)
            left = spread * sigma**2 / (alpha**2 * spread + sigma**2)
            assert float(drawn) == pytest.approx(std**2 + c_0**2 * left, rel=0.06)


@pytest.mark.parametrize("count", [2, 7, 25])
def test_ddpm_over_some_steps_makes_the_chain_in_closed_form(count):
    # Each stride maps a Gaussian to a Gaussian: the exact regression of x_s on x_t, plus the variance of x_s given x_t
    # and x_0 (eq. 7), which leaves out that of x_0 given x_t. 2 Kolmogorov tests at level 1e-4 for each count.
    scheduler, g = LinearNoiseScheduler(1000), generator(1, "test")
    timesteps = spaced_timesteps(scheduler, count)
    x_T = torch.randn(20_000, 2, generator=g, dtype=torch.float64)
    x = last(ddpm(gaussian_denoiser(scheduler), scheduler, x_T, timesteps=timesteps, generator=g))
    mean, variance = 0.0, 1.0
    for t, s in zip(timesteps, [*timesteps[1:], CLEAN]):
        (alpha_s, sigma_s), (alpha_t, sigma_t) = scheduler.alpha_sigma_at(s), scheduler.alpha_sigma_at(t)
        total_s, total_t = alpha_s**2 * VARIANCE + sigma_s**2, alpha_t**2 * VARIANCE + sigma_t**2
        slope = alpha_t / alpha_s * total_s / total_t  # cov(x_s, x_t) / var(x_t)
        given_x_0 = sigma_s**2 - (alpha_t / alpha_s * sigma_s**2 / sigma_t) ** 2  # var(x_s | x_t, x_0)
        mean, variance = alpha_s * MEAN + slope * (mean - alpha_t * MEAN), slope**2 * variance + given_x_0
    for i in range(2):
        assert stats.kstest(x[:, i], stats.norm(mean, variance**0.5).cdf).pvalue > 1e-4
    assert variance < VARIANCE  # few transitions are too sharp


def test_ddpm_takes_the_reverse_steps_of_eq_11_and_7():
    # in float64, with the same noise: the posterior of x_0, eq. 6, against the betas' eq. 11, which is written with eps
    scheduler, x = CosineNoiseScheduler(50), torch.randn(20, 2, generator=generator(0, "x"), dtype=torch.float64)
    denoise, g = gaussian_denoiser(scheduler), generator(1, "test")
    for state in ddpm(denoise, scheduler, x, generator=generator(1, "test")):
        torch.testing.assert_close(state.x_t, x, rtol=1e-9, atol=1e-9)
        if state.t > 0:
            t, noise = torch.tensor(state.t), torch.randn(x.shape, generator=g, dtype=torch.float64)
            x = scheduler.reverse_step(x, t, denoise(x, t).eps, noise)
        elif state.t == 0:  # its noise has variance 0
            x = scheduler.reverse_step(x, torch.tensor(0), denoise(x, torch.tensor(0)).eps, 0 * x)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_yield_every_state_newest_last(sampler):
    scheduler = LinearNoiseScheduler(10)
    x_T = torch.randn(3, 1, 2, 2)
    states = list(
        sample(
            gaussian_denoiser(scheduler),
            scheduler,
            x_T,
            SamplingOptions(sampler=sampler),
            generator=generator(0, "test"),
        )
    )
    if sampler != "heun_sde":  # which looks at steps above its own
        assert [s.step for s in states] == list(range(10, -1, -1))
    assert states[0].x_t is x_T and states[-1].t == CLEAN and torch.equal(states[-1].x_t, states[-1].x_0)
    if sampler != "adams":  # the last step adds no noise: it ends on its own guess of x_0
        torch.testing.assert_close(states[-1].x_t, states[-2].x_0, atol=1e-5, rtol=1e-5)
    for state in states[:-1]:
        guess = gaussian_denoiser(scheduler)(state.x_t, torch.tensor(state.t)).x_0
        torch.testing.assert_close(state.x_0, guess)


def test_ddpm_is_a_function_of_its_generator():
    scheduler = LinearNoiseScheduler(10)
    runs = [
        last(ddpm(gaussian_denoiser(scheduler), scheduler, torch.ones(4, 2), generator=generator(seed, "test")))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("count", [30, 6])
def test_ddim_with_all_its_noise_is_ddpm(count):
    scheduler, x_T = LinearNoiseScheduler(30), torch.randn(5, 2, dtype=torch.float64)
    denoise, timesteps = gaussian_denoiser(scheduler), spaced_timesteps(scheduler, count)
    one = ddim(denoise, scheduler, x_T, timesteps=timesteps, eta=1.0, generator=generator(0, "test"))
    two = ddpm(denoise, scheduler, x_T, timesteps=timesteps, generator=generator(0, "test"))
    for a, b in zip(one, two, strict=True):
        assert a.t == b.t
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
        x = last(
            sample(gaussian_denoiser(scheduler), scheduler, x_T, SamplingOptions(sampler=sampler, sampling_steps=steps))
        )
        errors.append(float((x - flow(scheduler, x_T)).abs().max()))
    # halving the transitions divides the error by 2 or by 4; rounding to whole timesteps blurs that a little
    assert errors[0] / errors[1] > 1.6**order
    assert errors[1] < 0.1


@pytest.mark.parametrize(("solver", "order"), [(ddim, 1), (dpmpp, 2)])
def test_samplers_follow_the_flow_of_a_process_that_is_not_variance_preserving(solver, order):
    # rectified flow: x_t = (1 - s) x_0 + s eps. The samplers ask for alpha and sigma, and for nothing else.
    s = torch.linspace(1e-3, 1 - 1e-3, 4000, dtype=torch.float64)
    scheduler = NoiseScheduler(1 - s, s)
    mixture = GaussianMixture(torch.tensor([[MEAN]]), VARIANCE)
    x_T, errors = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None], []
    for count in (20, 40):
        timesteps = spaced_timesteps(scheduler, count)
        x = last(solver(exact_denoiser(mixture, scheduler), scheduler, x_T, timesteps=timesteps))
        errors.append(float((x - flow(scheduler, x_T)).abs().max()))
    assert errors[0] / errors[1] > 1.7**order
    assert errors[1] < 0.1


def test_ddpm_of_a_process_that_is_not_variance_preserving_ends_in_the_gaussian():
    # as with the betas, the variance comes short by O(1 / steps): below 1 % at 2000; 5 standard errors of the mean
    s = torch.linspace(1e-3, 1 - 1e-3, 2000, dtype=torch.float64)
    scheduler, g = NoiseScheduler(1 - s, s), generator(2, "test")
    x = last(ddpm(gaussian_denoiser(scheduler), scheduler, torch.randn(20_000, 1, generator=g).double(), generator=g))
    assert float(x.mean()) == pytest.approx(MEAN, abs=5 * (VARIANCE / 20_000) ** 0.5)
    assert float(x.var()) == pytest.approx(VARIANCE, rel=0.01 + 5 * (2 / 20_000) ** 0.5)


@pytest.mark.parametrize("sampler", [*SAMPLERS, *ALIASES])
@pytest.mark.parametrize("T", [10, 1000])
@pytest.mark.parametrize("steps", [None, 7])
def test_the_timesteps_are_known_beforehand(sampler, T, steps):
    scheduler = LinearNoiseScheduler(T)
    states = sample(
        gaussian_denoiser(scheduler),
        scheduler,
        torch.zeros(1, 2),
        SamplingOptions(sampler=sampler, sampling_steps=steps),
    )
    timesteps = sampler_timesteps(scheduler, SamplingOptions(sampler=sampler, sampling_steps=steps))
    if sampler == "heun_sde":  # it looks at steps above its own
        assert len(list(states)) == len(timesteps) + 1
    else:
        assert [state.t for state in states] == [*timesteps, CLEAN]
    row = SAMPLERS[ALIASES.get(sampler, sampler)]
    asked = steps or row.evaluations or T
    assert len(timesteps) == min(asked if row.a_step == 1 else asked // 2 + 1, T)
    assert timesteps[0] == T - 1 and (timesteps[-1] == 0 or row.spacing == "angle")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("asked", [3, 4, 15])
def test_no_more_evaluations_than_asked_for(sampler, asked):
    scheduler, calls = LinearNoiseScheduler(100), []

    def counted(x_t, t, label=None):
        calls.append(int(t))
        return gaussian_denoiser(scheduler)(x_t, t)

    last(sample(counted, scheduler, torch.zeros(3, 1, 2, 2), SamplingOptions(sampler=sampler, sampling_steps=asked)))
    spare = asked % 2 if sampler.startswith("heun") else 0  # its first and last stride take one, the others two
    assert (
        len(calls)
        == asked - spare
        == count_evaluations(scheduler, SamplingOptions(sampler=sampler, sampling_steps=asked))
    )
    calls.clear()
    last(sample(counted, scheduler, torch.zeros(3, 2), SamplingOptions(sampler=sampler, sampling_steps=asked)))
    near = [t for t in set(calls) if scheduler.log_snr[0] - scheduler.log_snr[t] <= math.log(2.5)]
    drawn = 2 * len(near) if sampler == "dpmpp_2m_sde" else 0  # of two dims: their covariance
    assert len(calls) == count_evaluations(scheduler, SamplingOptions(sampler=sampler, sampling_steps=asked)) + drawn


def test_an_alias_is_the_same_sampler():
    scheduler, x_T = LinearNoiseScheduler(100), torch.randn(4, 2)
    one, two = (
        last(sample(gaussian_denoiser(scheduler), scheduler, x_T, SamplingOptions(sampler=s)))
        for s in ("dpm", "dpmpp_2m")
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "rk4"}, "choose one of ddpm, ddim, dpmpp_2m"),
        ({"sampler": "heun", "sampling_steps": 20}, r"1\.\.19"),
        ({"sampler": "adams", "variance": "exact"}, "variance belongs to sampler=ddpm, not to adams"),
        ({"variance": "large"}, "variance must be one of fixed_small, fixed_large"),
        ({"x_T": torch.zeros(1, 1, 2, 2), "variance": "exact"}, "variance=exact is for points"),
        ({"spacing": "odd", "sampling_steps": 5}, "spacing must be one of even, trailing"),
        ({"sampler": "ddpm", "sampling_steps": 0}, r"1\.\.10"),
        ({"sampler": "ddpm", "eta": 1.0}, "eta belongs to sampler=ddim, not to ddpm"),
        ({"sampler": "dpmpp_2m", "sampling_steps": 11}, r"1\.\.10"),
        ({"sampler": "dpmpp_2m", "eta": 0.5}, "eta belongs to sampler=ddim"),
    ],
)
def test_impossible_samplers_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        sample(lambda x, t: x, LinearNoiseScheduler(10), options.pop("x_T", torch.zeros(1, 2)), **options)
