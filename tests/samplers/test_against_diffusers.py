"""The forward process and the samplers give the states of Hugging Face's diffusers, from the same x_T and noise.

diffusers keeps betas and alpha_bar in float32, where 1 - alpha_bar has lost four digits at t = 0. Its float32 results
are therefore off by up to 5e-4. The reference here is diffusers' formulas in float64, with alpha_bar in float64 too.

Tolerances, at every state and every prediction of x_0:

* Our float64 may differ from the reference by 1e-9. We saw 5e-10, because diffusers clamps a variance of 0 to 1e-20.
* Our float32 may differ from the reference by 1e-5. We saw 2e-6.
* Our float32 may differ from diffusers' float32 by 1e-5, or by 1.5 times the error of theirs if that is larger.
"""

from itertools import product
from typing import NamedTuple

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from diffusion import clamped_denoiser, denoiser, prediction_target
from runtime.randomness import generator
from samplers.ancestral import ddim, ddpm
from samplers.heun import heun
from samplers.multistep import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, unipc
from samplers.spacing import spaced_timesteps
from schedule import CosineNoiseScheduler, LinearNoiseScheduler

T = 1000
OURS = {"linear": LinearNoiseScheduler(T), "cosine": CosineNoiseScheduler(T)}
THEIRS = {"linear": {"trained_betas": OURS["linear"].betas.tolist()}, "cosine": {"beta_schedule": "squaredcos_cap_v2"}}
NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SHAPES = {"points": (6, 2), "images": (3, 1, 8, 8)}
SINGLE, DOUBLE = torch.float32, torch.float64

# The four of the twelve combinations that `python -m pytest` runs: each schedule, target and shape occurs.
QUICK = {
    ("linear", "eps", "points"),
    ("cosine", "eps", "images"),
    ("cosine", "v", "images"),
    ("linear", "x0", "images"),
}


def every_combination(*shapes):
    """Parametrise a test by schedule, prediction target and shape. Those that are not in QUICK are slow.

    diffusers does not know the target `velocity`; test_flow.py covers it.
    """
    cases = []
    for combination in product(OURS, NAMES, shapes):
        schedule, target, shape = combination
        marks = () if combination in QUICK else pytest.mark.slow
        cases.append(pytest.param(schedule, target, SHAPES[shape], id="-".join(combination), marks=marks))
    return pytest.mark.parametrize(("schedule", "target", "shape"), cases)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


# diffusers converts tensors by an interface that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def float32_noise(monkeypatch):
    """Let torch.randn draw in float32 for both libraries, so that float64 runs see the noise of the float32 runs."""
    draw = torch.randn

    def widened(*shape, dtype=SINGLE, **options):
        return draw(*shape, dtype=SINGLE, **options).to(dtype)

    monkeypatch.setattr(torch, "randn", widened)


class Run(NamedTuple):
    """x_t before the first step and after each step, and the prediction of x_0 at each step."""

    x_t: list[Tensor]
    x_0: list[Tensor]


def network(shape, dtype):
    """A smooth nonlinear network, always the same: x_t (B, *dims), t () -> (B, *dims)."""
    g = torch.Generator().manual_seed(0)
    d = torch.Size(shape[1:]).numel()
    inner = (torch.randn(d + 1, 32, generator=g) / d**0.5).to(dtype)
    outer = (torch.randn(32, d, generator=g) / 32**0.5).to(dtype)

    def predict(x_t, t, label=None):
        assert x_t.dtype == dtype
        features = torch.cat([x_t.flatten(1), (3 * t.to(dtype) / T).expand(len(x_t), 1)], 1)
        return ((features @ inner).tanh() @ outer).reshape(x_t.shape)

    return predict


def x_T(shape, dtype):
    return torch.randn(shape, generator=generator(0, "x_T"), dtype=dtype)


def run_ours(sampler, schedule, target, shape, dtype, timesteps, inside=False, **options):
    scheduler = OURS[schedule]
    denoise = denoiser(network(shape, dtype), scheduler, target)
    denoise = clamped_denoiser(denoise, scheduler) if inside else denoise
    noise = generator(1, "noise")
    states = list(sampler(denoise, scheduler, x_T(shape, dtype), timesteps=timesteps, generator=noise, **options))
    return Run([s.x_t for s in states], [s.x_0 for s in states[:-1]])


