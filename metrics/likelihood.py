"""How likely a denoiser finds given points, by its probability-flow ODE, and its KL from the exact distribution."""

import math

import torch
from torch import Tensor

from diffusion import Denoiser
from points.mixture import GaussianMixture
from schedule import NoiseScheduler


def log_likelihood(denoise: Denoiser, scheduler: NoiseScheduler, x: Tensor, timesteps: list[int]) -> Tensor:
    """log p(x) in nats of the model, for points x (B, d) noised once (t = 0): shape (B,), float64.

    The flow that carries x to N(0, I) (Song et al. 2021, arXiv 2011.13456, eq. 13 and 39), written in y = x / r and
    s = sigma / r with r = alpha + sigma, where it is dy/ds = eps - x_0 in every process, finite at alpha = 0, too;
    Heun's rule between the steps; the divergence is exact, one backward pass for each dimension.

    Args:
        timesteps: the steps to visit, falling from T-1 to 0 (scheduler.timesteps).
    """
    nodes = timesteps[::-1]
    d, (alpha, sigma) = x.shape[1], scheduler.alpha_sigma_at(nodes[0])
    r, s = alpha + sigma, sigma / (alpha + sigma)
    y, log_p = x.double() / r, torch.full((len(x),), -d * math.log(r), dtype=torch.float64, device=x.device)
    slope, divergence = _flow(denoise, y, nodes[0], r)
    for t in nodes[1:]:
        alpha, sigma = scheduler.alpha_sigma_at(t)
        r, ds = alpha + sigma, sigma / (alpha + sigma) - s
        slope_next, divergence_next = _flow(denoise, y + ds * slope, t, r)
        y = y + ds * (slope + slope_next) / 2
        log_p = log_p + ds * (divergence + divergence_next) / 2
        s, slope, divergence = s + ds, slope_next, divergence_next
    return log_p + d * math.log(r) - 0.5 * ((r * y).square().sum(1) + d * math.log(2 * math.pi))


def _flow(denoise: Denoiser, y: Tensor, t: int, r: float) -> tuple[Tensor, Tensor]:
    """eps - x_0 at y and its divergence with respect to y."""
    x = (r * y).float().requires_grad_()
    with torch.enable_grad():
        eps, x_0 = denoise(x, torch.tensor(t, device=x.device))
        velocity = eps - x_0
        columns = [torch.autograd.grad(velocity[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    return velocity.detach().double(), r * torch.stack(columns).sum(0).double()


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
