"""Samplers driven by exact denoisers of Gaussians, for which the distribution of every state is known."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import gaussian
from scipy import stats

from diffusion import denoiser, exact_denoiser
from runtime.randomness import generator
from samplers import SAMPLER_ALIASES, SAMPLERS, count_evaluations, last, sample, sampler_timesteps
from samplers.ancestral import _posterior_noise, ddim, ddpm
from samplers.multistep import dpmpp_2m
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from schedule import CLEAN, CosineNoiseScheduler, LinearNoiseScheduler, NoiseScheduler, make_scheduler

MEAN, VARIANCE = 0.8, 0.25  # of x_0


def gaussian_denoiser(scheduler):
    """The exact denoiser for x_0 ~ N(MEAN, VARIANCE), built from E[eps | x_t] as from a network's prediction."""

    def network(x_t, t, label=None):
        alpha, sigma = scheduler.alpha_sigma(t, x_t)
        return sigma * (x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)

    return denoiser(network, scheduler, "eps")


@pytest.mark.slow
def test_ddpm_with_the_exact_denoiser_ends_in_the_gaussian():
    # The chain starts from the marginal of x_T, so its mean is exact. Its variance is too small by O(1 / T), because
    # the posterior variance (eq. 7) assumes that x_0 is known. We compare with the chain's own variance.
    scheduler = LinearNoiseScheduler(1000)
    g = generator(0, "test")
    x_T = torch.randn(20_000, 2, generator=g, dtype=torch.float64)
    x = last(ddpm(gaussian_denoiser(scheduler), scheduler, x_T, generator=g))
    variance = variance_of_the_full_ddpm_chain(scheduler)
    for i in range(2):  # level 1e-4 each
        assert stats.kstest(x[:, i], stats.norm(MEAN, variance**0.5).cdf).pvalue > 1e-4


def test_the_variance_of_the_full_ddpm_chain_is_nearly_that_of_the_data():
    assert variance_of_the_full_ddpm_chain(LinearNoiseScheduler(1000)) == pytest.approx(VARIANCE, rel=0.02)


def variance_of_the_full_ddpm_chain(scheduler):
    """The variance after all steps of DDPM, in closed form: each step is linear in x_t, plus independent noise."""
    denoise = gaussian_denoiser(scheduler)
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    variance = 1.0
    for t in reversed(range(scheduler.num_timesteps)):
        step = torch.tensor(t)
        mean_of_one = scheduler.posterior_mean(one, step, denoise(one, step).eps)
        mean_of_zero = scheduler.posterior_mean(zero, step, denoise(zero, step).eps)
        slope = mean_of_one - mean_of_zero
        variance = float(slope) ** 2 * variance + float(scheduler.posterior_variance[t])
    return variance


@pytest.mark.parametrize(("variance", "right"), [("optimal", True), ("fixed_small", False)])
def test_long_steps_keep_the_spread_of_a_gaussian_with_the_optimal_variance_only(variance, right):
    scheduler, g = LinearNoiseScheduler(1000), generator(0, "test")
    one = gaussian([MEAN], VARIANCE)
    begin, expected = (one.noised(*scheduler.alpha_sigma_at(t)) for t in (400, 100))
    x_T, options = begin.sample(20_000, g), {"timesteps": [400, 250, 100], "generator": g, "variance": variance}
    x_t = next(s.x_t for s in ddpm(gaussian_denoiser(scheduler), scheduler, x_T, **options) if s.t == 100)[:, 0]
    expected = stats.norm(float(expected.centres), float(expected.variance) ** 0.5)
    assert (stats.kstest(x_t, expected.cdf).pvalue > 1e-4) == right


@pytest.mark.parametrize("schedule", ["linear", "flow"])
def test_the_optimal_variance_of_a_gaussian_is_right_up_to_pure_noise(schedule):
    # Var[x_s | x_t] in closed form. The estimate of Var[x_0 | x_t] is useless where x_t is almost pure noise (we saw 0
    # or 1 instead of 0.05), but it hardly counts there. Over six seeds the ratio was off by 2.7 % at most.
    scheduler, g = make_scheduler(schedule, 1000), generator(2, "test")
    for spread in (0.05, 1.0):
        denoise = exact_denoiser(gaussian([0.0, 0.0], spread), scheduler)
        timesteps = spaced_timesteps(scheduler, 10, "even")
        for t, s in pairwise(timesteps[:7]):
            alpha, sigma = scheduler.alpha_sigma_at(t)
            x_t = math.sqrt(alpha**2 * spread + sigma**2) * torch.randn(50_000, 2, generator=g, dtype=torch.float64)
            drawn = _posterior_noise(scheduler, t, s, "optimal", denoise(x_t, torch.tensor(t)), g).square().mean()
            _, c_0, std = scheduler.posterior(t, s)
            left = spread * sigma**2 / (alpha**2 * spread + sigma**2)
            assert float(drawn) == pytest.approx(std**2 + c_0**2 * left, rel=0.06)


