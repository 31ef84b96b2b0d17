"""Solutions of lesson 6."""

import torch
from torch import Tensor


def keep_within(x_t: Tensor, x_0: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    """Cut x_0 off, then solve x_t = alpha x_0 + sigma eps for eps."""
    x_0 = x_0.clamp(-1, 1)
    return (x_t - alpha * x_0) / sigma, x_0


def drop_labels(label: Tensor, share: float, num_labels: int, g: torch.Generator) -> Tensor:
    """One throw of a die for each row."""
    return torch.where(torch.rand(label.shape, generator=g) < share, num_labels, label)
