"""Processes that end in pure noise: the flow, and schedules with zero terminal signal-to-noise ratio."""

import math

import pytest
import torch
from conftest import gaussian
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from torch import nn

from dataset import Normaliser, make_dataset
from diffusion import check_target, denoiser, exact_denoiser
from loss.objective import draw_steps, loss_weights, reference_batches, training_loss, weight_name
from metrics.likelihood import kl_from_exact
from pipeline import Pipeline
from points.mixture import GaussianMixture
from registry.process_rows import LOSS_WEIGHTS, SCHEDULES, TARGETS
from registry.sampler_rows import SamplingDefaults
from runtime.randomness import generator
from samplers import SAMPLERS, last, sample, sampler_timesteps
from samplers.ancestral import ddim, ddpm
from samplers.multistep import dpmpp_2m
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from schedule import CLEAN, FlowNoiseScheduler, NoiseScheduler, ScaledLinearNoiseScheduler, make_scheduler

T = 1000
FLOW = FlowNoiseScheduler(T)
COUNTS = {"ddpm": 200}  # sampling steps, where the default is not enough
SHAPES = {"points": (6, 2), "images": (3, 1, 8, 8)}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
ENDING_IN_NOISE = pytest.mark.parametrize(
    "scheduler", [FLOW, make_scheduler("cosine", T, zero_snr=True)], ids=["flow", "cosine, zero SNR"]
)


def network(x_t, t, label=None):
    """A smooth nonlinear network for any shape."""
    return (x_t.flip(-1) * (1 + float(t) / T)).tanh() - 0.3 * x_t


def normal(shape, name, dtype=torch.float64):
    return torch.randn(shape, generator=generator(0, name), dtype=dtype)


# ---------------------------------------------------------------- the processes


def test_the_flow_is_a_straight_line_from_data_to_noise():
    x_0, eps = normal((T, 2), "x_0"), normal((T, 2), "eps")
    s = (torch.arange(T) + 1)[:, None] / T
    torch.testing.assert_close(FLOW.add_noise(x_0, torch.arange(T), eps), x_0 + s * (eps - x_0))


def test_the_last_step_of_the_flow_is_the_noise_itself():
    x_0, eps = normal((T, 2), "x_0"), normal((T, 2), "eps")
    assert torch.equal(FLOW.add_noise(x_0, torch.tensor(T - 1), eps), eps)


def test_clean_data_of_the_flow_have_alpha_1_and_sigma_0():
    assert FLOW.alpha_sigma_at(CLEAN) == (1, 0)


def test_the_flow_leaves_no_signal_to_warn_about():
    assert FLOW.signal_warning() is None


every_schedule_with_betas = pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])


@every_schedule_with_betas
def test_betas_with_zero_snr_are_those_of_diffusers(name):
    before, after = make_scheduler(name, T), make_scheduler(name, T, zero_snr=True)
    theirs = rescale_zero_terminal_snr(before.betas)
    torch.testing.assert_close(after.betas, theirs, rtol=1e-12, atol=1e-15)


@every_schedule_with_betas
def test_zero_snr_makes_the_last_alpha_0_and_keeps_the_first(name):
    before, after = make_scheduler(name, T), make_scheduler(name, T, zero_snr=True)
    assert float(after.alpha[-1]) == 0
    assert float(after.alpha[0]) == pytest.approx(float(before.alpha[0]), rel=1e-14)


@every_schedule_with_betas
def test_a_schedule_with_zero_snr_preserves_the_variance(name):
    after = make_scheduler(name, T, zero_snr=True)
    torch.testing.assert_close(after.alpha**2 + after.sigma**2, torch.ones(T, dtype=torch.float64))


def test_scaled_linear_betas_are_those_of_diffusers():
    theirs = DDPMScheduler(T, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").betas
    ours = ScaledLinearNoiseScheduler(T, 0.00085, 0.012).betas
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-6, atol=1e-9)


def test_default_scaled_linear_betas_leave_next_to_no_signal():
    assert float(ScaledLinearNoiseScheduler(T).alpha[-1]) < 0.05


every_scheduler_without_final_signal = pytest.mark.parametrize(
    "scheduler", [make_scheduler("flow", 10), make_scheduler("cosine", 10, zero_snr=True)], ids=["flow", "cosine"]
)


