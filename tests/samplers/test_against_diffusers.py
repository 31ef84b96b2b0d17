"""The forward process and the samplers against Hugging Face's diffusers: same x_T, network and noise, same states.

diffusers keeps betas and alpha-bar in float32, where 1 - alpha-bar has lost four digits at t = 0: its own float32 is
off by up to 5e-4. So the reference is diffusers' formulas in float64, with alpha-bar in float64 too. From it, at every
state and guess, our float64 may differ by 1e-9 (5e-10 seen, as they clamp a variance of 0 to 1e-20) and our float32 by
1e-5 (2e-6 seen); the two float32 runs by 1e-5 from each other, or by 1.5 times the error of theirs where that is more.
"""

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

from diffusion import TARGETS, denoiser, within_range
from runtime.randomness import generator
from samplers.ancestral import ddim, ddpm
from samplers.heun import heun
from samplers.multistep import dpmpp, unipc
from samplers.spacing import spaced_timesteps
from schedule import CosineNoiseScheduler, LinearNoiseScheduler

T = 1000
OURS = {"linear": LinearNoiseScheduler(T), "cosine": CosineNoiseScheduler(T)}
THEIRS = {"linear": {"trained_betas": OURS["linear"].betas.tolist()}, "cosine": {"beta_schedule": "squaredcos_cap_v2"}}
NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SHAPES = {"points": (6, 2), "images": (3, 1, 8, 8)}
SINGLE, DOUBLE = torch.float32, torch.float64

every_schedule = pytest.mark.parametrize("schedule", OURS)
every_target = pytest.mark.parametrize("target", NAMES)  # what they know; of velocity see test_flow.py
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.fixture(autouse=True)
def noise_of_float32(monkeypatch):
    """torch.randn draws in float32, for us and for them, so that float64 runs see the noise of the float32 runs."""
    draw = torch.randn

    def widened(*shape, dtype=SINGLE, **options):
        return draw(*shape, dtype=SINGLE, **options).to(dtype)

    monkeypatch.setattr(torch, "randn", widened)


class Run(NamedTuple):
    """x_t before the first step, and after each; the x_0 guess at each."""

    x_t: list[Tensor]
    x_0: list[Tensor]


def network(shape, dtype):
    """A smooth nonlinear network, the same whenever asked for: x_t (B, *dims), t () -> (B, *dims)."""
    g, d = torch.Generator().manual_seed(0), torch.Size(shape[1:]).numel()
    inner, outer = torch.randn(d + 1, 32, generator=g) / d**0.5, torch.randn(32, d, generator=g) / 32**0.5
    inner, outer = inner.to(dtype), outer.to(dtype)

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
    denoise = within_range(denoise, scheduler) if inside else denoise
    noise = generator(1, "noise")
    states = list(sampler(denoise, scheduler, x_T(shape, dtype), timesteps=timesteps, generator=noise, **options))
    return Run([s.x_t for s in states], [s.x_0 for s in states[:-1]])


def scheduler_of_theirs(kind, schedule, target, dtype, **options):
    theirs = kind(num_train_timesteps=T, **THEIRS[schedule], prediction_type=NAMES[target], **options)
    if dtype == DOUBLE:
        theirs.alphas_cumprod = OURS[schedule].alphas_cumprod
    return theirs


def run_theirs(theirs, shape, dtype, **options):
    """The loop of their pipelines. DDPM and DDIM compute in the dtype of x and alpha-bar."""
    predict, states, guesses = network(shape, dtype), [x_T(shape, dtype)], []
    options["generator"] = generator(1, "noise")
    for t in theirs.timesteps:
        x, x_0 = theirs.step(predict(states[-1], t), int(t), states[-1], return_dict=False, **options)
        states.append(x)
        guesses.append(x_0)
    return Run(states, guesses)


def noise_levels(schedule, timesteps, dtype, repeat=1):
    """Their `sigmas`, sigma / alpha at these steps and 0 at clean data; the inner ones `repeat` times, as for Heun."""
    alpha_bar = OURS[schedule].alphas_cumprod.to(dtype)[timesteps]
    first, *others = ((1 - alpha_bar) / alpha_bar).sqrt().split(1)
    return torch.cat([first, *[s for s in others for _ in range(repeat)], torch.zeros(1, dtype=dtype)])


