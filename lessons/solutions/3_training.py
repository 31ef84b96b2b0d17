"""Solutions of lesson 3."""

import torch


def simple_loss(net, scheduler, x_0, t, eps) -> torch.Tensor:
    """[:, None] gives each row its own alpha and sigma. Otherwise each coordinate has its own."""
    alpha = scheduler.alpha[t].float()[:, None]
    sigma = scheduler.sigma[t].float()[:, None]
    x_t = alpha * x_0 + sigma * eps
    return (net(x_t, t) - eps).square().mean()


def weight_of_x0(alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Given x_t, the errors satisfy alpha d_x_0 + sigma d_eps = 0.

    So d_eps = -(alpha / sigma) d_x_0, and the weight is the signal-to-noise ratio.
    """
    return (alpha / sigma).square()
