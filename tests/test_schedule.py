"""The schedule and its steps against closed forms, in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from registry.process_rows import SCHEDULES
from registry.sampler_rows import SPACINGS
from samplers.spacing import NOISE_MIN, spaced_timesteps
from schedule import (
    CLEAN,
    CosineNoiseScheduler,
    LinearNoiseScheduler,
    NoiseScheduler,
    SigmoidNoiseScheduler,
    VariancePreserving,
    evenly_spaced,
    make_scheduler,
    step_from_t,
    t_from_step,
)

T = 1000
PRESERVING = [name for name in SCHEDULES if isinstance(make_scheduler(name, 2), VariancePreserving)]


def test_linear_betas_are_the_textbook_ones_at_1000_steps():
    betas = LinearNoiseScheduler(T).betas
    assert float(betas[0]) == pytest.approx(1e-4, rel=1e-14)
    assert float(betas[-1]) == pytest.approx(0.02, rel=1e-14)
    assert torch.allclose(betas.diff(), torch.full((T - 1,), (0.02 - 1e-4) / (T - 1)).double(), rtol=1e-9)


def test_betas_are_of_float64():
    assert LinearNoiseScheduler(T).betas.dtype == torch.float64


def test_alpha_bar_is_the_product_of_alphas():
    scheduler = LinearNoiseScheduler(T)
    product = 1.0
    for t in range(T):
        assert float(scheduler.alphas_cumprod_prev[t]) == pytest.approx(product, rel=1e-12)
        product *= 1 - (1e-4 + t / (T - 1) * (0.02 - 1e-4))
        assert float(scheduler.alphas_cumprod[t]) == pytest.approx(product, rel=1e-12)


@pytest.mark.parametrize("t", [1, 50, 99])
def test_posterior_variance_is_eq_7(t):
    s = LinearNoiseScheduler(100)
    expected = (1 - s.alphas_cumprod[t - 1]) / (1 - s.alphas_cumprod[t]) * s.betas[t]
    assert float(s.posterior_variance[t]) == pytest.approx(float(expected), rel=1e-14)


def test_the_last_step_to_clean_data_has_no_posterior_variance():
    assert float(LinearNoiseScheduler(100).posterior_variance[0]) == 0


@pytest.mark.parametrize("num_timesteps", [50, 100, 250, 1000, 4000])
def test_defaults_leave_no_signal_at_any_length(num_timesteps):
    # the continuous limit is exp(-(0.1 + 20) / 4) = 0.0066 of amplitude
    scheduler = LinearNoiseScheduler(num_timesteps)
    assert float(scheduler.sqrt_alphas_cumprod[-1]) < 0.01
    assert scheduler.signal_warning() is None


def test_given_betas_are_taken_literally():
    scheduler = LinearNoiseScheduler(100, 1e-4, 0.02)
    assert float(scheduler.sqrt_alphas_cumprod[-1]) == pytest.approx(0.60, abs=0.005)


def test_betas_that_leave_much_signal_are_warned_about():
    warning = LinearNoiseScheduler(100, 1e-4, 0.02).signal_warning()
    assert "60%" in warning and "beta_end" in warning


@pytest.mark.parametrize("num_timesteps", [1, 2, 5, 20])
def test_short_schedules_have_betas_between_0_and_1(num_timesteps):
    s = LinearNoiseScheduler(num_timesteps)
    assert bool(((s.betas > 0) & (s.betas < 1)).all())


@pytest.mark.parametrize("num_timesteps", [1, 2, 5, 20])
def test_the_first_reverse_step_of_a_short_schedule_is_finite(num_timesteps):
    s = LinearNoiseScheduler(num_timesteps)
    x = torch.randn(4, 2)
    assert bool(torch.isfinite(s.reverse_step(x, torch.tensor(num_timesteps - 1), x, x)).all())


@pytest.mark.parametrize("betas", [(0, 10), (0.5, 0.1), (0.1, 1.0), (-0.1, 0.2)])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match="beta"):
        LinearNoiseScheduler(10, *betas)


def test_forward_steps_one_by_one_have_the_moments_of_one_transition():
    # mean and variance through eq. 2, step by step, are those of eq. 4
    s = LinearNoiseScheduler(T)
    mean, variance = 1.0, 0.0
    for t in range(T):
        mean *= math.sqrt(1 - s.betas[t])
        variance = variance * float(1 - s.betas[t]) + float(s.betas[t])
        assert mean == pytest.approx(float(s.sqrt_alphas_cumprod[t]), rel=1e-10)
        assert variance == pytest.approx(1 - float(s.alphas_cumprod[t]), rel=1e-10)


def test_reverse_mean_is_the_posterior_mean_of_eq_7():
    # eq. 11, written with eps, equals eq. 7, written with x_0
    s = LinearNoiseScheduler(100)
    x_0, eps = torch.randn(2, 8, 2, dtype=torch.float64)
    for step in (0, 1, 50, 99):
        t = torch.tensor(step)
        x_t = s.add_noise(x_0, t, eps)
        a, a_prev, beta = s.alphas_cumprod[step], s.alphas_cumprod_prev[step], s.betas[step]
        eq_7 = a_prev.sqrt() * beta / (1 - a) * x_0 + (1 - beta).sqrt() * (1 - a_prev) / (1 - a) * x_t
        torch.testing.assert_close(s.posterior_mean(x_t, t, eps), eq_7, rtol=1e-10, atol=1e-10)


def test_reverse_step_on_gaussian_data_is_the_exact_posterior():
    # x_0 ~ N(m, v) in one dimension: with E[eps | x_t], one DDPM step has the exact mean of x_{t-1} given x_t
    s, m, v = LinearNoiseScheduler(50), 0.7, 0.3
    x_t = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for step in (1, 10, 49):
        t = torch.tensor(step)
        a, a_prev, alpha = s.alphas_cumprod[step], s.alphas_cumprod[step - 1], s.alphas[step]
        variance_t, variance_prev = a * v + 1 - a, a_prev * v + 1 - a_prev
        eps = (1 - a).sqrt() * (x_t - a.sqrt() * m) / variance_t
        # joint Gaussian of (x_{t-1}, x_t): covariance sqrt(alpha) * variance_prev
        exact = a_prev.sqrt() * m + alpha.sqrt() * variance_prev / variance_t * (x_t - a.sqrt() * m)
        torch.testing.assert_close(s.posterior_mean(x_t, t, eps), exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", PRESERVING)
def test_posterior_is_one_step_of_eq_7_and_11(name):
    # c_t x_t + c_0 x_0 + std noise, which knows alpha and sigma only, against the betas' own formulas
    s, g = make_scheduler(name, 100), torch.Generator().manual_seed(0)
    x_0, eps, noise = torch.randn(3, 8, 2, generator=g, dtype=torch.float64)
    for step in (0, 1, 50, 99):
        t = torch.tensor(step)
        x_t = s.add_noise(x_0, t, eps)
        c_t, c_0, std = s.posterior(step, step - 1)
        ours = c_t * x_t + c_0 * x_0 + std * noise
        torch.testing.assert_close(ours, s.reverse_step(x_t, t, eps, noise), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("s", "t"), [(CLEAN, 0), (CLEAN, 99), (0, 99), (20, 23), (98, 99)])
def test_posterior_of_any_transition_is_that_of_the_joint_gaussian(name, s, t):
    # x_s and x_t given x_0 are jointly Gaussian: mean and variance of x_s | x_t by the textbook's rule
    scheduler, x_0, x_t = make_scheduler(name, 100), 0.7, -1.3
    (alpha_s, sigma_s), (alpha_t, sigma_t) = scheduler.alpha_sigma_at(s), scheduler.alpha_sigma_at(t)
    covariance = alpha_t / alpha_s * sigma_s**2
    mean = alpha_s * x_0 + covariance / sigma_t**2 * (x_t - alpha_t * x_0)
    variance = sigma_s**2 - covariance**2 / sigma_t**2
    c_t, c_0, std = scheduler.posterior(t, s)
    assert c_t * x_t + c_0 * x_0 == pytest.approx(mean, rel=1e-9)
    assert std**2 == pytest.approx(variance, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", PRESERVING)
def test_a_transition_is_the_product_of_its_steps(name):
    scheduler = make_scheduler(name, 100)
    a, b_squared = 1.0, 0.0
    for t in range(30, 71):
        beta = float(scheduler.betas[t])
        a *= math.sqrt(1 - beta)
        b_squared = b_squared * (1 - beta) + beta
        assert scheduler.transition(29, t) == pytest.approx((a, math.sqrt(b_squared)), rel=1e-9)


def test_steps_and_t_count_from_the_clean_data():
    assert (step_from_t(CLEAN), step_from_t(0), t_from_step(0), t_from_step(1)) == (0, 1, CLEAN, 0)


def test_clean_data_are_all_signal_and_no_noise():
    assert LinearNoiseScheduler(10).alpha_sigma_at(CLEAN) == (1, 0)


def test_one_t_for_all_rows_equals_the_same_t_for_each():
    s, x, eps = LinearNoiseScheduler(100), torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4)
    torch.testing.assert_close(s.add_noise(x, torch.tensor(7), eps), s.add_noise(x, torch.full((5,), 7), eps))


def test_noise_is_added_in_the_dtype_of_the_data():
    s, x, eps = LinearNoiseScheduler(100), torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4)
    assert s.add_noise(x, torch.tensor(7), eps).dtype == torch.float32


@pytest.mark.parametrize("t", [-1, 100, 1.5, [0, 100]])
def test_t_outside_is_refused(t):
    with pytest.raises(ValueError, match="t must"):
        LinearNoiseScheduler(100).check_t(t)


def test_any_betas_make_a_scheduler():
    assert VariancePreserving([0.1, 0.2]).alphas_cumprod.tolist() == pytest.approx([0.9, 0.72])


@pytest.mark.parametrize("betas", [[], [0.0, 0.1], [0.1, 1.0, 0.1], [0.1, 1.1], [[0.1]], [float("nan")]])
def test_betas_that_are_none_are_refused(betas):
    with pytest.raises(ValueError, match="betas must be"):
        VariancePreserving(betas)


def test_a_process_is_given_by_alpha_and_sigma():
    # the same numbers by betas or by hand are the same process
    s = LinearNoiseScheduler(50)
    bare = NoiseScheduler(s.alpha, s.sigma)
    assert spaced_timesteps(bare, 7) == spaced_timesteps(s, 7)
    assert bare.posterior(40, 20) == s.posterior(40, 20)


def test_a_process_whose_signal_rises_is_refused():
    s = LinearNoiseScheduler(50)
    with pytest.raises(ValueError, match="must fall"):
        NoiseScheduler(s.alpha.flip(0), s.sigma.flip(0))


def test_a_process_whose_last_alpha_is_zero_but_for_rounding_is_refused():
    angle = math.pi / 2 * torch.linspace(0.01, 1, 50, dtype=torch.float64)
    assert 0 < float(angle.cos()[-1]) < 1e-15
    with pytest.raises(ValueError, match="make alpha exactly 0"):
        NoiseScheduler(angle.cos(), angle.sin())


# ---------------------------------------------------------------- cosine and sigmoid


def test_cosine_alpha_bar_is_eq_17():
    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    s = CosineNoiseScheduler(T)
    for t in range(T - 1):  # the last beta is capped
        assert float(s.alphas_cumprod[t]) == pytest.approx(f((t + 1) / T) / f(0), rel=1e-9)


def test_the_last_beta_of_cosine_is_capped():
    assert float(CosineNoiseScheduler(T).betas[-1]) == 0.999


def test_sigmoid_alpha_bar_is_symmetric_about_the_middle():
    # the part that is lost up to t is the part that is left at T - t
    s = SigmoidNoiseScheduler(T)
    torch.testing.assert_close(s.alphas_cumprod[: T - 1], 1 - s.alphas_cumprod[: T - 1].flip(0), rtol=1e-6, atol=1e-6)


def test_sigmoid_alpha_bar_is_a_half_in_the_middle():
    s = SigmoidNoiseScheduler(T)
    assert float(s.alphas_cumprod[T // 2 - 1]) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_timesteps", [2, 10, 1000])
def test_every_schedule_falls_and_leaves_no_signal(name, num_timesteps):
    s = make_scheduler(name, num_timesteps)
    assert s.num_timesteps == num_timesteps
    assert bool((s.signal.diff() < 0).all())
    assert s.signal_warning() is None


@pytest.mark.parametrize("name", PRESERVING)
@pytest.mark.parametrize("num_timesteps", [2, 10, 1000])
def test_betas_lie_between_0_and_1(name, num_timesteps):
    betas = make_scheduler(name, num_timesteps).betas
    assert bool(((betas > 0) & (betas < 1)).all())


@pytest.mark.parametrize("name", PRESERVING)
def test_alpha_and_sigma_preserve_the_variance(name):
    like = torch.zeros(100, 1, 2, 2, dtype=torch.float64)
    alpha, sigma = make_scheduler(name, 100).alpha_sigma(torch.arange(100), like)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(100, 1, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize("name", PRESERVING)
def test_log_snr_follows_from_alpha_bar(name):
    s = make_scheduler(name, 100)
    torch.testing.assert_close(s.log_snr, 0.5 * (s.alphas_cumprod / (1 - s.alphas_cumprod)).log())


# ---------------------------------------------------------------- some of the steps


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("T", [2, 10, 100, 1000])
def test_as_many_steps_as_asked_for_fall_from_the_last_to_the_first(name, spacing, T):
    scheduler = make_scheduler(name, T)
    noise = (scheduler.sigma / scheduler.alpha).tolist()
    first = next(t for t in range(T) if noise[t] >= NOISE_MIN) if SPACINGS[spacing].unbounded else 0
    for count in {2, 3, 5, 7, 10, 25, 50, 99, 100, 400, 999, 1000}:
        if count <= T:
            steps = spaced_timesteps(scheduler, count, spacing)
            assert len(steps) == count, count
            assert steps[0] == T - 1 and (steps[-1] == min(first, T - count) or SPACINGS[spacing].counts_clean)
            assert all(a > b for a, b in itertools.pairwise(steps)), count


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [2, 10, 100, 1000])
def test_without_a_number_of_steps_all_are_taken(name, T):
    assert spaced_timesteps(make_scheduler(name, T)) == list(range(T - 1, -1, -1))


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
@pytest.mark.parametrize("spacing", [name for name, row in SPACINGS.items() if row.unbounded])
def test_processes_of_any_length_are_sampled_at_the_same_noise(name, spacing):
    # sigma / alpha ends at 157, 20,291 and infinity, and begins at 0.010, 0.006 and 0.001
    scheduler = make_scheduler(name, 1000)
    steps = spaced_timesteps(scheduler, 12, spacing)
    noise = (scheduler.sigma / scheduler.alpha)[steps].numpy()
    assert steps[0] == 999 and noise[0] > 150 and 0.01 <= noise[-1] < 0.013
    power = 1 / 7 if spacing == "karras" else 1e-6  # as good as the logarithm
    wanted = np.linspace(20**power, noise[-1] ** power, 12) ** (1 / power)
    assert np.allclose(noise[1:-2], wanted[1:-2], rtol=0.06) and np.allclose(noise[-2:], wanted[-2:], rtol=0.3)


def test_steps_even_in_log_snr_are_the_nearest_ones_where_there_are_enough():
    scheduler = LinearNoiseScheduler(1000)
    log_snr, steps = scheduler.log_snr.numpy(), spaced_timesteps(scheduler, 10)
    top = int((scheduler.sigma <= 20 * scheduler.alpha).nonzero().max())
    wanted = np.linspace(log_snr[top], log_snr[0], 10)
    assert steps == [999, *[int(np.abs(log_snr - w).argmin()) for w in wanted[1:]]]


def test_steps_are_even_up_to_the_last_where_much_signal_is_left():
    scheduler = LinearNoiseScheduler(1000, 1e-4, 2e-3)  # sigma / alpha up to 1.3
    log_snr, steps = scheduler.log_snr.numpy(), spaced_timesteps(scheduler, 10)
    assert steps == [int(np.abs(log_snr - w).argmin()) for w in np.linspace(log_snr[-1], log_snr[0], 10)]


def test_missing_steps_are_filled_up_with_the_next_free_ones():
    # log-SNR 4, 2, 0.4, 0.36 .. 0: five even values are 4, 3, 2, 1, 0; nearest are t = 0, 0 or 1, 1, 2, the last
    log_snr = torch.tensor([4, 2, 0.4, *np.linspace(0.36, 0, 10)], dtype=torch.float64)
    scheduler = NoiseScheduler(log_snr.exp(), torch.ones(13))
    assert spaced_timesteps(scheduler, 5) == [12, 3, 2, 1, 0]


@pytest.mark.parametrize("count", [-1, 0, 101])
def test_too_many_or_too_few_chosen_steps_are_refused(count):
    with pytest.raises(ValueError, match=r"1\.\.100"):
        spaced_timesteps(LinearNoiseScheduler(100), count)


@pytest.mark.parametrize(
    ("name", "num_timesteps", "options", "words"),
    [
        ("cosin", 10, {}, "choose one of linear, scaled_linear, cosine, sigmoid, flow"),
        ("cosine", 10, {"beta_end": 0.1}, "schedule=cosine has its own noise"),
        ("cosine", 1, {"zero_snr": True}, "at least 2 steps"),
    ],
)
def test_schedules_by_name_refuse_what_they_do_not_have(name, num_timesteps, options, words):
    with pytest.raises(ValueError, match=words):
        make_scheduler(name, num_timesteps, **options)


@pytest.mark.parametrize("count", [2, 7, 25, 1000])
def test_even_steps_are_all_equally_long_up_to_rounding(count):
    steps = spaced_timesteps(CosineNoiseScheduler(1000), count, "even")
    assert steps[0] == 999 and steps[-1] == 0 and len(steps) == count
    lengths = {a - b for a, b in itertools.pairwise(steps)}
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("count", "expected"), [(2, [0, 10]), (3, [0, 5, 10]), (50, list(range(11)))])
def test_evenly_chosen_integers_hold_both_ends(count, expected):
    assert evenly_spaced(0, 10, count) == expected
    assert evenly_spaced(10, 0, count) == [10 - i for i in expected]
