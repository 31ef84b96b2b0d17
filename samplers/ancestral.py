"""DDPM with each of its variances, and DDIM, whose fresh noise is an option."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion import Denoiser, Prediction
from registry.sampler_rows import VARIANCES
from runtime.arrays import floats
from samplers.covariance import draw_with_covariance, prediction_and_covariance
from samplers.steps import State, as_t, noise_like, transitions
from schedule import CLEAN, NoiseScheduler


@torch.no_grad()
def ddpm(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    variance: str = "fixed_small",
) -> Iterator[State]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2) over all T steps or any falling subset of them.

    The update is x_s = c_t x_t + c_0 x_0 + noise: the posterior of eq. 6 and 7, with the prediction of x_0 in place
    of the true x_0. The variance of the noise also covers the error of that prediction; `variance` names how (see
    `_posterior_noise`, and `draw_with_covariance` for "exact"). The last transition ends on the mean.

    Yields a state for each step, x_T first and the samples last.

    Raises:
        ValueError: an unknown variance, or "exact" for images.
    """
    x = floats(x_T, "x_T")
    check_variance(variance, x)
    for t, s in transitions(scheduler, timesteps):
        if variance == "exact":
            prediction, covariance = prediction_and_covariance(denoise, scheduler, x, t)
            yield State(t, x, prediction.x_0)
            x = draw_with_covariance(scheduler, x, t, s, prediction, covariance, generator)
            continue

        prediction = denoise(x, as_t(t, x))
        yield State(t, x, prediction.x_0)
        c_t, c_0, _ = scheduler.posterior(t, s)
        x = c_t * x + c_0 * prediction.x_0
        if s != CLEAN:
            x = x + _posterior_noise(scheduler, t, s, variance, prediction, generator)
    yield State(CLEAN, x, x)


def check_variance(variance: str, x_T: Tensor) -> None:
    """Raises ValueError for an unknown name, and for the full covariance of images."""
    if variance not in VARIANCES:
        raise ValueError(f"variance must be one of {', '.join(VARIANCES)}; got {variance!r}")
    if variance == "exact" and x_T.ndim != 2:
        raise ValueError("variance=exact is for points: an image has too many pixels for a covariance between them all")


def _posterior_noise(
    scheduler: NoiseScheduler,
    t: int,
    s: int,
    variance: str,
    prediction: Prediction,
    generator: torch.Generator | None,
) -> Tensor:
    """The noise of x_s given x_t. Its true variance is std^2 + c_0^2 Var[x_0 given x_t]. It is approximated by

    fixed_small: std^2, exact if the data are one point (Ho et al. 2020, eq. 7).
    fixed_large: the variance for data from N(0, I) (section 3.2; beta of the transition if alpha^2 + sigma^2 = 1).
    optimal: one number for Var[x_0 given x_t], its mean over points and dimensions, here over the batch
        (Bao et al. 2022, arXiv 2201.06503, theorem 1 and eq. 8). It is at most 1, the variance of the data.
    """
    _, c_0, std = scheduler.posterior(t, s)
    z = noise_like(prediction.x_0, generator)
    alpha_t, sigma_t = scheduler.alpha_sigma_at(t)

    if variance == "fixed_large":
        alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
        _, b = scheduler.transition(s, t)
        return b * math.hypot(alpha_s, sigma_s) / math.hypot(alpha_t, sigma_t) * z

    if variance == "optimal":
        x_0_variance = 1.0
        if alpha_t != 0:
            x_0_variance = (sigma_t / alpha_t) ** 2 * (1 - float(prediction.eps.square().mean()))
        x_0_variance = min(max(x_0_variance, 0.0), 1.0)
        return math.sqrt(std**2 + c_0**2 * x_0_variance) * z

    return std * z


@torch.no_grad()
def ddim(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    eta: float = 0.0,
) -> Iterator[State]:
    """DDIM (Song, Meng and Ermon 2021, arXiv 2010.02502, eq. 12) over all steps or any falling subset of them.

    The update is x_s = alpha_s x_0 + sqrt(sigma_s^2 - fresh^2) eps + fresh z, with standard normal z. `fresh` (eq. 16)
    is eta times the standard deviation of the posterior: eta = 0 is deterministic, eta = 1 is `ddpm`.
    For schedule=flow, where alpha = 1 - s and sigma = s, eta = 0 is Euler's method:
    alpha_s x_0 + sigma_s eps = x_t + (s - t) (eps - x_0).

    Raises:
        ValueError: eta outside 0 .. 1.
    """
    x = floats(x_T, "x_T")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in 0..1, got {eta}")
    for t, s in transitions(scheduler, timesteps):
        eps, x_0 = denoise(x, as_t(t, x))
        yield State(t, x, x_0)
        alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
        _, _, posterior_std = scheduler.posterior(t, s)
        fresh = eta * posterior_std
        x = alpha_s * x_0 + math.sqrt(sigma_s**2 - fresh**2) * eps
        if fresh > 0:
            x = x + fresh * noise_like(x, generator)
    yield State(CLEAN, x, x)
