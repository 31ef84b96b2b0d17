"""What a guess of x_0 leaves open, for points: Cov[x_0 | x_t] out of the denoiser's derivative, and draws with it."""

import torch
from torch import Tensor

from diffusion import Denoiser, Prediction
from samplers.steps import as_t, noise_like
from schedule import NoiseScheduler

NEARBY = 1 / 32  # of sigma: how far off the derivative looks; near enough (1 % of it), and far enough for float32


def with_covariance(denoise: Denoiser, scheduler: NoiseScheduler, x: Tensor, t: int) -> tuple[Prediction, Tensor]:
    """What the denoiser guesses at x (B, d), and Cov[x_0 | x_t] by it, (B, d, d).

    Of the best denoiser it is sigma^2 / alpha times the Jacobian of E[x_0 | x_t] (Efron 2011, second order; Manor and
    Michaeli 2024, arXiv 2309.13598, eq. 4): here a difference along each axis, which takes d more evaluations.
    """
    alpha, sigma = scheduler.alpha_sigma_at(t)
    guess, axes = denoise(x, as_t(t, x)), torch.eye(x.shape[1]).to(x)
    if alpha == 0:  # x_t says nothing of x_0, whose own covariance is I in the units of a model
        return guess, axes.expand(len(x), -1, -1)
    step = NEARBY * sigma
    columns = [(denoise(x + step * axis, as_t(t, x)).x_0 - guess.x_0) / step for axis in axes]
    return guess, sigma**2 / alpha * torch.stack(columns, 2)


def drawn(
    scheduler: NoiseScheduler,
    x: Tensor,
    t: int,
    s: int,
    guess: Prediction,
    covariance: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """x_s from x_t (B, d), where x_0 given x_t is N(guess, covariance): exact, if it is, for strides of any length.

    N(c_t x_t + c_0 guess, std^2 + c_0^2 covariance), out of the posterior given x_0 (Ho et al. 2020, eq. 6 and 7); at
    clean data, where c_t = std = 0 and c_0 = 1, it is x_0 itself that is drawn.
    """
    c_t, c_0, std = scheduler.posterior(t, s)
    total = std**2 * torch.eye(x.shape[1]).to(x) + c_0**2 * covariance
    return c_t * x + c_0 * guess.x_0 + coloured(total, noise_like(x, generator))


def coloured(covariance: Tensor, z: Tensor) -> Tensor:
    """White noise z (B, d) with the nearest covariance that there can be: a network's may be lopsided or negative.

    Times its symmetric root, which does not depend on the signs that a library gives to eigenvectors.
    """
    values, axes = torch.linalg.eigh((covariance + covariance.mT) / 2)
    root = axes * values.clamp(min=0).sqrt()[:, None] @ axes.mT
    return (root @ z[:, :, None])[:, :, 0]
