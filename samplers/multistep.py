"""Multistep ODE solvers, which reuse earlier predictions, and DPM-Solver++'s SDE.

The probability flow depends on the process only through x / alpha as a function of sigma / alpha:
d(x / alpha) / d(sigma / alpha) = eps (Karras et al. 2022, arXiv 2206.00364, eq. 4). DPM-Solver++ and UniPC
interpolate the prediction of x_0 by a polynomial in log-SNR. `adams` interpolates the velocity by one in the angle
arctan(sigma / alpha).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion import Denoiser
from runtime.arrays import floats
from samplers.covariance import draw_with_covariance, prediction_and_covariance
from samplers.steps import State, as_t, noise_like, transitions
from schedule import CLEAN, NoiseScheduler

DRAW_RANGE = math.log(2.5)  # in log-SNR, from the last evaluation
DRAW_DIMS_MAX = 8  # each dimension takes an evaluation


class PastPrediction(NamedTuple):
    """A prediction of x_0, and the log-SNR at which it was made."""

    log_snr: float
    x_0: Tensor


class Slope(NamedTuple):
    """The slope D = (x_0 - newest x_0) / r of an earlier prediction; r: where it was made, in steps from the newest."""

    r: float
    D: Tensor


def _slopes(predictions: Sequence[PastPrediction], log_snr: float) -> list[Slope]:
    """The slopes of all predictions but the newest, for the step from the newest to `log_snr`.

    A prediction at log-SNR -inf is infinitely far away and left out.
    """
    newest, *earlier = predictions
    h = log_snr - newest.log_snr
    slopes = []
    for prediction in earlier:
        if math.isfinite(prediction.log_snr):
            r = (prediction.log_snr - newest.log_snr) / h
            slopes.append(Slope(r, (prediction.x_0 - newest.x_0) / r))
    return slopes


# ---------------------------------------------------------------- DPM-Solver++


@torch.no_grad()
def dpmpp_2m(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2). `timesteps` should be even in log-SNR.

    The update is x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) D. Here h is the step in log-SNR, and D is the
    prediction of x_0 extrapolated from the last two to the middle of the step.
    """
    x = floats(x_T, "x_T")
    predictions = []
    for t, s in transitions(scheduler, timesteps):
        x_0 = denoise(x, as_t(t, x)).x_0
        yield State(t, x, x_0)
        if s == CLEAN:  # log-SNR is infinite there: the step ends on the prediction itself
            x = x_0
            break
        predictions = [PastPrediction(scheduler.log_snr_at(t), x_0), *predictions][:2]
        h = scheduler.log_snr_at(s) - scheduler.log_snr_at(t)
        x = _ode_step(scheduler, x, t, s, h, _extrapolated(predictions, h))
    yield State(CLEAN, x, x)