@every_scheduler_without_final_signal
def test_the_target_eps_is_refused_without_a_final_signal(scheduler):
    with pytest.raises(ValueError, match="take model"):
        check_target(scheduler, "eps")


@every_scheduler_without_final_signal
def test_any_target_that_determines_no_x_0_is_refused_without_a_final_signal(scheduler, monkeypatch):
    monkeypatch.setitem(TARGETS, "score", TARGETS["eps"])
    with pytest.raises(ValueError, match="prediction=score cannot work"):
        check_target(scheduler, "score")


@every_scheduler_without_final_signal
@pytest.mark.parametrize("target", ["v", "x0", "velocity"])
def test_other_targets_give_finite_predictions_without_a_final_signal(scheduler, target):
    check_target(scheduler, target)
    prediction = denoiser(network, scheduler, target)(normal((5, 2), "x"), torch.tensor(9))
    assert bool(prediction.x_0.isfinite().all() and prediction.eps.isfinite().all())


@every_scheduler_without_final_signal
def test_the_default_loss_weight_without_a_final_signal_is_that_of_the_target(scheduler):
    assert weight_name(scheduler, None) == "target"


@every_scheduler_without_final_signal
def test_a_loss_weight_that_is_asked_for_is_kept_without_a_final_signal(scheduler):
    assert weight_name(scheduler, "eps") == "eps"


def test_the_default_loss_weight_with_a_final_signal_is_that_of_eps():
    assert weight_name(make_scheduler("cosine", 10), None) == "eps"


# ---------------------------------------------------------------- samplers against diffusers


@every_shape
@pytest.mark.parametrize("count", [5, 50])
def test_ddim_on_the_flow_is_the_euler_method_of_diffusers(shape, count):
    timesteps = spaced_timesteps(FLOW, count, "even")
    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=T)
    theirs.set_timesteps(sigmas=[(t + 1) / T for t in timesteps])
    x_T = normal(shape, "x_T", torch.float32)
    states = list(ddim(denoiser(network, FLOW, "velocity"), FLOW, x_T, timesteps=timesteps))
    x = x_T
    for t, clock, state in zip(timesteps, theirs.timesteps, states[1:], strict=True):
        x = theirs.step(network(x, t), clock, x).prev_sample
        assert float((state.x_t - x).norm() / x.norm()) < 1e-5


@every_shape
def test_ddim_on_the_flow_is_the_euler_method_in_float64(shape):
    timesteps, x = spaced_timesteps(FLOW, 20, "even"), normal(shape, "x_T")
    states = list(ddim(denoiser(network, FLOW, "velocity"), FLOW, x, timesteps=timesteps))
    for t, s, state in zip(timesteps, [*timesteps[1:], CLEAN], states[1:], strict=True):
        x = x + (s - t) / T * network(x, t)  # dx/ds = eps - x_0 (Lipman et al. 2023, eq. 23)
        torch.testing.assert_close(state.x_t, x, rtol=1e-9, atol=1e-12)


