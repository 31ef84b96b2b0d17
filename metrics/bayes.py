"""The Bayes floor of the training loss, and a network's excess over it.

The network that minimises the mean squared error predicts E[eps | x_t]. Its loss is the Bayes floor
E|eps - E[eps | x_t]|^2, which is far from 0. For any other network the loss is the sum of the floor
and its excess E|eps_hat - E[eps | x_t]|^2. Both terms are known where the exact distribution of the
data is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from dataset import DataSet, PointSet
from diffusion import Denoiser
from loss.objective import weight_name
from pipeline import Pipeline
from points.mixture import GaussianMixture
from runtime.progress import progress_bar
from runtime.randomness import generator
from samplers.spacing import evenly_on
from schedule import NoiseScheduler

FLOOR_STEPS = 64  # steps at which the floor is computed; it is interpolated at the others
FLOOR_POINTS = 4096  # points at each of these steps


@dataclass(frozen=True)
class Probes:
    """Noisy points at K steps, n at each, with the best possible prediction for each point.

    timesteps: the steps t, of shape (K,).
    x_t: the noisy points, of shape (K, n, d).
    best: E[eps | x_t], of shape (K, n, d).
    floor: the Bayes floor at each step, of shape (K,).
    """

    timesteps: Tensor
    x_t: Tensor
    best: Tensor
    floor: Tensor


@dataclass(frozen=True)
class Condition:
    """What a network is told about x_0.

    label: the number of a label, or None for no label.
    weight: the share of training rows with it.
    mixture: the exact distribution of such rows, normalised.
    """

    label: int | None
    weight: float
    mixture: GaussianMixture


def known_conditions(pipeline: Pipeline, data: PointSet) -> list[Condition]:
    """Return the conditions that a network knows: its labels, equally often, or none.

    Args:
        pipeline: the network.
        data: points whose exact distribution is known.
    """
    assert data.mixture is not None
    normalised = pipeline.normaliser.normalise_mixture
    if not pipeline.classes or not data.parts:
        return [Condition(None, 1.0, normalised(data.mixture))]
    share = 1 / len(data.parts)
    return [Condition(i, share, normalised(part)) for i, part in enumerate(data.parts)]


def loss_conditions(pipeline: Pipeline, data: DataSet) -> list[Condition]:
    """Return the conditions whose Bayes floors make up that of the training loss.

    A conditional network is trained on every label, and on rows that lost theirs. The list is empty
    where the floor is not known: without an exact distribution, or with a loss that does not weight
    the error of eps evenly.

    Args:
        pipeline: the network.
        data: the data that it was trained on.
    """
    weight = weight_name(pipeline.scheduler, pipeline.config.get("loss_weight"))
    if not isinstance(data, PointSet) or data.mixture is None or weight != "eps":
        return []
    conditions = known_conditions(pipeline, data)
    dropped = pipeline.config.get("label_dropout", 0.0)
    if not pipeline.classes or not dropped:
        return conditions
    share = (1 - dropped) / len(conditions)
    whole = pipeline.normaliser.normalise_mixture(data.mixture)
    return [*(replace(each, weight=share) for each in conditions), Condition(None, dropped, whole)]


# ---------------------------------------------------------------- the floor


def loss_floor(conditions: Sequence[Condition], scheduler: NoiseScheduler) -> float:
    """Return the Bayes floor of the training loss: the mean of those of all conditions."""
    return sum(each.weight * bayes_floor(each.mixture, scheduler) for each in conditions)


# A training and its evaluation ask for the same floor. For thin sheets it takes 12 s of CPU.
@lru_cache(maxsize=32)
def bayes_floor(mixture: GaussianMixture, scheduler: NoiseScheduler) -> float:
    """Return the Bayes floor of eps, averaged over all steps and dims, accurate to about 0.03 %.

    The floor is a smooth function of log(sigma / alpha). It is computed at steps that are evenly
    spaced on this scale, and interpolated by a cubic spline at the others.

    Args:
        mixture: the exact distribution of the normalised data, which the network is trained on.
        scheduler: the process.
    """
    log_noise = log_noise_ratio(scheduler)
    timesteps = evenly_on(log_noise, FLOOR_STEPS)
    floors = [_floor_at(mixture, scheduler, t) for t in progress_bar(timesteps, "Bayes floor")]
    spline = CubicSpline(log_noise[timesteps], floors)
    return float(spline(log_noise).mean())


def log_noise_ratio(scheduler: NoiseScheduler) -> NDArray:
    """Return log(sigma / alpha) of each step, a rising array of shape (T,).

    Where the last step is pure noise its value would be infinite. It is replaced by one more step
    of the same length as the one before.
    """
    log_noise = -scheduler.log_snr.numpy()
    if np.isfinite(log_noise[-1]) or len(log_noise) < 2:
        return log_noise
    last_step = log_noise[-2] - log_noise[-3] if len(log_noise) > 2 else 1.0
    return np.append(log_noise[:-1], log_noise[-2] + last_step)


def _floor_at(mixture: GaussianMixture, scheduler: NoiseScheduler, t: int) -> float:
    """Return E[Var(eps | x_t)] at one step, averaged over dims, from evenly spread points x_t."""
    alpha, sigma = scheduler.alpha_sigma_at(t)
    return mixture.mean_eps_variance(alpha, sigma, FLOOR_POINTS, seed=t)


# ---------------------------------------------------------------- the excess


def make_probes(
    mixture: GaussianMixture,
    scheduler: NoiseScheduler,
    *,
    num_steps: int,
    num_points: int,
    seed: int,
) -> Probes:
    """Draw probes at the midpoints of `num_steps` equal bins of the steps 0 .. T-1.

    Args:
        mixture: the exact distribution of the normalised data.
        scheduler: the process.
        num_steps: K. Where T is smaller, there are fewer probed steps.
        num_points: n, the number of points at each step.
        seed: of the points.
    """
    g = generator(seed, "probes")
    T = scheduler.num_timesteps
    timesteps = ((torch.arange(num_steps) + 0.5) / num_steps * T).long().unique()

    x_t = []
    best = []
    floor = []
    for t in timesteps.tolist():
        alpha, sigma = scheduler.alpha_sigma_at(t)
        eps = torch.randn(num_points, mixture.dim, generator=g, dtype=torch.float64)
        noisy = alpha * mixture.sample(num_points, g) + sigma * eps
        x_t.append(noisy.float())
        best.append(mixture.eps(noisy, alpha, sigma).float())
        # The posterior variance is |best - eps|^2, averaged over the eps that x_t allows.
        floor.append(mixture.eps_variance(noisy, alpha, sigma).mean())
    return Probes(timesteps, torch.stack(x_t), torch.stack(best), torch.stack(floor).float())


@torch.no_grad()
def excess(denoise: Denoiser, probes: Probes, device: torch.device) -> Tensor:
    """Return E|eps_hat - E[eps | x_t]|^2 at each probed step, averaged over dims, of shape (K,).

    Args:
        denoise: gives eps_hat.
        probes: the noisy points, in the denoiser's normalised units.
        device: the device of the denoiser.
    """
    x_t = probes.x_t.to(device)
    best = probes.best.to(device)
    result = []
    for t, x, best_eps in zip(probes.timesteps, x_t, best):
        eps_hat = denoise(x, t.to(device)).eps
        result.append((eps_hat - best_eps).square().mean())
    return torch.stack(result).cpu()