def scheduler_of_theirs(kind, schedule, target, dtype, **options):
    theirs = kind(num_train_timesteps=T, **THEIRS[schedule], prediction_type=NAMES[target], **options)
    if dtype == DOUBLE:
        theirs.alphas_cumprod = OURS[schedule].alphas_cumprod
    return theirs


def run_theirs(theirs, shape, dtype, **options):
    """The loop of diffusers' pipelines. Its DDPM and DDIM compute in the dtype of x and alpha_bar."""
    predict = network(shape, dtype)
    states = [x_T(shape, dtype)]
    predictions = []
    options["generator"] = generator(1, "noise")
    for t in theirs.timesteps:
        x, x_0 = theirs.step(predict(states[-1], t), int(t), states[-1], return_dict=False, **options)
        states.append(x)
        predictions.append(x_0)
    return Run(states, predictions)


def noise_levels(schedule, timesteps, dtype, repeat=1):
    """diffusers' `sigmas`: sigma / alpha at these steps, then 0 for clean data.

    `repeat` is how often each level after the first occurs; diffusers' Heun needs 2.
    """
    alpha_bar = OURS[schedule].alphas_cumprod.to(dtype)[timesteps]
    first, *others = ((1 - alpha_bar) / alpha_bar).sqrt().split(1)
    return torch.cat([first, *[s for s in others for _ in range(repeat)], torch.zeros(1, dtype=dtype)])


def run_their_solver(theirs, shape, dtype, order=2):
    """The loop for DPM-Solver++. Its `step` computes in float32, so in float64 we call the updates inside it."""
    predict = network(shape, dtype)
    states = [x_T(shape, dtype)]
    predictions = []
    g = generator(1, "noise")
    for i, t in enumerate(theirs.timesteps):
        x = states[-1]
        noise = torch.randn(shape, generator=g, dtype=dtype) if "sde" in theirs.config.algorithm_type else None
        if dtype == SINGLE:
            states.append(theirs.step(predict(x, t), t, x, variance_noise=noise).prev_sample)
            predictions.append(theirs.model_outputs[-1])
            continue
        theirs._step_index = i
        predictions.append(theirs.convert_model_output(predict(x, t), sample=x))
        if i in (0, len(theirs.timesteps) - 1):
            states.append(theirs.dpm_solver_first_order_update(predictions[-1], sample=x, noise=noise))
        elif i == 1 or order == 2:
            states.append(theirs.multistep_dpm_solver_second_order_update(predictions, sample=x, noise=noise))
        else:
            states.append(theirs.multistep_dpm_solver_third_order_update(predictions, sample=x, noise=noise))
    return Run(states, predictions)


def far(a, b):
    """The largest relative difference between two runs, over all states and predictions."""
    pairs = [*zip(a.x_t, b.x_t, strict=True), *zip(a.x_0, b.x_0, strict=True)]
    return max(float((x.double() - y).norm() / y.double().norm()) for x, y in pairs)


def check(ours, theirs):
    """Compare two functions that make a run from a dtype. The top of this file explains the tolerances."""
    truth, single, their_single = theirs(DOUBLE), ours(SINGLE), theirs(SINGLE)
    assert all(x.dtype == SINGLE for x in single.x_t + single.x_0)
    assert far(ours(DOUBLE), truth) < 1e-9
    assert far(single, truth) < 1e-5
    assert far(single, their_single) < max(1e-5, 1.5 * far(their_single, truth))


# ---------------------------------------------------------------- the tests


@every_combination(*SHAPES)
@pytest.mark.parametrize(("variance", "count"), [("fixed_small", 25), slow("fixed_small", T), ("fixed_large", 25)])
def test_ddpm_gives_the_states_of_diffusers(schedule, target, shape, variance, count):
    timesteps = spaced_timesteps(OURS[schedule], count, "even")

    def theirs(dtype):
        options = {"clip_sample": False, "variance_type": variance}
        scheduler = scheduler_of_theirs(DDPMScheduler, schedule, target, dtype, **options)
        scheduler.set_timesteps(timesteps=timesteps)
        return run_theirs(scheduler, shape, dtype)

    check(lambda dtype: run_ours(ddpm, schedule, target, shape, dtype, timesteps, variance=variance), theirs)


