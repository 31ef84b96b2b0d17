"""Solutions of lesson 5."""

import torch


def claimed_gaussian(w: float, m: float, v: float, V: float) -> tuple[float, float]:
    """Precisions add up, each times its exponent. So do the products of precision and mean."""
    precision = (1 + w) / v - w / V
    mean = (1 + w) * m / v / precision
    return mean, 1 / precision


def guided_eps(eps_label, eps_none, guidance_scale: float) -> torch.Tensor:
    """Eq. 6 with w = guidance_scale - 1."""
    return eps_none + guidance_scale * (eps_label - eps_none)
