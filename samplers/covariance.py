"""Posterior covariance Cov[x_0 given x_t] from the denoiser's Jacobian, for points, and draws with it."""

import torch
from torch import Tensor

from diffusion import Denoiser, Prediction
from samplers.steps import as_t, noise_like
from schedule import NoiseScheduler

DIFFERENCE = 1 / 32  # of sigma, the step of the finite difference: error about 1 %, large enough for float32


def prediction_and_covariance(
    denoise: Denoiser, scheduler: NoiseScheduler, x: Tensor, t: int
) -> tuple[Prediction, Tensor]:
    """The denoiser's prediction at points x (B, d), and its Cov[x_0 given x_t], (B, d, d).

    For the best denoiser the covariance is sigma^2 / alpha times the Jacobian of E[x_0 given x_t] (Efron 2011, second
    order; Manor and Michaeli 2024, arXiv 2309.13598, eq. 4). The Jacobian is a finite difference along each axis,
    which takes d more evaluations.
    """
    alpha, sigma = scheduler.alpha_sigma_at(t)
    prediction = denoise(x, as_t(t, x))
    axes = torch.eye(x.shape[1]).to(x)
    if alpha == 0:  # x_t is independent of x_0, whose own covariance is I in the units of a model
        return prediction, axes.expand(len(x), -1, -1)

    step = DIFFERENCE * sigma
    columns = []
    for axis in axes:
        moved = denoise(x + step * axis, as_t(t, x)).x_0
        columns.append((moved - prediction.x_0) / step)
    return prediction, sigma**2 / alpha * torch.stack(columns, 2)


def draw_with_covariance(
    scheduler: NoiseScheduler,
    x: Tensor,
    t: int,
    s: int,
    prediction: Prediction,
    covariance: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """A draw of x_s from x_t = x (B, d), where x_0 given x_t is taken as N(prediction, covariance).

    x_s is N(c_t x_t + c_0 x_0, std^2 + c_0^2 covariance), by the posterior given x_0 (Ho et al. 2020, eq. 6 and 7).
    For a Gaussian x_0 this is exact, however long the transition. At clean data c_t = std = 0 and c_0 = 1, so that x_0
    itself is drawn.
    """
    c_t, c_0, std = scheduler.posterior(t, s)
    total = std**2 * torch.eye(x.shape[1]).to(x) + c_0**2 * covariance
    return c_t * x + c_0 * prediction.x_0 + colour_noise(total, noise_like(x, generator))


def colour_noise(covariance: Tensor, z: Tensor) -> Tensor:
    """White noise z (B, d) turned into noise of the nearest valid covariance, (B, d).

    A network's covariance (B, d, d) may be asymmetric or indefinite. The symmetric root is taken, as it does not
    depend on the signs that a library gives to eigenvectors.
    """
    values, axes = torch.linalg.eigh((covariance + covariance.mT) / 2)
    root = axes * values.clamp(min=0).sqrt()[:, None] @ axes.mT
    return (root @ z[:, :, None])[:, :, 0]
