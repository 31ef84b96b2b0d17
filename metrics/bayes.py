"""The Bayes floor of the training loss, and how far above it a network stands, step by step.

No network can push the loss below E|E[eps | x_t] - eps|^2, which is far from 0. For data of a known law it is known
exactly, and so is the excess E|eps_hat - E[eps | x_t]|^2: what is left to learn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import Denoiser
from mixture import GaussianMixture
from runtime.randomness import generator
from schedule import NoiseScheduler

FLOOR_POINTS = 64  # at each step


@dataclass(frozen=True)
class Probes:
    """Noisy points at a few steps, with the best possible guess for each.

    timesteps: (K,); x_t, best: (K, n, d); floor: (K,), the Bayes floor at each step.
    """

    timesteps: Tensor
    x_t: Tensor
    best: Tensor
    floor: Tensor


def bayes_floor(mixture: GaussianMixture, scheduler: NoiseScheduler) -> float:
    """The floor of the training loss, averaged over steps and dims: good to about 0.1 %.

    `law` is that of the data the network sees.
    """
    total = 0.0
    for t in range(scheduler.num_timesteps):
        alpha, sigma = scheduler.alpha_sigma_at(t)
        x_t = mixture.noised(alpha, sigma).sample_evenly(FLOOR_POINTS, seed=t)
        total += float(mixture.eps_variance(x_t, alpha, sigma).mean())
    return total / scheduler.num_timesteps


def make_probes(
    mixture: GaussianMixture, scheduler: NoiseScheduler, *, num_steps: int, num_points: int, seed: int
) -> Probes:
    """Probes of a law at `num_steps` evenly spaced steps (the middles of as many bins), fresh points at each.

    `law` is that of the data the network sees, after the normaliser.
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
        floor.append(mixture.eps_variance(noisy, alpha, sigma).mean())  # |best - eps|^2, but for the chance in eps
    return Probes(timesteps, torch.stack(x_t), torch.stack(best), torch.stack(floor).float())


@torch.no_grad()
def excess(denoise: Denoiser, probes: Probes, device: torch.device) -> Tensor:
    """E|eps_hat - E[eps | x_t]|^2 at each of the probes' steps: shape (K,)."""
    pairs = zip(probes.timesteps, probes.x_t.to(device), probes.best.to(device))
    return torch.stack([(denoise(x, t.to(device)).eps - best).square().mean() for t, x, best in pairs]).cpu()
