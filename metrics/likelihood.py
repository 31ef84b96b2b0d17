"""How likely a denoiser finds given points, by its probability-flow ODE, and its KL from the exact distribution."""

import math

import torch
from torch import Tensor

from diffusion import Denoiser
from points.mixture import GaussianMixture
from schedule import NoiseScheduler


def log_likelihood(denoise: Denoiser, scheduler: NoiseScheduler, x: Tensor, timesteps: list[int]) -> Tensor:
    """log p(x) in nats of the model, for points x (B, d) noised once (t = 0): shape (B,), float64.

    The flow that carries x to N(0, I) (Song et al. 2021, arXiv 2011.13456, eq. 13 and 39), written in y = x / alpha
    and s = sigma / alpha, where it is just dy/ds = eps; Heun's rule between the steps; the divergence is exact,
    one backward pass for each dimension.

    Args:
        timesteps: the steps to visit, falling from T-1 to 0 (scheduler.timesteps).
    """
    nodes = timesteps[::-1]
    d = x.shape[1]
    alpha, sigma = scheduler.alpha_sigma_at(nodes[0])
    y, log_p = x.double() / alpha, torch.full((len(x),), -d * math.log(alpha), dtype=torch.float64, device=x.device)
    slope, divergence = _flow(denoise, y, nodes[0], alpha)
    for t in nodes[1:]:
        alpha_next, sigma_next = scheduler.alpha_sigma_at(t)
        ds = sigma_next / alpha_next - sigma / alpha
        slope_next, divergence_next = _flow(denoise, y + ds * slope, t, alpha_next)
        y = y + ds * (slope + slope_next) / 2
        log_p = log_p + ds * (divergence + divergence_next) / 2
        alpha, sigma = alpha_next, sigma_next
        slope, divergence = slope_next, divergence_next
    x_T = alpha * y
    return log_p + d * math.log(alpha) - 0.5 * (x_T.square().sum(1) + d * math.log(2 * math.pi))


def _flow(denoise: Denoiser, y: Tensor, t: int, alpha: float) -> tuple[Tensor, Tensor]:
    """eps at y and its divergence with respect to y."""
    x = (alpha * y).float().requires_grad_()
    with torch.enable_grad():
        eps = denoise(x, torch.tensor(t, device=x.device)).eps
        columns = [torch.autograd.grad(eps[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    return eps.detach().double(), alpha * torch.stack(columns).sum(0).double()


def kl_from_exact(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    mixture: GaussianMixture,
    x: Tensor,
    timesteps: list[int],
    device: torch.device | str = "cpu",
) -> tuple[float, float]:
    """KL(exact || model) in nats at t = 0, and its standard error, from draws x (B, d) of the exact
    distribution there; `device` is that of the denoiser."""
    exact = mixture.noised(*scheduler.alpha_sigma_at(0)).log_density(x)
    return mean_kl(exact - log_likelihood(denoise, scheduler, x.to(device), timesteps).cpu())


def mean_kl(log_ratio: Tensor) -> tuple[float, float]:
    """E_p[log p/q] and its standard error, from log p/q at draws of p: (B,).

    E_p[q/p - 1] is 0, so it may be added (a control variate): log p/q + q/p - 1 has the same mean, and where q is close
    to p a sixth of the scatter. But mass of q where p has next to none is never drawn, and then this mean is too small
    by that mass, while plain log p/q stays right. So it is used only where it shrinks the error at least threefold:
    there q/p is near 1 throughout.
    """
    controlled = log_ratio + torch.expm1(-log_ratio)
    best = controlled if 3 * controlled.std() < log_ratio.std() else log_ratio
    return float(best.mean()), float(best.std() / math.sqrt(len(best)))