def run_their_solver(theirs, shape, dtype, order=2):
    """The same of DPM-Solver++. Its `step` computes in float32: float64 asks for the updates inside it."""
    predict, states, guesses, g = network(shape, dtype), [x_T(shape, dtype)], [], generator(1, "noise")
    for i, t in enumerate(theirs.timesteps):
        x = states[-1]
        noise = torch.randn(shape, generator=g, dtype=dtype) if "sde" in theirs.config.algorithm_type else None
        if dtype == SINGLE:
            states.append(theirs.step(predict(x, t), t, x, variance_noise=noise).prev_sample)
            guesses.append(theirs.model_outputs[-1])
            continue
        theirs._step_index = i
        guesses.append(theirs.convert_model_output(predict(x, t), sample=x))
        if i in (0, len(theirs.timesteps) - 1):
            states.append(theirs.dpm_solver_first_order_update(guesses[-1], sample=x, noise=noise))
        elif i == 1 or order == 2:
            states.append(theirs.multistep_dpm_solver_second_order_update(guesses, sample=x, noise=noise))
        else:
            states.append(theirs.multistep_dpm_solver_third_order_update(guesses, sample=x, noise=noise))
    return Run(states, guesses)


def far(a, b):
    """The largest relative difference of two runs, over their states and guesses."""
    pairs = [*zip(a.x_t, b.x_t, strict=True), *zip(a.x_0, b.x_0, strict=True)]
    return max(float((x.double() - y).norm() / y.double().norm()) for x, y in pairs)


def check(ours, theirs):
    """Both are functions of the dtype; what is asked, and why, stands at the top of this file."""
    truth, single, their_single = theirs(DOUBLE), ours(SINGLE), theirs(SINGLE)
    assert all(x.dtype == SINGLE for x in single.x_t + single.x_0)
    assert far(ours(DOUBLE), truth) < 1e-9
    assert far(single, truth) < 1e-5
    assert far(single, their_single) < max(1e-5, 1.5 * far(their_single, truth))


# ---------------------------------------------------------------- the tests


@every_schedule
@every_target
@every_shape
@pytest.mark.parametrize(("variance", "count"), [("fixed_small", 25), ("fixed_small", T), ("fixed_large", 25)])
def test_ddpm(schedule, target, shape, variance, count):
    timesteps = spaced_timesteps(OURS[schedule], count, "even")

    def theirs(dtype):
        options = {"clip_sample": False, "variance_type": variance}
        scheduler = scheduler_of_theirs(DDPMScheduler, schedule, target, dtype, **options)
        scheduler.set_timesteps(timesteps=timesteps)
        return run_theirs(scheduler, shape, dtype)

    check(lambda dtype: run_ours(ddpm, schedule, target, shape, dtype, timesteps, variance=variance), theirs)


@every_schedule
@every_target
@every_shape
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(schedule, target, shape, eta):
    timesteps = list(range(T - 1, 0, -20))  # those of their "trailing" spacing

    def theirs(dtype):
        options = {"clip_sample": False, "timestep_spacing": "trailing"}
        scheduler = scheduler_of_theirs(DDIMScheduler, schedule, target, dtype, **options)
        scheduler.set_timesteps(50)
        assert scheduler.timesteps.tolist() == timesteps
        return run_theirs(scheduler, shape, dtype, eta=eta)

    check(lambda dtype: run_ours(ddim, schedule, target, shape, dtype, timesteps, eta=eta), theirs)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of theirs, from NumPy 2
@every_schedule
@every_target
@every_shape
@pytest.mark.parametrize(
    ("kind", "count"), [("2m", 3), ("2m", 10), ("2m", 20), ("3m", 4), ("3m", 20), ("2m sde", 3), ("2m sde", 20)]
)
def test_dpmpp(schedule, target, shape, kind, count):
    timesteps, order, sde = spaced_timesteps(OURS[schedule], count), int(kind[0]), "sde" in kind

    def theirs(dtype):
        options = {"algorithm_type": "sde-dpmsolver++" if sde else "dpmsolver++", "solver_order": order}
        options |= {
            "solver_type": "midpoint",
            "lower_order_final": False,
        }  # ours lowers it at the very last stride only
        scheduler = scheduler_of_theirs(DPMSolverMultistepScheduler, schedule, target, dtype, **options)
        scheduler.set_timesteps(timesteps=timesteps)
        if dtype == DOUBLE:
            scheduler.sigmas = noise_levels(schedule, timesteps, dtype)
        return run_their_solver(scheduler, shape, dtype, order)

    options = {"order": order, "stochastic": sde}
    check(lambda dtype: run_ours(dpmpp, schedule, target, shape, dtype, timesteps, **options), theirs)


