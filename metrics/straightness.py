"""How straight the paths of a flow are: on straight paths Euler's method needs few steps."""

import torch
from torch import Tensor

from diffusion import Denoiser
from samplers.ancestral import ddim
from samplers.spacing import spaced_timesteps
from schedule import NoiseScheduler


def straightness(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    evaluations: int = 100,
) -> float:
    """Return S = mean of |(x_T - x_0) - dx/ds|^2 over points, dims and path. A straight path has S
    = 0.

    This is the straightness of Liu, Gong and Liu 2023 (arXiv 2209.03003, section 2.2), of the paths
    that Euler's method takes in `evaluations` steps of equal length. It is meant for schedule=flow,
    where s = (t + 1) / T runs evenly from 0 to 1.

    Args:
        denoise: the denoiser of the flow.
        scheduler: the process.
        x_T: noise of shape (B, *dims).
        evaluations: the number of Euler steps, at most T.
    """
    T = scheduler.num_timesteps
    timesteps = spaced_timesteps(scheduler, min(evaluations, T), "trailing")
    states = [state.x_t for state in ddim(denoise, scheduler, x_T, timesteps=timesteps)]
    path = torch.stack(states)

    s = torch.tensor([t + 1 for t in timesteps] + [0]).to(x_T) / T
    ds = s.diff().reshape(-1, *[1] * x_T.ndim)
    slopes = path.diff(dim=0) / ds
    straight = path[0] - path[-1]
    return float((straight - slopes).square().mean())
