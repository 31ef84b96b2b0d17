"""Solutions of lesson 6."""

import torch
from torch import Tensor


def keep_within(x_t: Tensor, x_0: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    """Clamp x_0, then solve x_t = alpha x_0 + sigma eps for eps."""
    x_0 = x_0.clamp(-1, 1)
    eps = (x_t - alpha * x_0) / sigma
    return eps, x_0


def drop_labels(label: Tensor, share: float, num_labels: int, g: torch.Generator) -> Tensor:
    """One random number for each row decides."""
    dropped = torch.rand(label.shape, generator=g) < share
    return torch.where(dropped, num_labels, label)