@every_schedule
@every_target
@every_shape
@pytest.mark.parametrize(("order", "count"), [(3, 3), (3, 12), (2, 12)])
def test_unipc(schedule, target, shape, order, count):
    timesteps = spaced_timesteps(OURS[schedule], count)

    def theirs(dtype):
        options = {"solver_order": order, "solver_type": "bh2", "lower_order_final": True}
        scheduler = scheduler_of_theirs(UniPCMultistepScheduler, schedule, target, dtype, **options)
        scheduler.set_timesteps(count)
        scheduler.timesteps, scheduler.sigmas = torch.tensor(timesteps), noise_levels(schedule, timesteps, dtype)
        predict, states, guesses = network(shape, dtype), [x_T(shape, dtype)], []
        for t in timesteps:
            x = states[-1]
            states.append(scheduler.step(predict(x, torch.tensor(t)), t, x).prev_sample)
            guesses.append(scheduler.model_outputs[-1])
        return Run(states, guesses)

    check(lambda dtype: run_ours(unipc, schedule, target, shape, dtype, timesteps, order=order), theirs)


@every_schedule
@every_target
@every_shape
@pytest.mark.parametrize("count", [4, 20])
def test_heun(schedule, target, shape, count):
    timesteps = spaced_timesteps(OURS[schedule], count + 1, "karras")[
        1:
    ]  # from T-1 ours is Euler's, see heun.corrected

    def theirs(dtype):
        """They move x / alpha, and count Euler's step and its correction as two."""
        scheduler = scheduler_of_theirs(HeunDiscreteScheduler, schedule, target, dtype)
        scheduler.set_timesteps(timesteps=timesteps)
        scheduler.sigmas = noise_levels(schedule, timesteps, dtype, repeat=2)
        alpha = 1 / (scheduler.sigmas**2 + 1).sqrt()
        predict, states, guesses = network(shape, dtype), [x_T(shape, dtype)], []
        y = states[0] / alpha[0]
        for i, t in enumerate(scheduler.timesteps):
            y, x_0 = scheduler.step(predict(alpha[i] * y, t.to(dtype)), t, y, return_dict=False)
            if i % 2 == 0:
                guesses.append(x_0)
            if i % 2 or i == len(scheduler.timesteps) - 1:
                states.append(alpha[i + 1] * y)
        return Run(states, guesses)

    check(lambda dtype: run_ours(heun, schedule, target, shape, dtype, timesteps), theirs)


@every_schedule
@every_target
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "ddim with noise"])
def test_guesses_of_images_are_clipped_as_theirs_are(schedule, target, kind):
    timesteps, shape, options = list(range(T - 1, 0, -20)), SHAPES["images"], {}
    if kind != "ddpm":
        options = {"eta": 0.0 if kind == "ddim" else 1.0}

    def theirs(dtype):
        if kind == "ddpm":
            scheduler = scheduler_of_theirs(DDPMScheduler, schedule, target, dtype, clip_sample=True)
            scheduler.set_timesteps(timesteps=timesteps)
            return run_theirs(scheduler, shape, dtype)
        their_options = {"clip_sample": True, "timestep_spacing": "trailing"}
        scheduler = scheduler_of_theirs(DDIMScheduler, schedule, target, dtype, **their_options)
        scheduler.set_timesteps(50)
        return run_theirs(scheduler, shape, dtype, use_clipped_model_output=True, **options)

    sampler = ddpm if kind == "ddpm" else ddim
    clipped = sum(bool((x_0.abs() == 1).any()) for x_0 in theirs(SINGLE).x_0)
    assert clipped > 5  # states: else nothing is tested here
    check(lambda dtype: run_ours(sampler, schedule, target, shape, dtype, timesteps, inside=True, **options), theirs)


@every_schedule
def test_betas_are_theirs(schedule):
    theirs = DDPMScheduler(T, beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[schedule])
    torch.testing.assert_close(OURS[schedule].betas.float(), theirs.betas, rtol=1e-6, atol=1e-8)


@every_schedule
@every_shape
@pytest.mark.parametrize(("dtype", "near"), [(SINGLE, 1e-5), (DOUBLE, 1e-12)])
def test_noised_data_and_velocity(schedule, shape, dtype, near):
    # alpha-bar in float64 for both: theirs is rounded to x's dtype before 1 - alpha-bar, ours after it
    g, scheduler = generator(0, "test"), OURS[schedule]
    theirs = scheduler_of_theirs(DDPMScheduler, schedule, "v", DOUBLE)
    for t in (0, 1, 20, 500, T - 1):
        x_0, eps = (torch.randn(shape, generator=g, dtype=dtype) for _ in range(2))
        each = torch.full(shape[:1], t)
        v = TARGETS["v"].of(x_0, eps, *scheduler.alpha_sigma(each, x_0))
        for a, b in [
            (scheduler.add_noise(x_0, each, eps), theirs.add_noise(x_0, eps, each)),
            (v, theirs.get_velocity(x_0, eps, each)),
        ]:
            assert a.dtype == dtype
            assert float((a - b).norm() / b.norm()) < near, t