@torch.no_grad()
def dpmpp_3m(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """DPM-Solver++(3M), as in its authors' code: the update of `dpmpp_2m`, with D from the last three predictions.

    It is of second order, too, with a smaller error. Its authors' code gives half of its curvature to the parabola
    through the predictions (see `_extrapolated`). diffusers and this function do the same, for equal results. Its first
    step knows one prediction only, so that it is of first order.
    """
    x = floats(x_T, "x_T")
    predictions = []
    for t, s in transitions(scheduler, timesteps):
        x_0 = denoise(x, as_t(t, x)).x_0
        yield State(t, x, x_0)
        if s == CLEAN:
            x = x_0
            break
        predictions = [PastPrediction(scheduler.log_snr_at(t), x_0), *predictions][:3]
        h = scheduler.log_snr_at(s) - scheduler.log_snr_at(t)
        x = _ode_step(scheduler, x, t, s, h, _extrapolated(predictions, h))
    yield State(CLEAN, x, x)


@torch.no_grad()
def dpmpp_2m_sde(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    draw: bool = True,
) -> Iterator[State]:
    """DPM-Solver++(2M) SDE (Lu et al. 2022, eq. 18): the update of `dpmpp_2m` with 2h in place of h, and fresh noise.

    draw: for points, the last transitions are drawn with the full posterior covariance, as in `ddpm` with
    variance="exact". These are the ones that begin with at most 2.5 times the last noise level sigma / alpha. The
    samples are then draws of x_0, not its mean. The mean is too thin where the data are as thin as the last noise.
    Eq. 18 alone does not mend that (docs/tried.md).
    """
    x = floats(x_T, "x_T")
    steps = list(transitions(scheduler, timesteps))
    last_t, _ = steps[-1]
    draws_from = scheduler.log_snr_at(last_t) - DRAW_RANGE
    draw = draw and x.ndim == 2 and x.shape[1] <= DRAW_DIMS_MAX

    predictions = []
    for t, s in steps:
        if draw and scheduler.log_snr_at(t) >= draws_from:
            prediction, covariance = prediction_and_covariance(denoise, scheduler, x, t)
            yield State(t, x, prediction.x_0)
            x = draw_with_covariance(scheduler, x, t, s, prediction, covariance, generator)
            continue

        x_0 = denoise(x, as_t(t, x)).x_0
        yield State(t, x, x_0)
        if s == CLEAN:
            x = x_0
            break
        predictions = [PastPrediction(scheduler.log_snr_at(t), x_0), *predictions][:2]
        h = scheduler.log_snr_at(s) - scheduler.log_snr_at(t)
        x = _sde_step(scheduler, x, t, s, h, _extrapolated(predictions, h), generator)
    yield State(CLEAN, x, x)


def _ode_step(scheduler: NoiseScheduler, x: Tensor, t: int, s: int, h: float, D: Tensor) -> Tensor:
    """x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) D (Lu et al. 2022, arXiv 2211.01095, eq. 9)."""
    alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
    _, sigma_t = scheduler.alpha_sigma_at(t)
    return sigma_s / sigma_t * x - alpha_s * math.expm1(-h) * D


def _sde_step(
    scheduler: NoiseScheduler,
    x: Tensor,
    t: int,
    s: int,
    h: float,
    D: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """x_s by eq. 18 of Lu et al. 2022, with fresh noise z.

    x_s = sigma_s / sigma_t exp(-h) x_t + alpha_s (1 - exp(-2h)) D + sigma_s sqrt(1 - exp(-2h)) z.
    """
    alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
    _, sigma_t = scheduler.alpha_sigma_at(t)
    x = sigma_s / sigma_t * math.exp(-h) * x - alpha_s * math.expm1(-2 * h) * D
    return x + sigma_s * math.sqrt(-math.expm1(-2 * h)) * noise_like(x, generator)


def _extrapolated(predictions: Sequence[PastPrediction], h: float) -> Tensor:
    """The mean of x_0 over a step h from the newest prediction, weighted by exp(log-SNR), from one, two or three
    predictions (newest first)."""
    newest = predictions[0].x_0
    slopes = _slopes(predictions, predictions[0].log_snr + h)
    if not slopes or math.isinf(h):
        return newest
    if len(slopes) == 1:  # eq. 21 of Lu et al. to second order, and exactly that of their 2M
        return newest + slopes[0].D / 2

    near, far = slopes
    curvature = (near.D - far.D) / (near.r - far.r)
    weight = -math.expm1(-h)
    first = 1 - weight / h
    second = 0.5 - (h - weight) / h**2  # half of what is exact for a parabola, as in the authors' code
    return newest + (first * (near.D - near.r * curvature) + second * curvature) / weight


# ---------------------------------------------------------------- UniPC


@torch.no_grad()
def unipc(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    order: int = 3,
) -> Iterator[State]:
    """UniPC (Zhao et al. 2023, arXiv 2302.04867, algorithms 1 and 2, B_2(h) = exp(h) - 1), predicting x_0.

    Each step is taken twice: once to predict its end, and once more, corrected by the prediction of x_0 made there. The
    correction needs no further evaluation. The last steps are of lower order, and the very last ends on the prediction
    of x_0.

    Best with spacing="angle": on eight point sets with the exact denoiser its error at 10 evaluations is half, and at
    15 and 20 about a third, of the error with steps even in log-SNR.
    """
    x = floats(x_T, "x_T")
    steps = list(transitions(scheduler, timesteps))
    begin = x
    predictions = []
    used = 0
    for i, (t, s) in enumerate(steps):
        x_0 = denoise(x, as_t(t, x)).x_0
        yield State(t, x, x_0)
        newest = PastPrediction(scheduler.log_snr_at(t), x_0)
        if i > 0:
            x = _unipc_step(scheduler, begin, steps[i - 1], predictions[:used], at_end=newest)
        begin = x
        predictions = [newest, *predictions]
        used = min(order, i + 1, len(steps) - i)
        x = _unipc_step(scheduler, begin, (t, s), predictions[:used], at_end=None)
    yield State(CLEAN, x, x)


def _unipc_step(
    scheduler: NoiseScheduler,
    x: Tensor,
    transition: tuple[int, int],
    predictions: Sequence[PastPrediction],
    at_end: PastPrediction | None,
) -> Tensor:
    """x_s from x_t = x by a polynomial through these predictions, newest first, and through the one at the end of the
    transition (t, s) if it is known."""
    t, s = transition
    _, sigma_t = scheduler.alpha_sigma_at(t)
    alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
    newest = predictions[0]
    log_snr_s = scheduler.log_snr_at(s)
    h = log_snr_s - newest.log_snr
    x = sigma_s / sigma_t * x - alpha_s * math.expm1(-h) * newest.x_0
    if math.isinf(h):
        return x

    slopes = _slopes(predictions, log_snr_s)
    if at_end is not None:
        slopes.append(Slope(1.0, at_end.x_0 - newest.x_0))
    weights = _unipc_weights([slope.r for slope in slopes], h)
    total = 0 * x
    for weight, slope in zip(weights, slopes):
        total = total + weight * slope.D
    return x - alpha_s * math.expm1(-h) * total


def _unipc_weights(places: list[float], h: float) -> list[float]:
    """The weights a of eq. 5 for data prediction, with which the step is exact for polynomials in log-SNR.

    A single place gets 1/2, which agrees to second order (section 3.3).
    """
    if len(places) < 2:
        return [0.5] * len(places)
    phi = math.expm1(-h) / -h - 1
    factorial = 1
    moments = []
    for i in range(len(places)):
        moments.append(phi * factorial / math.expm1(-h))
        factorial *= i + 2
        phi = phi / -h - 1 / factorial
    return np.linalg.solve(np.vander(places, increasing=True).T, moments).tolist()


# ---------------------------------------------------------------- Adams


class Velocity(NamedTuple):
    """A point u (B, *dims) of a path, and its velocity v = du / dangle, at an angle."""

    angle: float
    u: Tensor
    v: Tensor


@torch.no_grad()
def adams(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Adams' methods in the angle arctan(sigma / alpha), for the fewest evaluations. Best with spacing="angle".

    Adams-Bashforth predicts x_s. Adams-Moulton, of third order, corrects it by the velocity at s, which the next step
    evaluates anyway.

    The point u = x / sqrt(alpha^2 + sigma^2) moves by du / dangle = v = cos(angle) eps - sin(angle) x_0 (Salimans and
    Ho 2022, arXiv 2202.00512, appendix D; Lu and Song 2024, arXiv 2410.11081). Nothing in it is infinite, neither at
    pure noise nor at clean data. In units of the data v changes little. Zhang and Chen 2023 (arXiv 2204.13902) use
    earlier eps in sigma / alpha in the same way.
    """
    x = floats(x_T, "x_T")
    newest = None
    earlier = None
    for t, s in transitions(scheduler, timesteps):
        alpha, sigma = scheduler.alpha_sigma_at(t)
        scale = math.hypot(alpha, sigma)
        angle = math.atan2(sigma, alpha)

        eps, x_0 = denoise(x, as_t(t, x))
        yield State(t, x, x_0)
        v = (alpha * eps - sigma * x_0) / scale
        u = x / scale if newest is None else _moulton(newest, earlier, angle, v)

        earlier = newest
        newest = Velocity(angle, u, v)
        alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
        x = math.hypot(alpha_s, sigma_s) * _bashforth(newest, earlier, math.atan2(sigma_s, alpha_s))
    yield State(CLEAN, x, x)


def _bashforth(newest: Velocity, earlier: Velocity | None, angle: float) -> Tensor:
    """u at `angle`: the integral of the line through two velocities, or of one constant velocity."""
    h = angle - newest.angle
    if earlier is None:
        return newest.u + h * newest.v
    return newest.u + h * (newest.v + h / 2 * (newest.v - earlier.v) / (newest.angle - earlier.angle))


def _moulton(newest: Velocity, earlier: Velocity | None, angle: float, v: Tensor) -> Tensor:
    """u at `angle`, where the velocity is v: the integral of the parabola through three velocities, or of a line."""
    h = angle - newest.angle
    u = newest.u + h / 2 * (newest.v + v)
    if earlier is None:
        return u
    h_earlier = newest.angle - earlier.angle
    slope = (v - newest.v) / h
    slope_earlier = (newest.v - earlier.v) / h_earlier
    curvature = (slope - slope_earlier) / (h + h_earlier)
    return u - h**3 / 6 * curvature
