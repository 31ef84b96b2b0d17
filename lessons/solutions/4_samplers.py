"""Solutions of lesson 4."""

import math

import torch


def my_ddim(denoise, scheduler, x: torch.Tensor, timesteps: list[int]) -> torch.Tensor:
    """The predictions at t, combined with the alpha and sigma of the next step."""
    ends = [scheduler.alpha_sigma_at(s) for s in timesteps[1:]]
    ends.append((1.0, 0.0))  # clean data
    for t, (alpha, sigma) in zip(timesteps, ends):
        eps, x_0 = denoise(x, torch.tensor(t))
        x = alpha * x_0 + sigma * eps
    return x


def end_of_flow(x_T: torch.Tensor, alpha_T: float, sigma_T: float, s: float) -> torch.Tensor:
    """Integration gives log x_bar = log(s^2 + sigma_bar^2) / 2 + const.

    So x_t / alpha shrinks in proportion to its standard deviation.
    """
    return x_T * s / math.hypot(alpha_T * s, sigma_T)
