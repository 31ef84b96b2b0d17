"""Solutions of lesson 1."""

import math

import torch


def jump(alpha_s: float, sigma_s: float, alpha_t: float, sigma_t: float) -> tuple[float, float]:
    """a x_s = a alpha_s x_0 + a sigma_s eps': a must turn alpha_s into alpha_t; variances add up to sigma_t^2."""
    a = alpha_t / alpha_s
    return a, math.sqrt(sigma_t**2 - (a * sigma_s) ** 2)


def betas_of(alpha_bar: torch.Tensor) -> torch.Tensor:
    """Each factor 1 - beta is one product over the product before; before the first step the product is 1."""
    before = torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
    return 1 - alpha_bar / before
