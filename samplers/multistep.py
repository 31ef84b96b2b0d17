"""Multistep ODE solvers, which reuse earlier predictions, and DPM-Solver++'s SDE.

The probability flow depends on the process only through x / alpha as a function of sigma / alpha:
d(x / alpha) / d(sigma / alpha) = eps (Karras et al. 2022, arXiv 2206.00364, eq. 4). DPM-Solver++
and UniPC interpolate the prediction of x_0 by a polynomial in log-SNR. `adams` interpolates the
velocity by one in the angle arctan(sigma / alpha).

A step goes from t to s, and h is its length in log-SNR. It is infinite where step t holds no
signal, as the first may, and where s is clean. Deterministic samplers use no random number, and
take `generator` only because all samplers have the same arguments.
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

DRAW_RANGE = math.log(2.5)  # draw where log-SNR is within log 2.5 of the last
DRAW_DIMS_MAX = 8  # each dimension costs one more evaluation


class PastPrediction(NamedTuple):
    """A prediction of x_0, and the log-SNR at which it was made."""

    log_snr: float
    x_0: Tensor


class Slope(NamedTuple):
    """The slope from the newest prediction of x_0 to another one.

    r: the log-SNR of the other prediction, minus that of the newest, in units of the coming step h.
        It is negative for earlier predictions, and 1 for one at the end of the step.
    D: (x_0 - newest x_0) / r.
    """

    r: float
    D: Tensor


def _slopes(predictions: Sequence[PastPrediction], log_snr: float) -> list[Slope]:
    """Return the slopes of all predictions but the newest, for the step that ends at `log_snr`.

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


def dpmpp_2m(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    The update is x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) mean_x_0. Here mean_x_0 is the
    value in the middle of the step of the line through the last two predictions of x_0.

    `timesteps` should be even in log-SNR.
    """
    return _dpmpp_ode(denoise, scheduler, x_T, timesteps, num_predictions=2)


def dpmpp_3m(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """DPM-Solver++(3M), as in its authors' code: `dpmpp_2m` with the last three predictions.

    It is of second order, too, with a smaller error: its authors' code halves the curvature term of
    the parabola through the predictions (see `_mean_over_step`). diffusers and this function do the
    same, for equal results. The first step knows one prediction only, so it is of first order.
    """
    return _dpmpp_ode(denoise, scheduler, x_T, timesteps, num_predictions=3)


@torch.no_grad()
def _dpmpp_ode(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    timesteps: Sequence[int] | None,
    num_predictions: int,
) -> Iterator[State]:
    """Yield the states of DPM-Solver++, with steps from the last `num_predictions` predictions."""
    x = floats(x_T, "x_T")
    predictions = []
    for t, s in transitions(scheduler, timesteps):
        x_0 = denoise(x, as_t(t, x)).x_0
        yield State(t, x, x_0)
        if s == CLEAN:  # log-SNR is infinite there: the step ends on the prediction itself
            x = x_0
            break
        predictions = [PastPrediction(scheduler.log_snr_at(t), x_0), *predictions]
        predictions = predictions[:num_predictions]
        h = scheduler.log_snr_at(s) - scheduler.log_snr_at(t)
        x = _ode_step(scheduler, x, t, s, h, _mean_over_step(predictions, h))
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
    """DPM-Solver++(2M) SDE (Lu et al. 2022, arXiv 2211.01095, eq. 18).

    This is the update of `dpmpp_2m` with 2h in place of h, and fresh noise.

    draw: for points, the last transitions are drawn with the full posterior covariance, as in
        `ddpm` with variance="exact". These are the ones that begin with at most 2.5 times the last
        noise level sigma / alpha. The samples are then draws of x_0, not its mean. The mean is too
        thin where the data are as thin as the last noise. Eq. 18 alone does not mend that
        (docs/tried.md).
    """
    x = floats(x_T, "x_T")
    steps = list(transitions(scheduler, timesteps))
    can_draw = draw and x.ndim == 2 and x.shape[1] <= DRAW_DIMS_MAX
    last_t, _ = steps[-1]
    first_drawn_log_snr = scheduler.log_snr_at(last_t) - DRAW_RANGE

    predictions = []
    for t, s in steps:
        if can_draw and scheduler.log_snr_at(t) >= first_drawn_log_snr:
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
        x = _sde_step(scheduler, x, t, s, h, _mean_over_step(predictions, h), generator)
    yield State(CLEAN, x, x)


def _ode_step(
    scheduler: NoiseScheduler,
    x: Tensor,
    t: int,
    s: int,
    h: float,
    mean_x_0: Tensor,
) -> Tensor:
    """Return x_s by eq. 9 of Lu et al. 2022, arXiv 2211.01095.

    x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) mean_x_0.
    """
    alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
    _, sigma_t = scheduler.alpha_sigma_at(t)
    return sigma_s / sigma_t * x - alpha_s * math.expm1(-h) * mean_x_0


def _sde_step(
    scheduler: NoiseScheduler,
    x: Tensor,
    t: int,
    s: int,
    h: float,
    mean_x_0: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Return x_s by eq. 18 of Lu et al. 2022, with fresh noise z.

    x_s = sigma_s / sigma_t exp(-h) x_t + alpha_s (1 - exp(-2h)) mean_x_0
          + sigma_s sqrt(1 - exp(-2h)) z.
    """
    alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
    _, sigma_t = scheduler.alpha_sigma_at(t)
    x = sigma_s / sigma_t * math.exp(-h) * x - alpha_s * math.expm1(-2 * h) * mean_x_0
    return x + sigma_s * math.sqrt(-math.expm1(-2 * h)) * noise_like(x, generator)


