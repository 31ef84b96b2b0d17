"""The Bayes floor of the training loss, and a network's excess loss above it, step by step.

No network can push the loss below E|E[eps | x_t] - eps|^2, which is far from 0. Where the exact distribution of the
data is known, so is this floor, and so is the excess E|eps_hat - E[eps | x_t]|^2: what is left to learn.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from diffusion import Denoiser
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers.spacing import evenly_on
from schedule import NoiseScheduler

FLOOR_STEPS, FLOOR_POINTS = 64, 4096  # steps at which the floor is computed, and points at each


@dataclass(frozen=True)
class Probes:
    """Noisy points at a few steps, and E[eps | x_t] for each, the best possible prediction.

    timesteps: (K,); x_t, best: (K, n, d); floor: (K,), the Bayes floor at each step.
    """

    timesteps: Tensor
    x_t: Tensor
    best: Tensor
    floor: Tensor


@lru_cache(maxsize=32)  # a training asks for it, and so does its evaluation; of thin sheets it takes 12 s of CPU
def bayes_floor(mixture: GaussianMixture, scheduler: NoiseScheduler) -> float:
    """The Bayes floor of the training loss, averaged over steps and dims, accurate to about 0.03 %.

    It is a smooth function of log(alpha / sigma): computed at steps evenly spaced in that, interpolated at the others.

    Args:
        mixture: the exact distribution of what the network is trained on, that is, of normalised data.
    """
    hands = noisiness(scheduler)
    timesteps = evenly_on(hands, FLOOR_STEPS)
    floors = [_floor_at(mixture, scheduler, t) for t in timesteps]
    return float(CubicSpline(hands[timesteps], floors)(hands).mean())


def noisiness(scheduler: NoiseScheduler) -> NDArray:
    """log(sigma / alpha) of each step (T,), rising; at T-1, if no signal is left, one stride as before it."""
    found = -scheduler.log_snr.numpy()
    if np.isfinite(found[-1]) or len(found) < 2:
        return found
    stride = found[-2] - found[-3] if len(found) > 2 else 1.0
    return np.append(found[:-1], found[-2] + stride)


def _floor_at(mixture: GaussianMixture, scheduler: NoiseScheduler, t: int) -> float:
    alpha, sigma = scheduler.alpha_sigma_at(t)
    x_t = mixture.noised(alpha, sigma).sample_evenly(FLOOR_POINTS, seed=t)
    return float(mixture.eps_variance(x_t, alpha, sigma).mean())


def make_probes(
    mixture: GaussianMixture, scheduler: NoiseScheduler, *, num_steps: int, num_points: int, seed: int
) -> Probes:
    """Probes at `num_steps` evenly spaced steps (the midpoints of as many bins), with fresh points at each.

    Args:
        mixture: as in `bayes_floor`.
        num_points: n, at each step.
    """
    g = generator(seed, "probes")
    T = scheduler.num_timesteps
    timesteps = ((torch.arange(num_steps) + 0.5) / num_steps * T).long().unique()
    x_t, best, floor = [], [], []
    for t in timesteps.tolist():
        alpha, sigma = scheduler.alpha_sigma_at(t)
        eps = torch.randn(num_points, mixture.dim, generator=g, dtype=torch.float64)
        noisy = alpha * mixture.sample(num_points, g) + sigma * eps
        x_t.append(noisy.float())
        best.append(mixture.eps(noisy, alpha, sigma).float())
        floor.append(mixture.eps_variance(noisy, alpha, sigma).mean())  # |best - eps|^2 averaged over eps
    return Probes(timesteps, torch.stack(x_t), torch.stack(best), torch.stack(floor).float())


@torch.no_grad()
def excess(denoise: Denoiser, probes: Probes, device: torch.device) -> Tensor:
    """E|eps_hat - E[eps | x_t]|^2, averaged over dims, at each of the probes' steps: (K,)."""
    pairs = zip(probes.timesteps, probes.x_t.to(device), probes.best.to(device))
    return torch.stack([(denoise(x, t.to(device)).eps - best).square().mean() for t, x, best in pairs]).cpu()
