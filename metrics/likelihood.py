"""The likelihood of a denoiser's model, and its KL divergence from the exact distribution.

A denoiser defines a probability-flow ODE, which carries data to noise. The model's density at a
point follows from where the flow carries it and from the divergence of the flow on the way.
"""

import math

import torch
from torch import Tensor

from diffusion import Denoiser
from points.mixture import GaussianMixture
from runtime.progress import progress_bar
from schedule import NoiseScheduler

MIN_GAIN = 3  # the control variate is used where it shrinks the standard error by this factor


def log_likelihood(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x: Tensor,
    timesteps: list[int],
) -> Tensor:
    """Return log p(x) of the model in nats, of shape (B,) in float64.

    The flow carries x to N(0, I) (Song et al. 2021, arXiv 2011.13456, eq. 13 and 39). Substitute
    y = x / r and s = sigma / r with r = alpha + sigma. Then for every process

        dy/ds = eps - x_0,    d log p(y) / ds = -div_y (eps - x_0),

    which is finite at alpha = 0 as well. Both are integrated by Heun's rule between the timesteps.
    The divergence is exact and takes one backward pass for each dimension.

    Args:
        denoise: a denoiser of points.
        scheduler: the process.
        x: points of shape (B, d), noised once: their t is 0.
        timesteps: the steps of the integration, falling from T-1 to 0.
    """
    rising = timesteps[::-1]
    dim = x.shape[1]
    r, s = _flow_coordinates(scheduler, rising[0])
    y = x.double() / r
    log_p = torch.full((len(x),), -dim * math.log(r), dtype=torch.float64, device=x.device)

    velocity, divergence = _velocity(denoise, y, rising[0], r)
    for t in progress_bar(rising[1:], "log-likelihood", len(rising) - 1):
        r, s_next = _flow_coordinates(scheduler, t)
        ds = s_next - s
        next_velocity, next_divergence = _velocity(denoise, y + ds * velocity, t, r)
        y = y + ds * (velocity + next_velocity) / 2
        log_p = log_p + ds * (divergence + next_divergence) / 2
        s = s + ds
        velocity = next_velocity
        divergence = next_divergence

    squared_norm = (r * y).square().sum(1)
    return log_p + dim * math.log(r) - 0.5 * (squared_norm + dim * math.log(2 * math.pi))


def _flow_coordinates(scheduler: NoiseScheduler, t: int) -> tuple[float, float]:
    """Return r = alpha + sigma and s = sigma / r at t."""
    alpha, sigma = scheduler.alpha_sigma_at(t)
    return alpha + sigma, sigma / (alpha + sigma)


def _velocity(denoise: Denoiser, y: Tensor, t: int, r: float) -> tuple[Tensor, Tensor]:
    """Return dy/ds = eps - x_0 of shape (B, d), and its divergence with respect to y, of shape
    (B,)."""
    x = (r * y).float().requires_grad_()
    with torch.enable_grad():
        eps, x_0 = denoise(x, torch.tensor(t, device=x.device))
        velocity = eps - x_0
        diagonal = []  # d velocity_i / d x_i for each dimension i
        for i in range(x.shape[1]):
            gradient = torch.autograd.grad(velocity[:, i].sum(), x, retain_graph=True)[0]
            diagonal.append(gradient[:, i])
    divergence = r * torch.stack(diagonal).sum(0).double()
    return velocity.detach().double(), divergence


def kl_from_exact(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    mixture: GaussianMixture,
    x: Tensor,
    timesteps: list[int],
    device: torch.device | str = "cpu",
) -> tuple[float, float]:
    """Return KL(exact || model) in nats at t = 0, and its standard error.

    It sees all of the model's density where data lie, so coarse and fine faults alike. It does not
    see a little mass of the model where data never lie, and it knows nothing of the sampler.

    Args:
        denoise, scheduler, timesteps: as in `log_likelihood`.
        mixture: the exact distribution of the normalised clean data.
        x: draws of shape (B, d) from the exact distribution at t = 0.
        device: the device of the denoiser.
    """
    exact = mixture.noised(*scheduler.alpha_sigma_at(0)).log_density(x)
    model = log_likelihood(denoise, scheduler, x.to(device), timesteps).cpu()
    return mean_kl(exact - model)


def mean_kl(log_ratio: Tensor) -> tuple[float, float]:
    """Return E_p[log p/q] and its standard error, from log p/q at draws of p, of shape (B,).

    The control variate q/p - 1 has the expectation 0 under p. So log p/q + q/p - 1 has the same
    mean, and where q is close to p a sixth of the standard deviation.

    Mass of q where p has almost none is never drawn. Then the controlled mean is too small by that
    mass, while the plain mean stays right. So the control variate is used only where it shrinks the
    standard error at least threefold, because there q/p is near 1 throughout.
    """
    controlled = log_ratio + torch.expm1(-log_ratio)
    is_better = MIN_GAIN * controlled.std() < log_ratio.std()
    best = controlled if is_better else log_ratio
    return float(best.mean()), float(best.std() / math.sqrt(len(best)))