@every_shape
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "ddim with noise"])
def test_sampling_with_zero_snr_gives_the_states_of_diffusers(shape, kind, monkeypatch):
    draw = torch.randn  # Both libraries draw in float32, whatever the dtype.
    monkeypatch.setattr(torch, "randn", lambda *a, dtype=torch.float32, **k: draw(*a, **k).to(dtype))
    ours = make_scheduler("linear", T, zero_snr=True)
    count = 50
    timesteps = list(range(T - 1, 0, -T // count))
    options = {"trained_betas": ours.betas.tolist(), "prediction_type": "v_prediction", "clip_sample": False}
    theirs = (DDPMScheduler if kind == "ddpm" else DDIMScheduler)(T, timestep_spacing="trailing", **options)
    theirs.alphas_cumprod = ours.alphas_cumprod
    theirs.set_timesteps(count)
    assert theirs.timesteps.tolist() == timesteps
    eta = {} if kind == "ddpm" else {"eta": 0.0 if kind == "ddim" else 0.7}
    x_T = normal(shape, "x_T")
    sampler = ddpm if kind == "ddpm" else ddim
    g = generator(1, "noise")
    states = list(sampler(denoiser(network, ours, "v"), ours, x_T, timesteps=timesteps, generator=g, **eta))
    x = x_T
    g = generator(1, "noise")
    for t, state in zip(timesteps, states[1:], strict=True):
        x = theirs.step(network(x, t), t, x, generator=g, **eta).prev_sample
        assert float((state.x_t - x).norm() / x.norm()) < 1e-9


# ---------------------------------------------------------------- with the exact denoiser


@ENDING_IN_NOISE
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_reaches_a_gaussian(scheduler, name):
    # x_0 ~ N(m, 0.3^2). For 20,000 samples, 5 standard errors of the mean and of the deviation are 0.011 and 0.008.
    # The discretisation error is at most 0.03 (DDIM with 50 evaluations).
    m = torch.tensor([0.5, -1.0], dtype=torch.float64)
    width, n = 0.3, 20_000
    denoise = exact_denoiser(gaussian(m, width**2), scheduler)
    count = COUNTS.get(name)
    options = SamplingOptions(sampler=name, sampling_steps=count)
    x = last(sample(denoise, scheduler, normal((n, 2), "x_T"), options, generator=generator(1, "noise")))
    assert float((x.mean(0) - m).abs().max()) < 0.03
    assert float((x.std(0) - width).abs().max()) < 0.03


@ENDING_IN_NOISE
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_begins_at_the_last_step(scheduler, name):
    assert sampler_timesteps(scheduler, SamplingOptions(sampler=name, sampling_steps=COUNTS.get(name)))[0] == T - 1


@pytest.fixture
def flow_pipeline():
    """A pipeline of points with 20 coordinates on the flow; only its default options are of interest."""
    return Pipeline(nn.Linear(1, 1), FLOW, Normaliser(torch.zeros(20), torch.ones(20)), {})


def test_the_default_sampler_keeps_the_variance_of_sharp_data_on_the_flow(flow_pipeline):
    # The standard error of the variance of 200,000 numbers is 0.3 %. If the 50 steps were even over all 14 units of
    # log-SNR, the variance would be 3 % too large.
    options = flow_pipeline.resolve()
    exact = exact_denoiser(gaussian(torch.zeros(20), 0.08**2), FLOW)
    x = last(sample(exact, FLOW, normal((10_000, 20), "x_T"), options, generator=generator(1, "noise")))
    assert abs(float(x.var()) / 0.08**2 - 1) < 0.015


def test_the_default_sampler_takes_as_many_steps_without_a_pipeline(flow_pipeline):
    asked = flow_pipeline.resolve()
    assert len(sampler_timesteps(FLOW, SamplingOptions(sampler=asked.sampler))) == asked.sampling_steps


def test_a_pipeline_on_the_flow_takes_the_steps_that_are_asked_for(flow_pipeline):
    asked = flow_pipeline.resolve(defaults=SamplingDefaults("ddim", 25, 0.0))
    assert asked.sampling_steps == 25


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_a_process_and_its_scaled_version_have_the_same_paths(sampler):
    # Only alpha / sigma counts (Karras et al. 2022, eq. 4). x of the flow is r = sqrt(alpha^2 + sigma^2) times x of the
    # variance-preserving process.
    r = (FLOW.alpha**2 + FLOW.sigma**2).sqrt()
    preserving = NoiseScheduler(FLOW.alpha / r, FLOW.sigma / r)
    mixture = make_dataset("moons", 10, 0, noise=0.05).mixture
    x_T = normal((50, 2), "x_T")
    timesteps = spaced_timesteps(FLOW, 30)
    paths = [
        list(sampler(exact_denoiser(mixture, process), process, x_T, timesteps=timesteps))
        for process in (FLOW, preserving)
    ]
    for a, b in zip(*paths, strict=True):
        size = 1.0 if a.t == CLEAN else float(r[a.t])
        torch.testing.assert_close(a.x_t, size * b.x_t, rtol=1e-8, atol=1e-8)


@ENDING_IN_NOISE
def test_the_likelihood_of_the_exact_denoiser_is_exact(scheduler):
    # KL(exact || model) by the flow's ODE is 0 up to the error of Heun's rule over 400 steps and 4 standard errors.
    # Float32 adds 1e-4.
    mixture = GaussianMixture(torch.tensor([[1.0, 0.0], [-0.5, 0.8]], dtype=torch.float64), 0.09)
    x = mixture.noised(*scheduler.alpha_sigma_at(0)).sample(200, generator(0, "x"))
    value, error = kl_from_exact(
        exact_denoiser(mixture, scheduler), scheduler, mixture, x, spaced_timesteps(scheduler, 400)
    )
    assert abs(value) < 4 * error + 1e-3


# ---------------------------------------------------------------- velocity and v are one model


class SmallNetwork(nn.Module):
    """One hidden layer in float64, with a factor that depends on t."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 16, dtype=torch.float64)
        self.outer = nn.Linear(16, 2, dtype=torch.float64)

    def forward(self, x_t, t, label=None):
        return self.outer(self.inner(x_t).tanh() * (1 + t[:, None] / T))


@pytest.mark.parametrize("scheduler", [FLOW, make_scheduler("cosine", T)], ids=["flow", "cosine"])
@pytest.mark.parametrize("weight", ["eps", "v", "min_snr", "logit_normal"])
def test_velocity_and_v_with_matching_weights_are_the_same_model(scheduler, weight):
    # We read the output of one network as u, and through v = ((alpha - sigma) x_t + (alpha^2 + sigma^2) u) /
    # (alpha + sigma) as v. If the loss weights the same error, value and gradient agree in both readings.
    torch.manual_seed(0)
    net = SmallNetwork()
    t = torch.randint(T, (64,), generator=generator(0, "t"))
    x_0, eps = normal((64, 2), "x_0"), normal((64, 2), "eps")

    def as_v(x_t, t, label):
        alpha, sigma = scheduler.alpha_sigma(t, x_t)
        return ((alpha - sigma) * x_t + (alpha**2 + sigma**2) * net(x_t, t)) / (alpha + sigma)

    found = []
    for network, target in ((net, "velocity"), (as_v, "v")):
        net.zero_grad()
        weights = loss_weights(scheduler, target, weight)
        loss = training_loss(network, scheduler, x_0, t, eps, target=target, weights=weights).ordinary
        loss.mean().backward()
        prediction = denoiser(network, scheduler, target)(scheduler.add_noise(x_0, t, eps), t)
        found.append([loss, *(p.grad.clone() for p in net.parameters()), *prediction])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_logit_normal_weights_have_the_mean_1():
    assert float(loss_weights(FLOW, "velocity", "logit_normal").mean()) == pytest.approx(1, rel=1e-9)


def test_logit_normal_weights_give_the_mean_error_of_logit_normal_draws():
    # The mean of |u_hat - u|^2 over t = sigmoid(N(0, 1)) against the weighted mean over uniform t: 5 standard errors.
    weights = loss_weights(FLOW, "velocity", "logit_normal")
    n = 200_000
    error = torch.linspace(0, 1, T, dtype=torch.float64).square()  # the squared error of some network at each step
    drawn = (torch.randn(n, generator=generator(0, "z")).sigmoid() * T).long().clamp(max=T - 1)
    even = torch.randint(T, (n,), generator=generator(1, "t"))
    a, b = error[drawn], weights[even] * error[even]
    assert abs(float(a.mean() - b.mean())) < 5 * math.sqrt(float(a.var() + b.var()) / n)


# ---------------------------------------------------------------- all choices together


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gradients_are_finite_for_every_schedule_target_weight_and_draw_of_steps(schedule, zero_snr):
    scheduler = make_scheduler(schedule, 100, zero_snr=zero_snr)
    x_0, eps = normal((100, 2), "x_0"), normal((100, 2), "eps")
    net = SmallNetwork()
    for target in TARGETS:
        if target == "eps" and float(scheduler.alpha[-1]) == 0:
            continue  # This target is refused, as tested above.
        for weight in (None, *LOSS_WEIGHTS):
            for t in (torch.arange(100), draw_steps(100, 100, 1.6, generator(0, "t"))):
                net.zero_grad()
                weights = loss_weights(scheduler, target, weight)
                options = {"target": target, "weights": weights, "references": reference_batches(x_0, None, 32)}
                training_loss(net, scheduler, x_0, t, eps, **options).stable.mean().backward()
                assert all(bool(p.grad.isfinite().all()) for p in net.parameters()), (target, weight)