def moments_of_a_ddpm_chain(scheduler, timesteps):
    """The mean and variance after DDPM over these steps, in closed form.

    Each step maps a Gaussian to a Gaussian: the exact regression of x_s on x_t, plus the variance of x_s given x_t and
    x_0 (eq. 7). The latter leaves out the variance of x_0 given x_t.
    """
    mean, variance = 0.0, 1.0
    for t, s in zip(timesteps, [*timesteps[1:], CLEAN]):
        (alpha_s, sigma_s), (alpha_t, sigma_t) = scheduler.alpha_sigma_at(s), scheduler.alpha_sigma_at(t)
        total_s, total_t = alpha_s**2 * VARIANCE + sigma_s**2, alpha_t**2 * VARIANCE + sigma_t**2
        slope = alpha_t / alpha_s * total_s / total_t  # cov(x_s, x_t) / var(x_t)
        given_x_0 = sigma_s**2 - (alpha_t / alpha_s * sigma_s**2 / sigma_t) ** 2  # var(x_s | x_t, x_0)
        mean = alpha_s * MEAN + slope * (mean - alpha_t * MEAN)
        variance = slope**2 * variance + given_x_0
    return mean, variance


@pytest.mark.parametrize("count", [2, 7, 25])
def test_ddpm_over_some_steps_makes_the_chain_in_closed_form(count):
    # Two Kolmogorov-Smirnov tests at level 1e-4 for each count.
    scheduler, g = LinearNoiseScheduler(1000), generator(1, "test")
    timesteps = spaced_timesteps(scheduler, count)
    x_T = torch.randn(20_000, 2, generator=g, dtype=torch.float64)
    x = last(ddpm(gaussian_denoiser(scheduler), scheduler, x_T, timesteps=timesteps, generator=g))
    mean, variance = moments_of_a_ddpm_chain(scheduler, timesteps)
    for i in range(2):
        assert stats.kstest(x[:, i], stats.norm(mean, variance**0.5).cdf).pvalue > 1e-4


@pytest.mark.parametrize("count", [2, 7, 25])
def test_ddpm_over_some_steps_has_too_little_variance(count):
    scheduler = LinearNoiseScheduler(1000)
    _, variance = moments_of_a_ddpm_chain(scheduler, spaced_timesteps(scheduler, count))
    assert variance < VARIANCE


def test_ddpm_takes_the_reverse_steps_of_eq_11_and_7():
    # In float64, with the same noise: the posterior given x_0 (eq. 6) against eq. 11, which uses betas and eps.
    scheduler, x = CosineNoiseScheduler(50), torch.randn(20, 2, generator=generator(0, "x"), dtype=torch.float64)
    denoise, g = gaussian_denoiser(scheduler), generator(1, "test")
    for state in ddpm(denoise, scheduler, x, generator=generator(1, "test")):
        torch.testing.assert_close(state.x_t, x, rtol=1e-9, atol=1e-9)
        if state.t > 0:
            t, noise = torch.tensor(state.t), torch.randn(x.shape, generator=g, dtype=torch.float64)
            x = scheduler.reverse_step(x, t, denoise(x, t).eps, noise)
        elif state.t == 0:  # its noise has variance 0
            x = scheduler.reverse_step(x, torch.tensor(0), denoise(x, torch.tensor(0)).eps, 0 * x)


def states_of_ten_steps(sampler):
    """x_T (B, 1, 2, 2), and all states of the sampler from it over ten steps."""
    scheduler = LinearNoiseScheduler(10)
    x_T = torch.randn(3, 1, 2, 2)
    g = generator(0, "test")
    return x_T, list(
        sample(gaussian_denoiser(scheduler), scheduler, x_T, SamplingOptions(sampler=sampler), generator=g)
    )


