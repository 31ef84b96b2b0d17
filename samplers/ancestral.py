"""Samplers that add noise on their way: DDPM with each of its variances, and DDIM, which adds as much as it is told."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffusion import Denoiser, Prediction
from runtime.arrays import floats
from samplers.covariance import drawn, with_covariance
from samplers.steps import State, as_t, noise_like, strides
from schedule import CLEAN, NoiseScheduler

VARIANCES = ("fixed_small", "fixed_large", "optimal", "exact")


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

    x_s = c_t x_t + c_0 x_0 + noise, the posterior of eq. 6 and 7 with the guess of x_0 in place of the truth. What the
    guess leaves open is in the variance of the noise, one of VARIANCES (see `_noise`; exact: the full covariance, point
    by point, see `drawn`).
    Yields a state for each step, x_T itself first, and the samples last.
    """
    x = floats(x_T, "x_T")
    check_variance(variance, x)
    for t, s in strides(scheduler, timesteps):
        if variance == "exact":
            guess, covariance = with_covariance(denoise, scheduler, x, t)
            yield State(t, x, guess.x_0)
            x = drawn(scheduler, x, t, s, guess, covariance, generator)
            continue
        guess = denoise(x, as_t(t, x))
        yield State(t, x, guess.x_0)
        c_t, c_0, _ = scheduler.posterior(t, s)
        x = c_t * x + c_0 * guess.x_0
        if s != CLEAN:  # else it ends on the mean, as Ho et al. do
            x = x + _noise(scheduler, t, s, variance, guess, generator)
    yield State(CLEAN, x, x)


def check_variance(variance: str, x_T: Tensor) -> None:
    """Raises ValueError for another name, and where the covariance of an image would be asked for."""
    if variance not in VARIANCES:
        raise ValueError(f"variance must be one of {', '.join(VARIANCES)}; got {variance!r}")
    if variance == "exact" and x_T.ndim != 2:
        raise ValueError("variance=exact is for points: an image has too many pixels for a covariance between them all")


def _noise(
    scheduler: NoiseScheduler,
    t: int,
    s: int,
    variance: str,
    guess: Prediction,
    generator: torch.Generator | None,
) -> Tensor:
    """The noise of x_s given x_t. Its variance is std^2 + c_0^2 Var[x_0 | x_t], and is taken as

    fixed_small: that of data in a point, std^2 (Ho et al. 2020, eq. 7).
    fixed_large: that of data from N(0, I) (section 3.2; beta of the stride if alpha^2 + sigma^2 = 1).
    optimal: one number, the mean of Var[x_0 | x_t] over points and dims (Bao et al. 2022, arXiv 2201.06503, theorem 1
        and eq. 8), here over the batch; it is at most 1, the variance of the data itself.
    """
    _, c_0, std = scheduler.posterior(t, s)
    z = noise_like(guess.x_0, generator)
    (alpha_s, sigma_s), (alpha_t, sigma_t) = scheduler.alpha_sigma_at(s), scheduler.alpha_sigma_at(t)
    if variance == "fixed_large":
        return scheduler.stride(s, t)[1] * math.hypot(alpha_s, sigma_s) / math.hypot(alpha_t, sigma_t) * z
    if variance == "optimal":
        left = 1.0 if alpha_t == 0 else (sigma_t / alpha_t) ** 2 * (1 - float(guess.eps.square().mean()))
        return math.sqrt(std**2 + c_0**2 * min(max(left, 0.0), 1.0)) * z
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

    x_s = alpha_s x_0 + sqrt(sigma_s^2 - fresh^2) eps + fresh noise, where fresh (eq. 16) is eta times the standard
    deviation of the posterior: eta = 0 is deterministic, eta = 1 is `ddpm`. On a flow, alpha = 1 - s and sigma = s,
    eta = 0 is Euler's method: alpha_s x_0 + sigma_s eps = x_t + (s - t) (eps - x_0).
    """
    x = floats(x_T, "x_T")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in 0..1, got {eta}")
    for t, s in strides(scheduler, timesteps):
        eps, x_0 = denoise(x, as_t(t, x))
        yield State(t, x, x_0)
        (alpha_s, sigma_s), fresh = scheduler.alpha_sigma_at(s), eta * scheduler.posterior(t, s)[2]
        x = alpha_s * x_0 + math.sqrt(sigma_s**2 - fresh**2) * eps
        if fresh > 0:
            x = x + fresh * noise_like(x, generator)
    yield State(CLEAN, x, x)
