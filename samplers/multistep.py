"""Solvers of the probability flow that remember: each stride also uses guesses of the strides before it.

The flow depends on the process by x / alpha as a function of sigma / alpha alone: d(x / alpha) / d(sigma / alpha) = eps
(Karras et al. 2022, arXiv 2206.00364, eq. 4). DPM-Solver++ and UniPC take the guess of x_0 for a polynomial in
log-SNR, `adams` the velocity for one in the angle arctan(sigma / alpha).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion import Denoiser
from runtime.arrays import floats
from samplers.covariance import drawn, with_covariance
from samplers.steps import State, as_t, noise_like, strides
from schedule import CLEAN, NoiseScheduler

NEAR_THE_END = math.log(2.5)  # in log-SNR, from the last evaluation
MOST_DRAWN = 8  # dims: each takes an evaluation


def _log_snr(scheduler: NoiseScheduler, t: int) -> float:
    alpha, sigma = scheduler.alpha_sigma_at(t)
    return -math.inf if alpha == 0 else math.inf if sigma == 0 else math.log(alpha / sigma)


class Guess(NamedTuple):
    """A guess of x_0, and the log-SNR at which it was made."""

    log_snr: float
    x_0: Tensor


def _slopes(guesses: Sequence[Guess], log_snr: float) -> list[tuple[float, Tensor]]:
    """(r, D) of each guess but the newest: r its place, in strides from the newest to `log_snr`, and D = (x_0 - the
    newest) / r, the slope between the two. A guess at log-SNR -inf is too far off to say anything."""
    newest, *others = guesses
    h = log_snr - newest.log_snr
    placed = [((g.log_snr - newest.log_snr) / h, g.x_0) for g in others if math.isfinite(g.log_snr)]
    return [(r, (x_0 - newest.x_0) / r) for r, x_0 in placed]


@torch.no_grad()
def dpmpp(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    order: int = 2,
    stochastic: bool = False,
    draw: bool = False,
) -> Iterator[State]:
    """DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095): 2M (algorithm 2), 3M as in its authors' code, 2M SDE (eq. 18).

    x_s = sigma_s / sigma_t x_t + alpha_s (1 - exp(-h)) D with h the stride in log-SNR and D the guess of x_0
    extrapolated to the middle of the stride. The SDE has 2h in place of h, and fresh noise. `timesteps` should be even
    in log-SNR.

    3M is of second order, too, with a smaller error. Its authors' code counts the curvature of its parabola half (see
    `_mean`), and so do diffusers and we, for equal results; nor could the first stride, which knows one guess only,
    be of more than first order.

    draw: of points, the strides that begin with at most 2.5 times the last noise sigma / alpha are those of `ddpm` with
    variance=exact (see `drawn`), so that the last ends on a draw of x_0, not on its mean, which is too thin for data as
    thin as that noise. There eq. 18 would put too much in its place: E[x_0 | x_t] is a martingale of the reverse SDE,
    so what extrapolation adds is noise, of even strides about as much as they lack, but of strides that grow, as
    whole numbers of steps make them near the end, more.
    """
    x, guesses, steps = floats(x_T, "x_T"), [], list(strides(scheduler, timesteps))
    near = _log_snr(scheduler, steps[-1][0]) - NEAR_THE_END
    draw = draw and x.ndim == 2 and x.shape[1] <= MOST_DRAWN
    for t, s in steps:
        if draw and _log_snr(scheduler, t) >= near:
            guess, covariance = with_covariance(denoise, scheduler, x, t)
            yield State(t, x, guess.x_0)
            x = drawn(scheduler, x, t, s, guess, covariance, generator)
            continue
        x_0 = denoise(x, as_t(t, x)).x_0
        yield State(t, x, x_0)
        guesses = [Guess(_log_snr(scheduler, t), x_0), *guesses][:order]
        if s == CLEAN:  # infinite log-SNR: the guess itself
            x = x_0
            break
        (_, sigma_t), (alpha_s, sigma_s) = scheduler.alpha_sigma_at(t), scheduler.alpha_sigma_at(s)
        h = _log_snr(scheduler, s) - guesses[0].log_snr
        if stochastic:
            x = sigma_s / sigma_t * math.exp(-h) * x - alpha_s * math.expm1(-2 * h) * _mean(guesses, h)
            x = x + sigma_s * math.sqrt(-math.expm1(-2 * h)) * noise_like(x, generator)
        else:
            x = sigma_s / sigma_t * x - alpha_s * math.expm1(-h) * _mean(guesses, h)
    yield State(CLEAN, x, x)


def _mean(guesses: Sequence[Guess], h: float) -> Tensor:
    """The mean of x_0 over a stride h from the newest guess, as exp(log-SNR) weighs it; from the last 1, 2 or 3."""
    newest = guesses[0].x_0
    slopes = _slopes(guesses, guesses[0].log_snr + h)
    if not slopes or math.isinf(h):
        return newest
    (r, slope), *more = slopes
    if not more:
        return newest + slope / 2  # eq. 21 of Lu et al. to second order, and exactly that of their 2M
    (r_2, slope_2), weight = more[0], -math.expm1(-h)
    curvature = (slope - slope_2) / (r - r_2)
    first, second = 1 - weight / h, 0.5 - (h - weight) / h**2  # exact for a parabola would be twice this second
    return newest + (first * (slope - r * curvature) + second * curvature) / weight


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

    Each stride is taken twice: without the guess at its end, then once more with it; no evaluation is added by that.
    The last strides are of lower order, and the very last ends on the guess of x_0. Best from the angles of
    `timesteps(..., spacing="angle")`: on eight point sets with the exact denoiser, its error at 10 evaluations is half,
    and at 15 and 20 about a third, of that with steps even in log-SNR.
    """
    x, begin, guesses, used = floats(x_T, "x_T"), None, [], 0
    for i, (t, s) in enumerate(steps := list(strides(scheduler, timesteps))):
        x_0, log_snr = denoise(x, as_t(t, x)).x_0, _log_snr(scheduler, t)
        yield State(t, x, x_0)
        if begin is not None:
            x = _uni_stride(scheduler, begin, steps[i - 1], guesses[:used], Guess(log_snr, x_0))
        guesses, begin = [Guess(log_snr, x_0), *guesses], x
        used = min(order, i + 1, len(steps) - i)
        x = _uni_stride(scheduler, begin, (t, s), guesses[:used], None)
    yield State(CLEAN, x, x)


