"""Solutions of lesson 3."""

import torch


def simple_loss(net, scheduler, x_0: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """[:, None] gives each row its own alpha and sigma; without it they would run along the coordinates."""
    alpha, sigma = scheduler.alpha[t].float()[:, None], scheduler.sigma[t].float()[:, None]
    return (net(alpha * x_0 + sigma * eps, t) - eps).square().mean()


def weight_of_x0(alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """alpha d_x_0 + sigma d_eps = 0, so d_eps = -(alpha / sigma) d_x_0: the weight is the signal-to-noise ratio."""
    return (alpha / sigma).square()
