"""What a guess of x_0 leaves open: Cov[x_0 | x_t] out of the denoiser's derivative, for points."""

import torch
from torch import Tensor

from diffusion import Denoiser, Prediction
from samplers.steps import as_t
from schedule import NoiseScheduler


def with_covariance(denoise: Denoiser, scheduler: NoiseScheduler, x: Tensor, t: int) -> tuple[Prediction, Tensor]:
    """What the denoiser guesses at x (B, d), and Cov[x_0 | x_t] by it, (B, d, d).

    Of the best denoiser it is sigma^2 / alpha times the Jacobian of E[x_0 | x_t] (Efron 2011, second order; Manor and
    Michaeli 2024, arXiv 2309.13598, eq. 4): one backward pass for each of its d rows, since points do not mix.
    """
    alpha, sigma = scheduler.alpha_sigma_at(t)
    if alpha == 0:  # x_t says nothing of x_0, whose own covariance is I in the units of a model
        return denoise(x, as_t(t, x)), torch.eye(x.shape[1]).to(x).expand(len(x), -1, -1)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        eps, x_0 = denoise(x, as_t(t, x))
        rows = [torch.autograd.grad(x_0[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])]
    return Prediction(eps.detach(), x_0.detach()), sigma**2 / alpha * torch.stack(rows, 1)


def coloured(covariance: Tensor, z: Tensor) -> Tensor:
    """White noise z (B, d) with the nearest covariance that there can be: a network's may be lopsided or negative."""
    values, axes = torch.linalg.eigh((covariance + covariance.mT) / 2)
    return torch.einsum("bij,bj->bi", axes, values.clamp(min=0).sqrt() * z)
