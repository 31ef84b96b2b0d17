"""The exact flow map from noise to data, and the distance of samplers from it.

The probability flow of the exact distribution (Song et al. 2021, arXiv 2011.13456, eq. 13) carries
every x_T to one clean point. It is integrated once, to about 1e-8, in coordinates where nothing
becomes infinite. With the angle phi = arctan(sigma / alpha) and u = x / sqrt(alpha^2 + sigma^2)
(Salimans and Ho 2022, arXiv 2202.00512, appendix D),

    du/dphi = cos(phi) eps - sin(phi) x_0,

from the (alpha, sigma) of t = T - 1, where samplers begin, to phi = 0, which is clean data.

Samplers are compared with the flow map at clean data. All but `adams` end on the prediction of x_0
at t = 0. This last transition has an error even on the exact flow, `FlowMap.last_step`. The error
of such a sampler levels off there, however many evaluations it has. The last transition of `adams`
is of second order and has a much smaller error.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from diffusion import Denoiser
from samplers import count_evaluations, last, sample
from samplers.options import SamplingOptions
from schedule import CLEAN, NoiseScheduler

PosteriorMeans = Callable[[Tensor, float, float], tuple[Tensor, Tensor]]
"""A denoiser of numbers, which turns (x_t, alpha, sigma) into E[eps | x_t] and E[x_0 | x_t]."""

TOLERANCE = 1e-10  # of one step of the integration, relative and absolute
EVALUATIONS = (5, 7, 10, 14, 20, 28, 40, 57, 80, 113, 160)
FIRST_SLOPE_EVALUATIONS = 10  # with fewer a sampler has not reached its order yet
ABOVE_PLATEAU = 3  # a slope uses errors that are so many times the error that remains at the end
MIN_POINTS_FOR_SLOPE = 3


# ---------------------------------------------------------------- the exact flow


def exact_flow(
    posterior_means: PosteriorMeans,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    steps: Sequence[int] = (CLEAN,),
) -> Tensor:
    """Return where the exact flow carries x_T, at each of the given steps: (S, N, d) in float64.

    Args:
        posterior_means: of the exact distribution.
        scheduler: the process.
        x_T: points of shape (N, d) at t = T - 1.
        steps: the steps t to return, falling.

    Raises:
        ValueError: the integration failed.
    """
    pairs = [scheduler.alpha_sigma_at(t) for t in steps]
    angles = [math.atan2(sigma, alpha) for alpha, sigma in pairs]
    radii = [math.hypot(alpha, sigma) for alpha, sigma in pairs]
    alpha_T, sigma_T = scheduler.alpha_sigma_at(scheduler.num_timesteps - 1)

    def velocity(angle: float, u: np.ndarray) -> np.ndarray:
        """Return du/dphi."""
        alpha = math.cos(angle)
        sigma = math.sin(angle)
        eps, x_0 = posterior_means(torch.from_numpy(u).view(x_T.shape), alpha, sigma)
        return (alpha * eps - sigma * x_0).flatten().numpy()

    u_T = x_T.double().cpu() / math.hypot(alpha_T, sigma_T)
    solution = solve_ivp(
        velocity,
        t_span=(math.atan2(sigma_T, alpha_T), min(angles)),
        y0=u_T.flatten().numpy(),
        method="DOP853",
        t_eval=angles,
        rtol=TOLERANCE,
        atol=TOLERANCE,
    )
    if not solution.success:
        raise ValueError(f"the exact flow could not be integrated: {solution.message}")
    u = torch.from_numpy(solution.y.T.copy()).view(len(steps), *x_T.shape)
    return torch.tensor(radii, dtype=torch.float64)[:, None, None] * u


# ---------------------------------------------------------------- samplers beside it


@dataclass(frozen=True)
class FlowMap:
    """Distances of samples from the end of the exact flow, in units of the normalised data.

    Each error is the median over the points. A few points end on another part of the data, and in a
    mean their large distances would hide all others.

    evaluations: the numbers of evaluations by sampler, of length K.
    errors: the errors by denoiser and sampler, of length K.
    slopes: by sampler, with the exact denoiser: the exponent p of
        error ~ evaluations^-p. NaN where too few errors determine it.
    last_step: the error of the prediction of x_0 at t = 0 on the exact flow. All samplers but
        `adams` end on that prediction.
    """

    evaluations: Mapping[str, list[int]]
    errors: Mapping[str, Mapping[str, list[float]]]
    slopes: Mapping[str, float]
    last_step: float


def flow_map(
    posterior_means: PosteriorMeans,
    scheduler: NoiseScheduler,
    denoisers: Mapping[str, Denoiser],
    x_T: Mapping[str, Tensor],
    samplers: Sequence[str],
) -> FlowMap:
    """Measure the errors of deterministic samplers with every denoiser.

    Args:
        posterior_means: of the exact distribution.
        scheduler: the process.
        denoisers: by name. The first is the exact one, and the slopes are measured with it.
        x_T: for each denoiser the same points (N, d), in its dtype and on its device.
        samplers: names of deterministic samplers.
    """
    exact = next(iter(denoisers))
    at_zero, clean = exact_flow(posterior_means, scheduler, x_T[exact], [0, CLEAN])
    _, x_0 = posterior_means(at_zero, *scheduler.alpha_sigma_at(0))
    last_step = _distance(x_0, clean)

    counts = [n for n in EVALUATIONS if n <= scheduler.num_timesteps]
    evaluations = {}
    for sampler in samplers:
        evaluations[sampler] = [count_evaluations(scheduler, SamplingOptions(sampler, n)) for n in counts]

    errors = {}
    for name, denoise in denoisers.items():
        errors[name] = _errors(denoise, scheduler, x_T[name], samplers, counts, clean)

    slopes = _slopes(evaluations, errors[exact], last_step)
    return FlowMap(evaluations, errors, slopes, last_step)


def _errors(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    samplers: Sequence[str],
    counts: Sequence[int],
    clean: Tensor,
) -> dict[str, list[float]]:
    """Return the error of each sampler at each number of evaluations, with one denoiser.

    clean: where the exact flow carries each point of x_T, of shape (N, d).
    """
    errors = {}
    for sampler in samplers:
        errors[sampler] = []
        for n in counts:
            states = sample(denoise, scheduler, x_T, SamplingOptions(sampler, n))
            errors[sampler].append(_distance(last(states).double().cpu(), clean))
    return errors


def _slopes(
    evaluations: Mapping[str, list[int]],
    errors: Mapping[str, list[float]],
    last_step: float,
) -> dict[str, float]:
    """Return the slope of each sampler, from the errors above its plateau."""
    slopes = {}
    for sampler, counts in evaluations.items():
        plateau = min(last_step, *errors[sampler])
        slopes[sampler] = slope(counts, errors[sampler], ABOVE_PLATEAU * plateau)
    return slopes


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the median distance of corresponding points, both of shape (N, d)."""
    return float((a - b).norm(dim=1).median())


