"""The exact flow map, from noise to data, and how far from it samplers end.

The probability flow of the exact distribution (Song et al. 2021, arXiv 2011.13456, eq. 13) carries every x_T to one
clean point. It is integrated once, to about 1e-8, where nothing in it is infinite: with the angle phi =
arctan(sigma / alpha), u = x / sqrt(alpha^2 + sigma^2) moves by du/dphi = cos(phi) eps - sin(phi) x_0 (Salimans and Ho
2022, arXiv 2202.00512, appendix D), from the (alpha, sigma) of t = T - 1, where samplers begin, to phi = 0, clean data.

Samplers are compared with it at their end, clean data as well. All but `adams` end on the guess of x_0 at t = 0. That
stride alone costs something even on the exact flow, which `FlowMap.last_step` says, and about there they come to rest,
however many evaluations they have. The last stride of `adams` is of second order, like its others, and costs far less.
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

Guess = Callable[[Tensor, float, float], tuple[Tensor, Tensor]]  # (x_t, alpha, sigma) -> E[eps | x_t], E[x_0 | x_t]
TOLERANCE = 1e-10  # of a step, relative and absolute
EVALUATIONS = (5, 7, 10, 14, 20, 28, 40, 57, 80, 113, 160)
FROM, ABOVE = 10, 3  # a slope is measured from so many evaluations on, at errors so many times what cannot be avoided


def exact_flow(guess: Guess, scheduler: NoiseScheduler, x_T: Tensor, steps: Sequence[int] = (CLEAN,)) -> Tensor:
    """Where the exact flow carries x_T (N, d) from t = T - 1: x_t at each of the falling `steps` t, (S, N, d), float64.

    Raises:
        ValueError: it could not be integrated.
    """
    pairs = [scheduler.alpha_sigma_at(t) for t in steps]
    alpha_T, sigma_T = scheduler.alpha_sigma_at(scheduler.num_timesteps - 1)
    start, angles = math.atan2(sigma_T, alpha_T), [math.atan2(sigma, alpha) for alpha, sigma in pairs]

    def velocity(angle: float, u: np.ndarray) -> np.ndarray:
        alpha, sigma = math.cos(angle), math.sin(angle)
        eps, x_0 = guess(torch.from_numpy(u).view(x_T.shape), alpha, sigma)
        return (alpha * eps - sigma * x_0).flatten().numpy()

    u_T = (x_T.double().cpu() / math.hypot(alpha_T, sigma_T)).flatten().numpy()
    found = solve_ivp(
        velocity, (start, min(angles)), u_T, method="DOP853", t_eval=angles, rtol=TOLERANCE, atol=TOLERANCE
    )
    if not found.success:
        raise ValueError(f"the exact flow could not be integrated: {found.message}")
    sizes = torch.tensor([math.hypot(*pair) for pair in pairs], dtype=torch.float64)
    return sizes[:, None, None] * torch.from_numpy(found.y.T.copy()).view(len(steps), *x_T.shape)


@dataclass(frozen=True)
class FlowMap:
    """Distances from where the exact flow ends, in units of the normalised data: the median over the points, because
    the few that end on another part of the data would hide all others in a mean.

    evaluations[sampler] (K,), errors[denoiser][sampler] (K,); slopes[sampler]: the order at which the error falls with
    the exact denoiser, NaN where too few counts say so; last_step: the error of the guess of x_0 at
    t = 0 on the exact flow; all samplers but adams end on that guess.
    """

    evaluations: Mapping[str, list[int]]
    errors: Mapping[str, Mapping[str, list[float]]]
    slopes: Mapping[str, float]
    last_step: float


def flow_map(
    guess: Guess,
    scheduler: NoiseScheduler,
    denoisers: Mapping[str, Denoiser],
    x_T: Mapping[str, Tensor],
    samplers: Sequence[str],
) -> FlowMap:
    """The errors of deterministic samplers with every denoiser, from the same points x_T[denoiser] (N, d), which
    differ in dtype and device only; the slopes are those of the first denoiser, which is the exact one."""
    first = next(iter(denoisers))
    truth = exact_flow(guess, scheduler, x_T[first], [0, CLEAN])
    asked = [n for n in EVALUATIONS if n <= scheduler.num_timesteps]
    evaluations = {name: [count_evaluations(scheduler, SamplingOptions(name, n)) for n in asked] for name in samplers}

    def error(denoiser: str, sampler: str, count: int) -> float:
        states = sample(denoisers[denoiser], scheduler, x_T[denoiser], SamplingOptions(sampler, count))
        return _distance(last(states).double().cpu(), truth[1])

    errors = {d: {name: [error(d, name, n) for n in asked] for name in samplers} for d in denoisers}

    last_step = _distance(guess(truth[0], *scheduler.alpha_sigma_at(0))[1], truth[1])
    return FlowMap(
        evaluations,
        errors,
        {name: slope(evaluations[name], e, ABOVE * min(last_step, *e)) for name, e in errors[first].items()},
        last_step,
    )


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm(dim=1).median())


def slope(evaluations: Sequence[int], errors: Sequence[float], above: float = 0.0) -> float:
    """p of error ~ evaluations^-p, by least squares over counts from FROM on with an error above `above`; NaN for
    fewer than three."""
    kept = [(n, e) for n, e in zip(evaluations, errors) if n >= FROM and e > above]
    if len(kept) < 3:
        return math.nan
    n, e = np.log(np.array(kept)).T
    return -float(np.polyfit(n, e, 1)[0])


def flow_table(flow: FlowMap) -> str:
    """The error of every deterministic sampler by the number of evaluations, and its slope."""
    exact = next(iter(flow.errors))
    counts = next(iter(flow.evaluations.values()))
    lines = [f"error against the exact flow map, with the {exact} (the guess of x_0 at t = 0: {flow.last_step:.1e})"]
    lines.append(f"  {'evaluations':<12}" + "".join(f"{n:>9}" for n in counts) + "    slope")
    for name, errors in flow.errors[exact].items():
        row = "".join(f"{e:>9.1e}" for e in errors)
        lines.append(f"  {name:<12}{row}" + ("" if math.isnan(flow.slopes[name]) else f"{flow.slopes[name]:>9.2f}"))
    return "\n".join(lines)
