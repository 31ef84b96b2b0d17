"""Heun's method (Karras et al. 2022, arXiv 2206.00364): second order, two evaluations a step, with or without noise.

The paper states it for y = x / alpha and its noise sigma / alpha, in which dy / d(sigma / alpha) = eps (eq. 4).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion import Denoiser
from runtime.arrays import floats
from samplers.spacing import NOISE_MAX
from samplers.steps import State, as_t, noise_like, transitions
from schedule import CLEAN, NoiseScheduler

CHURN = 5  # S_churn of heun_sde
GAMMA_MAX = math.sqrt(2) - 1  # the paper's bound on gamma


@torch.no_grad()
def heun(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    churn: float = 0.0,
) -> Iterator[State]:
    """Algorithm 1 of Karras et al.; with churn > 0 algorithm 2, which adds noise before each step and removes it again.

    An Euler step leads from t to s. A second evaluation at s corrects it: the mean of both eps replaces the first.
    The last step, to clean data, takes one evaluation: 2 len(timesteps) - 1 in all. A step from far above the data is
    an Euler step, too (`is_corrected`), which makes 2 len(timesteps) - 2.

    churn is S_churn: sigma / alpha grows by the factor 1 + min(churn / steps, sqrt(2) - 1), rounded to a step of the
    process.
    """
    x = floats(x_T, "x_T")
    steps = list(transitions(scheduler, timesteps))
    gamma = min(churn / len(steps), GAMMA_MAX)
    for t, s in steps:
        corrected = is_corrected(scheduler, t, s)
        t, x = _churned(scheduler, x, t, gamma, generator)

        eps, x_0 = denoise(x, as_t(t, x))
        yield State(t, x, x_0)
        alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
        x = alpha_s * x_0 + sigma_s * eps
        if corrected:
            eps_s = denoise(x, as_t(s, x)).eps
            x = x + _half_length(scheduler, t, s) * (eps_s - eps)
    yield State(CLEAN, x, x)


def heun_sde(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Heun's method with fresh noise: algorithm 2 of Karras et al. with S_churn = 5 (see `heun`)."""
    return heun(denoise, scheduler, x_T, timesteps=timesteps, generator=generator, churn=CHURN)


def is_corrected(scheduler: NoiseScheduler, t: int, s: int) -> bool:
    """Whether Heun's rule applies to the transition from t to s.

    It does not apply to the last one, nor from a noise level sigma / alpha above 20. From there eps hardly changes, and
    the rule would multiply that change by half of a step that is hundreds long, or infinite.
    """
    alpha, sigma = scheduler.alpha_sigma_at(t)
    return s != CLEAN and sigma <= NOISE_MAX * alpha


def _half_length(scheduler: NoiseScheduler, t: int, s: int) -> float:
    """Half of alpha_s (sigma_s / alpha_s - sigma_t / alpha_t), by which x_s moves with eps."""
    alpha_t, sigma_t = scheduler.alpha_sigma_at(t)
    alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
    return (sigma_s - sigma_t * alpha_s / alpha_t) / 2


def _churned(
    scheduler: NoiseScheduler,
    x: Tensor,
    t: int,
    gamma: float,
    generator: torch.Generator | None,
) -> tuple[int, Tensor]:
    """The step to which churn leads back from t, and x_t = x with the noise that leads there."""
    churned = _churned_step(scheduler, t, gamma)
    if churned <= t:
        return t, x
    a, b = scheduler.transition(t, churned)
    return churned, a * x + b * noise_like(x, generator)


def _churned_step(scheduler: NoiseScheduler, t: int, gamma: float) -> int:
    """The step whose sigma / alpha is nearest to 1 + gamma times that of t."""
    if gamma == 0:
        return t
    wanted = scheduler.log_snr[t] - math.log1p(gamma)
    return int((scheduler.log_snr - wanted).abs().argmin())