def slope(evaluations: Sequence[int], errors: Sequence[float], above: float = 0.0) -> float:
    """Return p of error ~ evaluations^-p, fitted by least squares on logarithmic axes.

    Only counts from 10 on with an error larger than `above` are used. NaN for fewer than three.
    """
    kept = []
    for n, error in zip(evaluations, errors):
        if n >= FIRST_SLOPE_EVALUATIONS and error > above:
            kept.append((n, error))
    if len(kept) < MIN_POINTS_FOR_SLOPE:
        return math.nan
    log_n, log_error = np.log(np.array(kept)).T
    return -float(np.polyfit(log_n, log_error, 1)[0])


def flow_table(flow: FlowMap) -> str:
    """Return the errors with the exact denoiser as text: one line for each sampler, by the largest
    numbers of evaluations that are allowed, with the slope. Only for many short steps is that the order."""
    exact = next(iter(flow.errors))
    counts = EVALUATIONS[: len(next(iter(flow.evaluations.values())))]
    last_step = f"the prediction of x_0 at t = 0: {flow.last_step:.1e}"
    lines = [f"error against the exact flow map, with the {exact} ({last_step})"]

    header = "".join(f"{n:>9}" for n in counts)
    lines.append(f"  {'at most':<12}{header}    slope")
    for name, errors in flow.errors[exact].items():
        row = "".join(f"{error:>9.1e}" for error in errors)
        fitted = flow.slopes[name]
        shown_slope = "" if math.isnan(fitted) else f"{fitted:>9.2f}"
        lines.append(f"  {name:<12}{row}{shown_slope}")
    return "\n".join(lines)