def _mean_over_step(predictions: Sequence[PastPrediction], h: float) -> Tensor:
    """Return the mean of x_0 over the coming step h, from one to three predictions, newest first.

    A polynomial through the predictions continues x_0 over the step. Let r run from 0 at the newest
    prediction to 1 at the end of the step. The exact solution weights x_0 at r by
    h exp(-(1 - r) h). One prediction stands for the whole step. Of two, the mean is the value in
    the middle, at r = 1/2, as in 2M. It agrees with the exact weights to second order.
    """
    newest = predictions[0].x_0
    slopes = _slopes(predictions, predictions[0].log_snr + h)
    if not slopes or math.isinf(h):  # infinite in a first step from pure noise
        return newest
    if len(slopes) == 1:
        return newest + slopes[0].D / 2

    # The parabola is newest + r (near.D - near.r curvature) + r^2 curvature.
    near, far = slopes
    curvature = (near.D - far.D) / (near.r - far.r)
    integral_of_1 = -math.expm1(-h)
    integral_of_r = 1 - integral_of_1 / h
    # The authors' code halves the curvature term, so this is half of the integral of r^2.
    half_integral_of_r2 = 0.5 - (h - integral_of_1) / h**2
    slope = near.D - near.r * curvature
    return newest + (integral_of_r * slope + half_integral_of_r2 * curvature) / integral_of_1


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
    """UniPC (Zhao et al. 2023, arXiv 2302.04867, algorithms 1 and 2), predicting x_0.

    Its function B is B_2, which for the prediction of x_0 is exp(-h) - 1.

    Each step is taken twice: once to predict its end, and once more, corrected by the prediction of
    x_0 made there. The correction needs no further evaluation. The last steps are of lower order,
    and the very last ends on the prediction of x_0.

    Best with spacing="angle": on eight point sets with the exact denoiser its error at 10
    evaluations is half, and at 15 and 20 about a third, of the error with steps even in log-SNR.
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
        # No more than the predictions there are; and the last steps, of which few are left, are of
        # lower order.
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
    """Return x_s, given x_t = x, for the transition (t, s).

    A polynomial continues x_0. It goes through these predictions, newest first, and through the
    one at the end of the transition, if it is known.
    """
    t, s = transition
    _, sigma_t = scheduler.alpha_sigma_at(t)
    alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
    newest = predictions[0]
    log_snr_s = scheduler.log_snr_at(s)
    h = log_snr_s - newest.log_snr
    x = sigma_s / sigma_t * x - alpha_s * math.expm1(-h) * newest.x_0
    if math.isinf(h):  # the first step from pure noise, or the last one, to clean data
        return x

    slopes = _slopes(predictions, log_snr_s)
    if at_end is not None:
        slopes.append(Slope(1.0, at_end.x_0 - newest.x_0))
    weights = _unipc_weights([slope.r for slope in slopes], h)
    total = torch.zeros_like(x)
    for weight, slope in zip(weights, slopes):
        total = total + weight * slope.D
    return x - alpha_s * math.expm1(-h) * total


def _unipc_weights(places: list[float], h: float) -> list[float]:
    """Return the weights of the slopes at these places r, for a step h in log-SNR.

    The weighted sum of the slopes is the mean of x_0 - newest x_0 over the step. It is exact where
    x_0 is a polynomial in log-SNR of degree len(places) at most (Zhao et al. 2023, arXiv
    2302.04867, eq. 5). So the weights a_m solve, for k = 1 .. len(places),

        sum_m a_m r_m^(k-1) = mean of r^k = k! z phi_{k+1}(z) / (exp(z) - 1),    z = -h

        phi_1(z) = (exp(z) - 1) / z,    phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z

    A single place gets 1/2, which agrees to second order (section 3.3 there).
    """
    if len(places) < 2:
        return [0.5] * len(places)
    z = -h
    z_phi = math.expm1(z) / z - 1  # z phi_{k+1}(z), for k = 1
    factorial = 1
    moments = []
    for k in range(1, len(places) + 1):
        moments.append(z_phi * factorial / math.expm1(z))
        factorial *= k + 1
        z_phi = z_phi / z - 1 / factorial
    return np.linalg.solve(np.vander(places, increasing=True).T, moments).tolist()


# ---------------------------------------------------------------- Adams


class PathPoint(NamedTuple):
    """A point u (B, *dims) of a path at an angle, and its velocity v = du / dangle.

    This v is the target "v" of registry.process_rows, not the "velocity" of flows, eps - x_0.
    """

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
    """Adams' methods in the angle arctan(sigma / alpha), for the fewest evaluations.

    Adams-Bashforth predicts x_s. Adams-Moulton, of third order, corrects it by the velocity at s,
    which the next step evaluates anyway. Best with spacing="angle".

    The point u = x / sqrt(alpha^2 + sigma^2) moves by du / dangle = v = cos(angle) eps -
    sin(angle) x_0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D; Lu and Song 2024, arXiv
    2410.11081). Nothing in it is infinite, neither at pure noise nor at clean data. For a standard
    normal distribution, which normalised data resemble, v is 0. Zhang and Chen 2023 (arXiv
    2204.13902) use earlier eps in sigma / alpha in the same way.
    """
    x = floats(x_T, "x_T")
    newest = None
    earlier = None
    for t, s in transitions(scheduler, timesteps):
        alpha, sigma = scheduler.alpha_sigma_at(t)
        scale = math.hypot(alpha, sigma)
        angle = math.atan2(sigma, alpha)

        # The state that is yielded is the predicted one, because the network was evaluated there.
        # The path goes on from u, the corrected one.
        eps, x_0 = denoise(x, as_t(t, x))
        yield State(t, x, x_0)
        v = (alpha * eps - sigma * x_0) / scale
        u = x / scale if newest is None else _moulton(newest, earlier, angle, v)

        earlier = newest
        newest = PathPoint(angle, u, v)
        alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
        x = math.hypot(alpha_s, sigma_s) * _bashforth(newest, earlier, math.atan2(sigma_s, alpha_s))
    yield State(CLEAN, x, x)


# The angle falls from noise to data, so h is negative in both functions.


def _bashforth(begin: PathPoint, earlier: PathPoint | None, angle: float) -> Tensor:
    """Return u at `angle`, predicted from the begin of the step and the point before it.

    This is the integral of the line through the two velocities, or of the one velocity there is.
    """
    h = angle - begin.angle
    if earlier is None:
        return begin.u + h * begin.v
    return begin.u + h * (begin.v + h / 2 * (begin.v - earlier.v) / (begin.angle - earlier.angle))


def _moulton(begin: PathPoint, earlier: PathPoint | None, angle: float, v: Tensor) -> Tensor:
    """Return u at `angle`, corrected by the velocity v there.

    This is the integral of the parabola through the three velocities, or of the line through two.
    """
    h = angle - begin.angle
    u = begin.u + h / 2 * (begin.v + v)
    if earlier is None:
        return u
    h_earlier = begin.angle - earlier.angle
    slope = (v - begin.v) / h
    slope_earlier = (begin.v - earlier.v) / h_earlier
    curvature = (slope - slope_earlier) / (h + h_earlier)
    # The parabola is the line plus curvature a (a - h), with a the angle from the begin of the
    # step. The integral of a (a - h) from 0 to h is -h^3 / 6.
    return u - h**3 / 6 * curvature
