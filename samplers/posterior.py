"""Samples of x_0 given an observation y = A x_0 + noise, by a denoiser that was not trained for it.

By Bayes' rule the score of x_t given y is the score of x_t plus that of p(y | x_t). The second one is not known,
because p(x_0 | x_t) is not Gaussian. DPS, PiGDM and MMPS approximate it by a Gaussian around the prediction of x_0.
They differ in one line, the covariance that they assume. RePaint needs no score: it overwrites what is known, again and
again. TDS weights its samples, which corrects the error of its approximation. SIR makes no Gaussian assumption. It
draws many samples of the model without y and resamples them by how well they fit. For points, which are cheap, it is
accurate.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion import Denoiser, Prediction
from registry import implementation
from registry.plugins import is_added
from registry.posterior_rows import METHODS
from samplers import sample
from samplers.multistep import dpmpp_2m_sde
from samplers.observation import Observation
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from samplers.steps import State, as_t, checked_states, noise_like, transitions
from schedule import CLEAN, NoiseScheduler

REPAINT_ROUNDS = METHODS["repaint"].evaluations  # at every step
TDS_PARTICLES = METHODS["tds"].evaluations  # for each sample: the error of their weights shrinks like their root
SIR_DRAWS = METHODS["sir"].evaluations  # for each sample
RESAMPLE_BELOW = 0.5  # of TDS: rows are resampled when fewer of them, effectively, carry all the weight
SIGNAL_MIN = 0.01  # alpha / sigma below which y is ignored: the Jacobian of a network is only its error there
EPS_SHIFT_MAX = 10.0  # standard deviations, on average over the dimensions, by which eps is moved at most
PUSH_MAX = 1.0  # of TDS: standard deviations of a step's own noise
CG_ITERATIONS = 2  # of conjugate gradients: 5 take twice as long and fill in digits no better; 1 solves one number

# V v, the assumed covariance of x_0 given x_t times v (B, *dims). transposed: v -> J^T v, J = dx_0 / dx_t.
Covariance = Callable[[Tensor, Callable[[Tensor], Tensor], float, float], Tensor]


# ---------------------------------------------------------------- Gaussian approximations


def dps(v: Tensor, transposed: Callable[[Tensor], Tensor], alpha: float, sigma: float) -> Tensor:
    """V = 0: the prediction is exact (Chung et al. 2023, arXiv 2209.14687, eq. 11; step size 1 / noise^2, eq. 16).

    The paper's own step size, zeta / |y - A x_0|, is no better (docs/tried.md).
    """
    return torch.zeros_like(v)


def pigdm(v: Tensor, transposed: Callable[[Tensor], Tensor], alpha: float, sigma: float) -> Tensor:
    """V = r^2, as for standard normal data (Song et al. 2023, PiGDM, eq. 5)."""
    return r_squared(alpha, sigma) * v


def r_squared(alpha: float, sigma: float) -> float:
    """The variance of x_0 given x_t for standard normal data."""
    return sigma**2 / (alpha**2 + sigma**2)


def mmps(v: Tensor, transposed: Callable[[Tensor], Tensor], alpha: float, sigma: float) -> Tensor:
    """V = sigma^2 / alpha J, the true covariance by Tweedie's formula (Rozet et al. 2024, arXiv 2405.13712, sec. 4.2).

    The Jacobian J of the exact denoiser is symmetric, so that J^T v serves as J v.
    """
    return gain(alpha, sigma) * transposed(v)


def gain(alpha: float, sigma: float) -> float:
    """sigma^2 / alpha, by which x_0 moves with the score; 0 where x_t holds almost no signal (SIGNAL_MIN)."""
    return sigma**2 / alpha if alpha > SIGNAL_MIN * sigma else 0.0


def conditioned(
    denoise: Denoiser, scheduler: NoiseScheduler, observation: Observation, covariance: Covariance
) -> Denoiser:
    """The denoiser of x_0 given y. One t serves all rows.

    The score gains J^T A^T (noise^2 + A V A^T)^-1 (y - A x_0). So eps moves by -sigma times that, and x_0 by
    sigma^2 / alpha times that. The shift is bounded by EPS_SHIFT_MAX. Without the bound DPS, whose prediction counts as
    exact even at almost pure noise, multiplies small errors of a network (for schedule=flow it lost all samples).
    """

    def denoise_conditioned(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        alpha, sigma = scheduler.alpha_sigma_at(int(t))
        if gain(alpha, sigma) == 0:
            return denoise(x_t, t, label)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            eps, x_0 = denoise(x_t, t, label)

        def transposed(v: Tensor) -> Tensor:
            return torch.autograd.grad(x_0, x_t, v, retain_graph=True)[0]

        def covariance_of_y(v: Tensor) -> Tensor:  # (noise^2 + A V A^T) v
            A_t_v = observation.adjoint(v, x_t)
            return observation.noise**2 * v + observation.observe(covariance(A_t_v, transposed, alpha, sigma))

        residual = observation.value.to(x_t) - observation.observe(x_0.detach())
        weighted = conjugate_gradients(covariance_of_y, residual, observation.noise**2)
        score = transposed(observation.adjoint(weighted, x_t))
        score = torch.renorm(score, 2, 0, EPS_SHIFT_MAX * math.sqrt(x_t[0].numel()) / sigma)
        return Prediction(eps.detach() - sigma * score, x_0.detach() + gain(alpha, sigma) * score)

    return denoise_conditioned


def conjugate_gradients(times: Callable[[Tensor], Tensor], b: Tensor, smallest: float) -> Tensor:
    """The w of times(w) = b, row by row (B, m); `smallest` is the smallest eigenvalue of the matrix.

    A network's Jacobian is not quite symmetric, nor positive. The iteration ends in a direction whose curvature is
    below `smallest`.
    """
    w = torch.zeros_like(b)
    residual = b
    direction = b
    for _ in range(min(b.shape[1], CG_ITERATIONS)):
        image = times(direction)
        residual_norm = residual.square().sum(1, keepdim=True)
        curvature = (direction * image).sum(1, keepdim=True)
        lowest = 0.99 * smallest * direction.square().sum(1, keepdim=True)
        step = torch.where(curvature > lowest, residual_norm / curvature.clamp(min=1e-30), 0)
        w = w + step * direction
        residual = residual - step * image
        ratio = residual.square().sum(1, keepdim=True) / residual_norm.clamp(min=1e-30)
        direction = residual + ratio * direction
    return w


# ---------------------------------------------------------------- RePaint


@torch.no_grad()
def repaint(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    observation: Observation,
    *,
    timesteps: Sequence[int],
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """RePaint (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1) for any A: each ancestral step is taken ten times.

    Each round replaces A x_s by what it would be if the observed value were A x_0. All rounds but the last then return
    from s to t by fresh noise. The paper has no noise in the observation. Here each row has an observed value of its
    own, drawn around y.
    """
    inverse = torch.linalg.pinv(observation.matrix).T.to(x_T)  # (m, d)
    y_noise = observation.noise * observation.observe(noise_like(x_T, generator))
    y = observation.value.to(x_T) + y_noise / observation.matrix.norm(dim=1).to(x_T)

    x = x_T
    x_s = x_T
    for t, s in transitions(scheduler, timesteps):
        a, b = scheduler.transition(s, t)
        x_0 = x
        for rounds_left in range(REPAINT_ROUNDS - 1, -1, -1):
            x_0 = denoise(x, as_t(t, x)).x_0
            x_s = _overwritten_step(scheduler, x, x_0, t, s, y, observation, inverse, generator)
            if rounds_left > 0 and s != CLEAN:
                x = a * x_s + b * noise_like(x, generator)
        yield State(t, x, x_0)
        x = x_s
    yield State(CLEAN, x, x)


def _overwritten_step(
    scheduler: NoiseScheduler,
    x: Tensor,
    x_0: Tensor,
    t: int,
    s: int,
    y: Tensor,
    observation: Observation,
    inverse: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """x_s by an ancestral step from x_t = x, with A x_s replaced by y noised to s. y: (B, m); inverse: of A, (m, d)."""
    c_t, c_0, std = scheduler.posterior(t, s)
    alpha_s, sigma_s = scheduler.alpha_sigma_at(s)
    x_s = c_t * x + c_0 * x_0 + std * noise_like(x, generator)
    known = alpha_s * y + sigma_s * observation.observe(noise_like(x, generator))
    return x_s + ((known - observation.observe(x_s)) @ inverse).reshape(x.shape)


# ---------------------------------------------------------------- weighted samples: TDS and SIR


@torch.no_grad()
def tds(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    observation: Observation,
    *,
    timesteps: Sequence[int],
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """The twisted diffusion sampler (Wu et al. 2023, arXiv 2306.17775, algorithm 1): exact for ever more samples.

    Its ancestral steps are pushed towards y by p~(y | x_t), which has PiGDM's covariance. Weights correct the error of
    that approximation: p(x_s | x_t) p~(y | x_s) / (q(x_s | x_t) p~(y | x_t)) at each step. Rows are resampled by them
    when they differ too much. `timesteps` should be even in log-SNR. There are four rows for each sample, of which one
    is drawn at the end.

    The weights are right for any push. No push exceeds PUSH_MAX, because larger ones make the weights so uneven that
    almost no row survives (docs/tried.md).
    """
    count = len(x_T)
    x = _with_more_rows(x_T, TDS_PARTICLES, generator)
    log_w = torch.zeros(len(x)).to(x)
    for t, s in transitions(scheduler, timesteps):
        spread = r_squared(*scheduler.alpha_sigma_at(t))
        twisted = _twisted(denoise, x, t, observation, spread)
        log_w = log_w + twisted.log_p_y
        if _effective_size(log_w) < RESAMPLE_BELOW * len(x):
            twisted = twisted.rows(_resampled_rows(log_w, generator, len(x)))
            log_w = torch.zeros_like(log_w)
        yield State(t, twisted.x_t[:count], twisted.x_0[:count])

        log_w = log_w - twisted.log_p_y
        if s == CLEAN:  # a step without noise: no weight could correct a push
            x = twisted.x_0
            log_w = log_w + observation.log_likelihood(x)
        else:
            x, log_ratio = _pushed_step(scheduler, twisted, t, s, generator)
            log_w = log_w + log_ratio
    x = x[_resampled_rows(log_w, generator, count)]
    yield State(CLEAN, x, x)


def _with_more_rows(x_T: Tensor, factor: int, generator: torch.Generator | None) -> Tensor:
    """x_T (B, *dims), followed by fresh noise: (factor * B, *dims)."""
    return torch.cat([x_T, *(noise_like(x_T, generator) for _ in range(factor - 1))])


class Twisted(NamedTuple):
    """States with what pushes them towards y.

    x_t, x_0: the states and their predictions of x_0, (B, *dims).
    log_p_y: log p~(y | x_t), (B,). score: its gradient with respect to x_t, (B, *dims).
    """

    x_t: Tensor
    x_0: Tensor
    log_p_y: Tensor
    score: Tensor

    def rows(self, numbers: Tensor) -> "Twisted":
        """The rows of these numbers."""
        return Twisted(*(part[numbers] for part in self))


def _twisted(denoise: Denoiser, x: Tensor, t: int, observation: Observation, spread: float) -> Twisted:
    """The states x with p~(y | x_t) = N(A x_0, noise^2 + spread A A^T)."""
    with torch.enable_grad():
        x_t = x.detach().requires_grad_()
        x_0 = denoise(x_t, as_t(t, x_t)).x_0
        log_p_y = observation.log_likelihood(x_0, spread=spread)
        score = torch.autograd.grad(log_p_y.sum(), x_t)[0]
    return Twisted(x, x_0.detach(), log_p_y.detach(), score)


def _pushed_step(
    scheduler: NoiseScheduler,
    twisted: Twisted,
    t: int,
    s: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """x_s by an ancestral step that is pushed towards y, and log p(x_s | x_t) / q(x_s | x_t), (B,)."""
    c_t, c_0, std = scheduler.posterior(t, s)
    z = noise_like(twisted.x_t, generator)
    push = c_0 * gain(*scheduler.alpha_sigma_at(t)) * twisted.score
    push = torch.renorm(push, 2, 0, PUSH_MAX * std)  # bounds the length of each row
    x_s = c_t * twisted.x_t + c_0 * twisted.x_0 + push + std * z
    log_ratio = 0.5 * (z.square() - (z + push / std).square()).flatten(1).sum(1)
    return x_s, log_ratio


def _effective_size(log_w: Tensor) -> Tensor:
    """The number of equally weighted rows that would be as good: 1 / sum of squared weights."""
    return 1 / log_w.softmax(0).square().sum()


def _resampled_rows(log_w: Tensor, generator: torch.Generator | None, count: int) -> Tensor:
    """Row numbers (count,), each as often as its weight says (systematic resampling: Carpenter et al. 1999)."""
    u = torch.rand((), generator=generator, dtype=torch.float64, device=log_w.device)
    places = (torch.arange(count, device=log_w.device) + u) / count
    cumulative = log_w.double().softmax(0).cumsum(0)
    rows = torch.searchsorted(cumulative, places).clamp(max=len(log_w) - 1)
    return rows[torch.randperm(count, generator=generator, device=log_w.device)]  # copies would lie side by side


@torch.no_grad()
def sir(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    observation: Observation,
    *,
    timesteps: Sequence[int],
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Sampling and importance resampling (Rubin 1987, J. Am. Stat. Assoc. 82, 543): exact as long as enough draws fit.

    The model draws fifty samples for each one asked for, without y. They are resampled with weights p(y | x_0). Only
    the last state depends on y.
    """
    count = len(x_T)
    x = _with_more_rows(x_T, SIR_DRAWS, generator)
    for state in dpmpp_2m_sde(denoise, scheduler, x, timesteps=timesteps, generator=generator, draw=False):
        if state.t == CLEAN:
            rows = _resampled_rows(observation.log_likelihood(state.x_t), generator, count)
            x = state.x_t[rows]
            yield State(CLEAN, x, x)
        else:
            yield State(state.t, state.x_t[:count], state.x_0[:count])


