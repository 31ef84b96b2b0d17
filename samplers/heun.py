"""Heun's method (Karras et al. 2022, arXiv 2206.00364): two evaluations a stride, second order, with or without noise.

Written there for y = x / alpha and its noise sigma / alpha, in which dy / d(sigma / alpha) = eps (their eq. 4).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion import Denoiser
from runtime.arrays import floats
from samplers.spacing import MOST_NOISE
from samplers.steps import State, as_t, noise_like, strides
from schedule import CLEAN, NoiseScheduler

MOST_CHURN = math.sqrt(2) - 1  # their bound on gamma


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
    """Their algorithm 1, and with churn > 0 algorithm 2, which adds noise before each stride and removes it again.

    An Euler step to s, and with eps from there once more, by the mean of both. It takes 2 evaluations a stride but one
    for the last, to clean data: 2 len(timesteps) - 1. churn is their S_churn: sigma / alpha grows by the factor
    1 + min(churn / strides, sqrt(2) - 1), to the nearest step that there is. A stride from far above is Euler's (see
    `corrected`): 2 len(timesteps) - 2.
    """
    x = floats(x_T, "x_T")
    steps = list(strides(scheduler, timesteps))
    for t, s in steps:
        again = corrected(scheduler, t, s)
        if (higher := _churned(scheduler, t, min(churn / len(steps), MOST_CHURN))) > t:
            a, b = scheduler.stride(t, higher)
            t, x = higher, a * x + b * noise_like(x, generator)
        eps, x_0 = denoise(x, as_t(t, x))
        yield State(t, x, x_0)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = scheduler.alpha_sigma_at(t), scheduler.alpha_sigma_at(s)
        x = alpha_s * x_0 + sigma_s * eps
        if again:
            x = x + (sigma_s - sigma_t * alpha_s / alpha_t) / 2 * (denoise(x, as_t(s, x)).eps - eps)
    yield State(CLEAN, x, x)


def corrected(scheduler: NoiseScheduler, t: int, s: int) -> bool:
    """Whether Heun's rule applies to the stride from t to s: not to the last, nor from a sigma / alpha above 20. There
    eps changes by next to nothing, and half of a stride that is hundreds long, or infinite, would multiply that."""
    alpha, sigma = scheduler.alpha_sigma_at(t)
    return s != CLEAN and sigma <= MOST_NOISE * alpha


def _churned(scheduler: NoiseScheduler, t: int, gamma: float) -> int:
    """The step whose sigma / alpha is nearest to 1 + gamma times that of t."""
    if gamma == 0:
        return t
    return int((scheduler.log_snr - (scheduler.log_snr[t] - math.log1p(gamma))).abs().argmin())
