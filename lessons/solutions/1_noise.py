"""Solutions of lesson 1."""

import math

import torch


def jump(alpha_s: float, sigma_s: float, alpha_t: float, sigma_t: float) -> tuple[float, float]:
    """Substitution gives a x_s = a alpha_s x_0 + a sigma_s eps'.

    So a alpha_s must be alpha_t, and the variances must add up: (a sigma_s)^2 + b^2 = sigma_t^2.
    """
    a = alpha_t / alpha_s
    b = math.sqrt(sigma_t**2 - (a * sigma_s) ** 2)
    return a, b


def betas_of(alpha_bar: torch.Tensor) -> torch.Tensor:
    """Each factor 1 - beta is a product divided by the product before it. Before step 0 it is 1."""
    before = torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
    return 1 - alpha_bar / before