@every_combination(*SHAPES)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_gives_the_states_of_diffusers(schedule, target, shape, eta):
    timesteps = list(range(T - 1, 0, -20))  # diffusers' spacing "trailing"

    def theirs(dtype):
        options = {"clip_sample": False, "timestep_spacing": "trailing"}
        scheduler = scheduler_of_theirs(DDIMScheduler, schedule, target, dtype, **options)
        scheduler.set_timesteps(50)
        assert scheduler.timesteps.tolist() == timesteps
        return run_theirs(scheduler, shape, dtype, eta=eta)

    check(lambda dtype: run_ours(ddim, schedule, target, shape, dtype, timesteps, eta=eta), theirs)


@every_combination(*SHAPES)
@pytest.mark.parametrize(
    ("kind", "count"),
    [("2m", 3), ("2m", 10), slow("2m", 20), ("3m", 4), ("3m", 20), ("2m sde", 3), ("2m sde", 20)],
)
def test_dpm_solver_gives_the_states_of_diffusers(schedule, target, shape, kind, count):
    timesteps, order, sde = spaced_timesteps(OURS[schedule], count), int(kind[0]), "sde" in kind

    def theirs(dtype):
        options = {"algorithm_type": "sde-dpmsolver++" if sde else "dpmsolver++", "solver_order": order}
        # Our sampler lowers the order at the very last step only.
        options |= {"solver_type": "midpoint", "lower_order_final": False}
        scheduler = scheduler_of_theirs(DPMSolverMultistepScheduler, schedule, target, dtype, **options)
        scheduler.set_timesteps(timesteps=timesteps)
        if dtype == DOUBLE:
            scheduler.sigmas = noise_levels(schedule, timesteps, dtype)
        return run_their_solver(scheduler, shape, dtype, order)

    ours = {"2m": dpmpp_2m, "3m": dpmpp_3m, "2m sde": dpmpp_2m_sde}[kind]
    options = {"draw": False} if sde else {}
    check(lambda dtype: run_ours(ours, schedule, target, shape, dtype, timesteps, **options), theirs)


@every_combination(*SHAPES)
@pytest.mark.parametrize(("order", "count"), [(3, 3), (3, 12), (2, 12)])
def test_unipc_gives_the_states_of_diffusers(schedule, target, shape, order, count):
    timesteps = spaced_timesteps(OURS[schedule], count)

    def theirs(dtype):
        options = {"solver_order": order, "solver_type": "bh2", "lower_order_final": True}
        scheduler = scheduler_of_theirs(UniPCMultistepScheduler, schedule, target, dtype, **options)
        scheduler.set_timesteps(count)
        scheduler.timesteps = torch.tensor(timesteps)
        scheduler.sigmas = noise_levels(schedule, timesteps, dtype)
        predict = network(shape, dtype)
        states = [x_T(shape, dtype)]
        predictions = []
        for t in timesteps:
            x = states[-1]
            states.append(scheduler.step(predict(x, torch.tensor(t)), t, x).prev_sample)
            predictions.append(scheduler.model_outputs[-1])
        return Run(states, predictions)

    check(lambda dtype: run_ours(unipc, schedule, target, shape, dtype, timesteps, order=order), theirs)


@every_combination(*SHAPES)
@pytest.mark.parametrize("count", [4, 20])
def test_heun_gives_the_states_of_diffusers(schedule, target, shape, count):
    # From T-1 our Heun takes an Euler step (see heun.is_corrected), so the comparison begins after it.
    timesteps = spaced_timesteps(OURS[schedule], count + 1, "karras")[1:]

    def theirs(dtype):
        """diffusers moves x / alpha, and counts Euler's step and its correction as two."""
        scheduler = scheduler_of_theirs(HeunDiscreteScheduler, schedule, target, dtype)
        scheduler.set_timesteps(timesteps=timesteps)
        scheduler.sigmas = noise_levels(schedule, timesteps, dtype, repeat=2)
        alpha = 1 / (scheduler.sigmas**2 + 1).sqrt()
        predict = network(shape, dtype)
        states = [x_T(shape, dtype)]
        predictions = []
        y = states[0] / alpha[0]
        for i, t in enumerate(scheduler.timesteps):
            y, x_0 = scheduler.step(predict(alpha[i] * y, t.to(dtype)), t, y, return_dict=False)
            if i % 2 == 0:
                predictions.append(x_0)
            if i % 2 or i == len(scheduler.timesteps) - 1:
                states.append(alpha[i + 1] * y)
        return Run(states, predictions)

    check(lambda dtype: run_ours(heun, schedule, target, shape, dtype, timesteps), theirs)