# heun_sde evaluates the network at steps above its own, and does not visit every step.
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "heun_sde"])
def test_samplers_yield_the_state_of_every_step_newest_last(sampler):
    _, states = states_of_ten_steps(sampler)
    assert [s.step for s in states] == list(range(10, -1, -1))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_first_state_of_a_sampler_is_x_T(sampler):
    x_T, states = states_of_ten_steps(sampler)
    assert states[0].x_t is x_T


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_last_state_of_a_sampler_is_clean(sampler):
    _, states = states_of_ten_steps(sampler)
    assert states[-1].t == CLEAN
    assert torch.equal(states[-1].x_t, states[-1].x_0)


# The last step adds no noise. All samplers but adams end it on their own prediction of x_0.
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "adams"])
def test_the_last_step_of_a_sampler_ends_on_the_prediction_of_x_0(sampler):
    _, states = states_of_ten_steps(sampler)
    torch.testing.assert_close(states[-1].x_t, states[-2].x_0, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_state_has_the_prediction_of_x_0_from_its_own_x_t(sampler):
    _, states = states_of_ten_steps(sampler)
    for state in states[:-1]:
        prediction = gaussian_denoiser(LinearNoiseScheduler(10))(state.x_t, torch.tensor(state.t)).x_0
        torch.testing.assert_close(state.x_0, prediction)


def ddpm_samples(seed):
    scheduler = LinearNoiseScheduler(10)
    g = generator(seed, "test")
    return last(ddpm(gaussian_denoiser(scheduler), scheduler, torch.ones(4, 2), generator=g))


def test_ddpm_repeats_its_samples_with_an_equal_generator():
    assert torch.equal(ddpm_samples(0), ddpm_samples(0))


def test_ddpm_draws_other_samples_with_another_generator():
    assert not torch.equal(ddpm_samples(0), ddpm_samples(1))


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
    """Where the probability flow takes x_T: each point stays the same number of standard deviations from the mean."""
    alpha, sigma = scheduler.alpha_sigma_at(scheduler.num_timesteps - 1)
    return MEAN + VARIANCE**0.5 * (x_T - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2) ** 0.5


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_deterministic_samplers_converge_to_the_flow_at_their_order(sampler, order):
    scheduler, x_T = LinearNoiseScheduler(4000), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = []
    for steps in (20, 40):
        x = last(
            sample(gaussian_denoiser(scheduler), scheduler, x_T, SamplingOptions(sampler=sampler, sampling_steps=steps))
        )
        errors.append(float((x - flow(scheduler, x_T)).abs().max()))
    # Halving the step size divides the error by 2 or by 4. Rounding to whole timesteps makes that slightly inexact.
    assert errors[0] / errors[1] > 1.6**order
    assert errors[1] < 0.1


@pytest.mark.parametrize(("solver", "order"), [(ddim, 1), (dpmpp_2m, 2)])
def test_samplers_converge_to_the_flow_of_a_process_that_is_not_variance_preserving(solver, order):
    # Rectified flow: x_t = (1 - s) x_0 + s eps. The samplers only need alpha and sigma.
    s = torch.linspace(1e-3, 1 - 1e-3, 4000, dtype=torch.float64)
    scheduler = NoiseScheduler(1 - s, s)
    mixture = gaussian([MEAN], VARIANCE)
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    errors = []
    for count in (20, 40):
        timesteps = spaced_timesteps(scheduler, count)
        x = last(solver(exact_denoiser(mixture, scheduler), scheduler, x_T, timesteps=timesteps))
        errors.append(float((x - flow(scheduler, x_T)).abs().max()))
    assert errors[0] / errors[1] > 1.7**order
    assert errors[1] < 0.1


@pytest.mark.slow
def test_ddpm_of_a_process_that_is_not_variance_preserving_ends_in_the_gaussian():
    # As with betas, the variance is too small by O(1 / steps), which is below 1 % at 2000 steps. The tolerances are 5
    # standard errors.
    s = torch.linspace(1e-3, 1 - 1e-3, 2000, dtype=torch.float64)
    scheduler, g = NoiseScheduler(1 - s, s), generator(2, "test")
    x = last(ddpm(gaussian_denoiser(scheduler), scheduler, torch.randn(20_000, 1, generator=g).double(), generator=g))
    assert float(x.mean()) == pytest.approx(MEAN, abs=5 * (VARIANCE / 20_000) ** 0.5)
    assert float(x.var()) == pytest.approx(VARIANCE, rel=0.01 + 5 * (2 / 20_000) ** 0.5)


def every_plan(samplers):
    """Parametrise a test by sampler, T and the number of sampling steps that are asked for."""

    def parametrised(test):
        test = pytest.mark.parametrize("steps", [None, 7])(test)
        test = pytest.mark.parametrize("T", [10, 1000])(test)
        return pytest.mark.parametrize("sampler", samplers)(test)

    return parametrised


@every_plan([name for name in [*SAMPLERS, *SAMPLER_ALIASES] if name != "heun_sde"])
def test_a_sampler_visits_the_timesteps_that_are_known_beforehand(sampler, T, steps):
    scheduler = LinearNoiseScheduler(T)
    states = sample(
        gaussian_denoiser(scheduler),
        scheduler,
        torch.zeros(1, 2),
        SamplingOptions(sampler=sampler, sampling_steps=steps),
    )
    assert [state.t for state in states] == [
        *sampler_timesteps(scheduler, SamplingOptions(sampler=sampler, sampling_steps=steps)),
        CLEAN,
    ]


@every_plan(["heun_sde"])
def test_the_stochastic_heun_sampler_yields_as_many_states_as_are_known_beforehand(sampler, T, steps):
    # It evaluates the network at steps above its own.
    scheduler = LinearNoiseScheduler(T)
    states = sample(
        gaussian_denoiser(scheduler),
        scheduler,
        torch.zeros(1, 2),
        SamplingOptions(sampler=sampler, sampling_steps=steps),
    )
    assert (
        len(list(states))
        == len(sampler_timesteps(scheduler, SamplingOptions(sampler=sampler, sampling_steps=steps))) + 1
    )


@every_plan([*SAMPLERS, *SAMPLER_ALIASES])
def test_there_are_as_many_timesteps_as_the_evaluations_allow(sampler, T, steps):
    row = SAMPLERS[SAMPLER_ALIASES.get(sampler, sampler)]
    asked = steps or row.evaluations or T
    timesteps = sampler_timesteps(LinearNoiseScheduler(T), SamplingOptions(sampler=sampler, sampling_steps=steps))
    assert len(timesteps) == min(asked if row.evaluations_per_step == 1 else asked // 2 + 1, T)


@every_plan([*SAMPLERS, *SAMPLER_ALIASES])
def test_timesteps_reach_from_the_last_to_the_first(sampler, T, steps):
    row = SAMPLERS[SAMPLER_ALIASES.get(sampler, sampler)]
    timesteps = sampler_timesteps(LinearNoiseScheduler(T), SamplingOptions(sampler=sampler, sampling_steps=steps))
    assert timesteps[0] == T - 1
    assert timesteps[-1] == 0 or row.spacing == "angle"


def steps_evaluated(scheduler, sampler, asked, shape):
    """The step t of each call of the denoiser while samples of this shape are drawn."""
    calls = []

    def counted(x_t, t, label=None):
        calls.append(int(t))
        return gaussian_denoiser(scheduler)(x_t, t)

    last(sample(counted, scheduler, torch.zeros(shape), SamplingOptions(sampler=sampler, sampling_steps=asked)))
    return calls


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("asked", [3, 4, 15])
def test_a_sampler_of_images_takes_the_evaluations_that_are_asked_for(sampler, asked):
    scheduler = LinearNoiseScheduler(100)
    calls = steps_evaluated(scheduler, sampler, asked, (3, 1, 2, 2))
    spare = asked % 2 if sampler.startswith("heun") else 0  # Its first and last step take one, the others two.
    assert (
        len(calls)
        == asked - spare
        == count_evaluations(scheduler, SamplingOptions(sampler=sampler, sampling_steps=asked))
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("asked", [3, 4, 15])
def test_a_sampler_of_points_takes_more_evaluations_only_for_covariances(sampler, asked):
    scheduler = LinearNoiseScheduler(100)
    calls = steps_evaluated(scheduler, sampler, asked, (3, 2))
    near = [t for t in set(calls) if scheduler.log_snr[0] - scheduler.log_snr[t] <= math.log(2.5)]
    drawn = 2 * len(near) if sampler == "dpmpp_2m_sde" else 0  # one evaluation for each of two dimensions
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
def test_impossible_options_of_samplers_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        x_T = options.pop("x_T", torch.zeros(1, 2))
        sample(lambda x, t: x, LinearNoiseScheduler(10), x_T, SamplingOptions(**options))
