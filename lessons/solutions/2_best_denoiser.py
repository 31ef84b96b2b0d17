"""Solutions of lesson 2."""

import torch


def best_guess(x_t: torch.Tensor, points: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """A mean of the points, weighted by how well each explains x_t."""
    squares = (x_t[:, None] - alpha * points).square().sum(2)  # (B, M)
    return torch.softmax(-squares / (2 * sigma**2), 1) @ points


def floor_of_gaussian(alpha: float, sigma: float, s: float) -> float:
    """Cov(eps, x_t) = sigma and Var(x_t) = alpha^2 s^2 + sigma^2."""
    return 1 - sigma**2 / (alpha**2 * s**2 + sigma**2)