def _uni_stride(
    scheduler: NoiseScheduler, x: Tensor, stride: tuple[int, int], guesses: Sequence[Guess], at_end: Guess | None
) -> Tensor:
    """The stride from x by a polynomial through these guesses (newest first), and through that at its end if known."""
    (_, sigma_t), (alpha_s, sigma_s) = map(scheduler.alpha_sigma_at, stride)
    newest, log_snr = guesses[0], _log_snr(scheduler, stride[1])
    h = log_snr - newest.log_snr
    x = sigma_s / sigma_t * x - alpha_s * math.expm1(-h) * newest.x_0
    if math.isinf(h):
        return x
    slopes = _slopes(guesses, log_snr) + ([] if at_end is None else [(1.0, at_end.x_0 - newest.x_0)])
    weights = _uni_weights([r for r, _ in slopes], h)
    return x - alpha_s * math.expm1(-h) * sum((w * slope for w, (_, slope) in zip(weights, slopes)), 0 * x)


def _uni_weights(places: list[float], h: float) -> list[float]:
    """The a of eq. 5 for data prediction: with them the stride is exact for polynomials in log-SNR.

    One place is given 1/2, which is that to second order (section 3.3).
    """
    if len(places) < 2:
        return [0.5] * len(places)
    phi, factorial, moments = math.expm1(-h) / -h - 1, 1, []
    for i in range(len(places)):
        moments.append(phi * factorial / math.expm1(-h))
        factorial *= i + 2
        phi = phi / -h - 1 / factorial
    return np.linalg.solve(np.vander(places, increasing=True).T, moments).tolist()


@torch.no_grad()
def adams(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Adams' methods in the angle: Adams-Bashforth predicts, Adams-Moulton corrects (third order) with what the next
    stride evaluates anyway. The fewest steps, from the angles of `timesteps(..., spacing="angle")`.

    With the angle arctan(sigma / alpha), the point u = x / sqrt(alpha^2 + sigma^2) moves by du / dangle = v =
    cos(angle) eps - sin(angle) x_0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D; Lu and Song 2024, arXiv
    2410.11081). Nothing in it is infinite, neither at pure noise nor at clean data, and in units of the data v changes
    little. Of earlier velocities see Zhang and Chen 2023, arXiv 2204.13902, who take eps in sigma / alpha.
    """
    x, now, before = floats(x_T, "x_T"), None, None
    for t, s in strides(scheduler, timesteps):
        (alpha, sigma), (alpha_s, sigma_s) = scheduler.alpha_sigma_at(t), scheduler.alpha_sigma_at(s)
        size, angle = math.hypot(alpha, sigma), math.atan2(sigma, alpha)
        eps, x_0 = denoise(x, as_t(t, x))
        yield State(t, x, x_0)
        v = (alpha * eps - sigma * x_0) / size
        u = x / size if now is None else _moulton(now, before, angle, v)
        before, now = now, Moment(angle, u, v)
        x = math.hypot(alpha_s, sigma_s) * _bashforth(now, before, math.atan2(sigma_s, alpha_s))
    yield State(CLEAN, x, x)


class Moment(NamedTuple):
    """A point and its velocity at an angle."""

    angle: float
    u: Tensor
    v: Tensor


def _bashforth(now: Moment, before: Moment | None, angle: float) -> Tensor:
    """u at `angle` from two velocities, or one: their straight line, integrated."""
    h = angle - now.angle
    if before is None:
        return now.u + h * now.v
    return now.u + h * (now.v + h / 2 * (now.v - before.v) / (now.angle - before.angle))


def _moulton(now: Moment, before: Moment | None, angle: float, v: Tensor) -> Tensor:
    """u at `angle` from the velocity v there as well: a parabola through three of them, or a line, integrated."""
    h = angle - now.angle
    u = now.u + h / 2 * (now.v + v)
    if before is None:
        return u
    h_before = now.angle - before.angle
    bend = ((v - now.v) / h - (now.v - before.v) / h_before) / (h + h_before)
    return u - h**3 / 6 * bend