# ---------------------------------------------------------------- by name


def method_timesteps(scheduler: NoiseScheduler, method: str) -> list[int]:
    """The falling steps t of that method, a key of METHODS. It yields a state for each, and then the samples."""
    row = METHODS[method]
    T = scheduler.num_timesteps
    return spaced_timesteps(scheduler, min(row.steps or T, T), row.spacing)


def sample_given(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    observation: Observation,
    *,
    method: str,
    generator: torch.Generator | None = None,
    postprocess: Callable[[Denoiser], Denoiser] | None = None,
) -> Iterator[State]:
    """Samples of x_0 given the observation, in the denoiser's units; `method` is a key of METHODS.

    postprocess: applied to the conditioned denoiser, such as diffusion.clamped_denoiser.
    """
    row = METHODS[method]
    timesteps = method_timesteps(scheduler, method)
    if row.sampler is None:
        run = implementation(row)
        states = run(denoise, scheduler, x_T, observation, timesteps=timesteps, generator=generator)
        kind = "posterior sampler"
        return checked_states(kind, method, states, x_T, timesteps) if is_added(kind, method) else states

    denoise_conditioned = conditioned(denoise, scheduler, observation, implementation(row))
    if postprocess:
        denoise_conditioned = postprocess(denoise_conditioned)
    options = SamplingOptions(sampler=row.sampler, sampling_steps=len(timesteps), eta=row.eta)
    return sample(denoise_conditioned, scheduler, x_T, options, generator=generator)
