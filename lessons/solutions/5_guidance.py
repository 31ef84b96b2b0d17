"""Solutions of lesson 5."""

import torch


def claimed_gaussian(w: float, m: float, v: float, V: float) -> tuple[float, float]:
    """Precisions add up, and so do means times precisions, each with its exponent."""
    precision = (1 + w) / v - w / V
    return (1 + w) * m / v / precision, 1 / precision


def steered_eps(eps_label: torch.Tensor, eps_none: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Put w = guidance_scale - 1 into eq. 6."""
    return eps_none + guidance_scale * (eps_label - eps_none)