def clipping_runs(schedule, target, kind):
    """Our run and diffusers' run, as functions of the dtype, of images whose predictions are clipped to -1 .. 1."""
    timesteps = list(range(T - 1, 0, -20))
    shape = SHAPES["images"]
    options = {"ddpm": {}, "ddim": {"eta": 0.0}, "ddim with noise": {"eta": 1.0}}[kind]

    def theirs(dtype):
        if kind == "ddpm":
            scheduler = scheduler_of_theirs(DDPMScheduler, schedule, target, dtype, clip_sample=True)
            scheduler.set_timesteps(timesteps=timesteps)
            return run_theirs(scheduler, shape, dtype)
        their_options = {"clip_sample": True, "timestep_spacing": "trailing"}
        scheduler = scheduler_of_theirs(DDIMScheduler, schedule, target, dtype, **their_options)
        scheduler.set_timesteps(50)
        return run_theirs(scheduler, shape, dtype, use_clipped_model_output=True, **options)

    def ours(dtype):
        sampler = ddpm if kind == "ddpm" else ddim
        return run_ours(sampler, schedule, target, shape, dtype, timesteps, inside=True, **options)

    return ours, theirs


@every_combination("images")
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "ddim with noise"])
def test_predictions_of_images_are_clipped_as_in_diffusers(schedule, target, shape, kind):
    ours, theirs = clipping_runs(schedule, target, kind)
    clipped = sum(bool((x_0.abs() == 1).any()) for x_0 in theirs(SINGLE).x_0)
    assert clipped > 5  # states: with fewer, this comparison would test nothing
    check(ours, theirs)


@pytest.mark.parametrize("schedule", OURS)
def test_betas_are_those_of_diffusers(schedule):
    theirs = DDPMScheduler(T, beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[schedule])
    torch.testing.assert_close(OURS[schedule].betas.float(), theirs.betas, rtol=1e-6, atol=1e-8)


def every_forward_process(test):
    """Parametrise a test by schedule, shape, and dtype with its tolerance."""
    for parameters in [
        pytest.mark.parametrize("schedule", OURS),
        pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES),
        pytest.mark.parametrize(("dtype", "tolerance"), [(SINGLE, 1e-5), (DOUBLE, 1e-12)]),
    ]:
        test = parameters(test)
    return test


def noising_cases(schedule, shape, dtype):
    """Yield the schedulers of both libraries, x_0, eps and t (B,), for five steps t.

    alpha_bar is float64 in both schedulers. diffusers rounds it to x's dtype before it computes 1 - alpha_bar; we
    round after that.
    """
    g = generator(0, "test")
    theirs = scheduler_of_theirs(DDPMScheduler, schedule, "v", DOUBLE)
    for t in (0, 1, 20, 500, T - 1):
        x_0 = torch.randn(shape, generator=g, dtype=dtype)
        eps = torch.randn(shape, generator=g, dtype=dtype)
        yield OURS[schedule], theirs, x_0, eps, torch.full(shape[:1], t)


def assert_close(ours, theirs, dtype, tolerance):
    assert ours.dtype == dtype
    assert float((ours - theirs).norm() / theirs.norm()) < tolerance


@every_forward_process
def test_noised_data_are_those_of_diffusers(schedule, shape, dtype, tolerance):
    for scheduler, theirs, x_0, eps, t in noising_cases(schedule, shape, dtype):
        assert_close(scheduler.add_noise(x_0, t, eps), theirs.add_noise(x_0, eps, t), dtype, tolerance)


@every_forward_process
def test_v_is_the_velocity_of_diffusers(schedule, shape, dtype, tolerance):
    for scheduler, theirs, x_0, eps, t in noising_cases(schedule, shape, dtype):
        v = prediction_target("v").value(x_0, eps, *scheduler.alpha_sigma(t, x_0))
        assert_close(v, theirs.get_velocity(x_0, eps, t), dtype, tolerance)
