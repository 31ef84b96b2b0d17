"""How straight the paths of a flow are, from noise to data: Euler's method needs few steps where they are."""

import torch
from torch import Tensor

from diffusion import Denoiser
from samplers.ancestral import ddim
from samplers.spacing import spaced_timesteps
from schedule import NoiseScheduler


def straightness(denoise: Denoiser, scheduler: NoiseScheduler, x_T: Tensor, evaluations: int = 100) -> float:
    """S = mean over the path of |(x_T - x_0) - dx/ds|^2, per dimension, from x_T (B, *dims) on; 0: a straight line.

    Liu, Gong and Liu 2023 (arXiv 2209.03003, section 2.2), of the paths that Euler's method takes in this many strides
    of equal length. For schedule=flow, whose clock s runs evenly over its steps.
    """
    timesteps = spaced_timesteps(scheduler, min(evaluations, scheduler.num_timesteps), "trailing")
    states = torch.stack([state.x_t for state in ddim(denoise, scheduler, x_T, timesteps=timesteps)])
    clock = torch.tensor([t + 1 for t in timesteps] + [0]).to(x_T) / scheduler.num_timesteps
    slopes = states.diff(dim=0) / clock.diff().reshape(-1, *[1] * x_T.ndim)
    return float((states[0] - states[-1] - slopes).square().mean())
