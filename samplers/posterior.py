"""Samples of x_0 given an observation y = A x_0 + noise, by a denoiser that was never trained for it.

By Bayes' rule the score of x_t given y is that of x_t plus that of p(y | x_t), and the latter is what nobody knows:
p(x_0 | x_t) is not Gaussian. DPS, PiGDM and MMPS take it for one around the guess of x_0 and differ in one line, the
covariance that they believe it to have. RePaint needs no score: it overwrites what is known, over and
over. TDS weighs its samples, so that what it believes no longer matters. SIR believes nothing: it draws from the model,
blindly and often, and keeps what fits; of points, which are cheap, that is the best there is.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion import Denoiser, Prediction
from samplers import sample
from samplers.multistep import dpmpp
from samplers.observation import Observation
from samplers.spacing import spaced_timesteps
from samplers.steps import State, as_t, noise_like, strides
from schedule import CLEAN, NoiseScheduler

ROUNDS = 10  # of RePaint, at every step
PARTICLES = 4  # of TDS, for each sample: what their weights leave to chance shrinks like the root of it
BLIND = 50  # draws of SIR for each sample
FEWEST_ALIKE = 0.5  # of TDS: rows are drawn again when as few of them, effectively, carry all the weight
LEAST_SIGNAL = 0.01  # alpha / sigma below which nobody steers: the Jacobian of a network is nothing but its error there
FARTHEST = 10.0  # standard deviations, on average over the dims, by which eps is moved at most
LONGEST_PUSH = 1.0  # of TDS: standard deviations of a step's own noise
SOLVING = 2  # iterations of conjugate gradients: 5 take twice as long and fill in digits no better; 1 solves one number

# V v, the believed covariance of x_0 given x_t times v (B, *dims). transposed: v -> J^T v, J = dx_0 / dx_t.
Covariance = Callable[[Tensor, Callable[[Tensor], Tensor], float, float], Tensor]


def dps(v: Tensor, transposed: Callable[[Tensor], Tensor], alpha: float, sigma: float) -> Tensor:
    """V = 0: the guess is certain (Chung et al. 2023, arXiv 2209.14687, eq. 11; step size 1 / noise^2, eq. 16).

    The paper's own step size, zeta / |y - A x_0|, does no better: on moons with the exact denoiser, 1 000 samples, ours
    is 2.9 floors from the posterior given x+y=1 and 2.1 given y=0.2; theirs 2.8 and 1.8 at zeta = 0.01, 2.6 and 2.2 at
    0.03, 8.6 and 3.3 at 0.1, 22 and 13 at 0.3. What is wrong is the belief, not the step.
    """
    return torch.zeros_like(v)


def pigdm(v: Tensor, transposed: Callable[[Tensor], Tensor], alpha: float, sigma: float) -> Tensor:
    """V = r^2, as if the data were standard normal (Song et al. 2023, PiGDM, eq. 5)."""
    return r_squared(alpha, sigma) * v


def r_squared(alpha: float, sigma: float) -> float:
    """The variance of x_0 given x_t where the data are standard normal."""
    return sigma**2 / (alpha**2 + sigma**2)


def mmps(v: Tensor, transposed: Callable[[Tensor], Tensor], alpha: float, sigma: float) -> Tensor:
    """V = sigma^2 / alpha J, the true one by Tweedie's formula (Rozet et al. 2024, arXiv 2405.13712, section 4.2)."""
    return gain(alpha, sigma) * transposed(v)  # J of the exact denoiser is symmetric


def gain(alpha: float, sigma: float) -> float:
    """sigma^2 / alpha, by which x_0 moves with the score; 0 where x_t says nothing of x_0 (LEAST_SIGNAL)."""
    return sigma**2 / alpha if alpha > LEAST_SIGNAL * sigma else 0.0


def given(denoise: Denoiser, scheduler: NoiseScheduler, seen: Observation, covariance: Covariance) -> Denoiser:
    """The denoiser of x_0 given y as well: one t for all rows.

    score += J^T A^T (noise^2 + A V A^T)^-1 (y - A x_0), so eps moves by -sigma and x_0 by sigma^2 / alpha times that;
    no farther than noise could be from noise (FARTHEST), as otherwise DPS, whose guess is certain even where x_t is
    all but noise, throws away what a network gets slightly wrong (on a flow, all samples).
    """

    def denoise_given(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        alpha, sigma = scheduler.alpha_sigma_at(int(t))
        if not gain(alpha, sigma):
            return denoise(x_t, t, label)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            eps, x_0 = denoise(x_t, t, label)

        def transposed(v: Tensor) -> Tensor:
            return torch.autograd.grad(x_0, x_t, v, retain_graph=True)[0]

        def of_y(v: Tensor) -> Tensor:  # (noise^2 + A V A^T) v
            return seen.noise**2 * v + seen.of(covariance(seen.back(v, x_t), transposed, alpha, sigma))

        off = seen.value.to(x_t) - seen.of(x_0.detach())
        score = transposed(seen.back(solved(of_y, off, seen.noise**2), x_t))
        score = torch.renorm(score, 2, 0, FARTHEST * math.sqrt(x_t[0].numel()) / sigma)
        return Prediction(eps.detach() - sigma * score, x_0.detach() + gain(alpha, sigma) * score)

    return denoise_given


def solved(times: Callable[[Tensor], Tensor], b: Tensor, least: float) -> Tensor:
    """The w of times(w) = b, row by row (B, m), by conjugate gradients; `least` is the matrix's smallest eigenvalue.

    A network's Jacobian is not quite symmetric, nor positive: where a direction counts less than `least`, it ends.
    """
    w, r, p = torch.zeros_like(b), b, b
    for _ in range(min(b.shape[1], SOLVING)):
        q, rr = times(p), r.square().sum(1, keepdim=True)
        curvature, lowest = (p * q).sum(1, keepdim=True), 0.99 * least * p.square().sum(1, keepdim=True)
        step = torch.where(curvature > lowest, rr / curvature.clamp(min=1e-30), 0)
        w, r = w + step * p, r - step * q
        p = r + r.square().sum(1, keepdim=True) / rr.clamp(min=1e-30) * p
    return w


@torch.no_grad()
def repaint(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    seen: Observation,
    *,
    timesteps: Sequence[int],
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """RePaint (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1) for any A: ROUNDS times every ancestral step.

    Each round overwrites A x_s by what it would be if y were the truth, and but the last returns from s to t by fresh
    noise. The paper knows no noise of the observation; here every row has a truth of its own, drawn around y.
    """
    inverse = torch.linalg.pinv(seen.matrix).T.to(x_T)  # (m, d)
    x, x_s = x_T, x_T
    truth = seen.value.to(x) + seen.noise * seen.of(noise_like(x, generator)) / seen.matrix.norm(dim=1).to(x)
    for t, s in strides(scheduler, timesteps):
        (alpha_s, sigma_s), (c_t, c_0, std) = scheduler.alpha_sigma_at(s), scheduler.posterior(t, s)
        (a, b), x_0 = scheduler.stride(s, t), x
        for again in range(ROUNDS - 1, -1, -1):
            x_0 = denoise(x, as_t(t, x)).x_0
            unknown = c_t * x + c_0 * x_0 + std * noise_like(x, generator)
            known = alpha_s * truth + sigma_s * seen.of(noise_like(x, generator))
            x_s = unknown + ((known - seen.of(unknown)) @ inverse).reshape(x.shape)
            if again and s != CLEAN:
                x = a * x_s + b * noise_like(x, generator)
        yield State(t, x, x_0)
        x = x_s
    yield State(CLEAN, x, x)


@torch.no_grad()
def tds(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    seen: Observation,
    *,
    timesteps: Sequence[int],
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """The twisted diffusion sampler (Wu et al. 2023, arXiv 2306.17775, algorithm 1): exact for ever more samples.

    Ancestral steps towards y by p~(y | x_t), PiGDM's belief. What is wrong with it is mended by weights,
    p(x_s | x_t) p~(y | x_s) / (q(x_s | x_t) p~(y | x_t)) at each step, by which rows are drawn again when they differ
    too much. `timesteps` should be even in log-SNR. Of PARTICLES rows for each sample, one is drawn at the end.

    Any push is right that the weights know of. Between two modes, where the guess turns from one to the other within a
    little of x_t, the belief's gradient is many times the noise; whole, such pushes made the weights so uneven that
    2 % of the rows survived a step, and distances of up to 14 floors (x+y=1, moons). So none exceeds LONGEST_PUSH:
    0.9 to 1.8 floors on six seeds, where drawing rows again less often did not help.
    """
    x = torch.cat([x_T, *(noise_like(x_T, generator) for _ in range(PARTICLES - 1))])
    log_w = torch.zeros(len(x)).to(x)
    for t, s in strides(scheduler, timesteps):
        (alpha, sigma), (c_t, c_0, std) = scheduler.alpha_sigma_at(t), scheduler.posterior(t, s)
        x_0, belief, score = _twist(denoise, x, t, seen, alpha, sigma)
        log_w = log_w + belief
        if 1 / log_w.softmax(0).square().sum() < FEWEST_ALIKE * len(x):
            rows = _drawn_by(log_w, generator, len(x))
            x, x_0, belief, score, log_w = x[rows], x_0[rows], belief[rows], score[rows], torch.zeros_like(log_w)
        yield State(t, x[: len(x_T)], x_0[: len(x_T)])
        if s == CLEAN:  # a step without noise: no weight can mend what pushes it
            x, log_w = x_0, log_w - belief + seen.log_likelihood(x_0)
        else:
            z, push = noise_like(x, generator), c_0 * gain(alpha, sigma) * score
            push = torch.renorm(push, 2, 0, LONGEST_PUSH * std)  # each row no longer than that
            x = c_t * x + c_0 * x_0 + push + std * z
            log_w = log_w - belief + 0.5 * (z.square() - (z + push / std).square()).flatten(1).sum(1)
    x = x[_drawn_by(log_w, generator, len(x_T))]
    yield State(CLEAN, x, x)


@torch.no_grad()
def sir(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    seen: Observation,
    *,
    timesteps: Sequence[int],
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Sampling and importance resampling (Rubin 1987, J. Am. Stat. Assoc. 82, 543): exact as long as enough draws fit.

    BLIND samples of the model for each one asked for, without a look at y; of them are drawn as many as asked for, with
    weights p(y | x_0). Only the last state looks at y.
    """
    x = torch.cat([x_T, *(noise_like(x_T, generator) for _ in range(BLIND - 1))])
    for state in dpmpp(denoise, scheduler, x, timesteps=timesteps, generator=generator, stochastic=True):
        if state.t == CLEAN:
            x = state.x_t[_drawn_by(seen.log_likelihood(state.x_t), generator, len(x_T))]
            yield State(CLEAN, x, x)
        else:
            yield State(state.t, state.x_t[: len(x_T)], state.x_0[: len(x_T)])


def _twist(
    denoise: Denoiser, x: Tensor, t: int, seen: Observation, alpha: float, sigma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The guess of x_0, log p~(y | x_t) (B,) and its gradient, p~(y | x_t) = N(A x_0, noise^2 + r^2 A A^T)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x_0 = denoise(x, as_t(t, x)).x_0
        belief = seen.log_likelihood(x_0, spread=r_squared(alpha, sigma))
        return x_0.detach(), belief.detach(), torch.autograd.grad(belief.sum(), x)[0]


def _drawn_by(log_w: Tensor, generator: torch.Generator | None, count: int) -> Tensor:
    """Row numbers (count,), each as often as its weight says (systematic resampling: Carpenter et al. 1999)."""
    u = torch.rand((), generator=generator, dtype=torch.float64, device=log_w.device)
    places = (torch.arange(count, device=log_w.device) + u) / count
    rows = torch.searchsorted(log_w.double().softmax(0).cumsum(0), places).clamp(max=len(log_w) - 1)
    return rows[torch.randperm(count, generator=generator, device=log_w.device)]  # copies lie side by side


# ---------------------------------------------------------------- by name


class Method(NamedTuple):
    """A believed covariance for a sampler of samplers.SAMPLERS, or a sampler of its own (`run`).

    steps: of the process (None: all T); evaluations: of the denoiser at each; eta: of ddim; weighs: its rows are drawn
    by their weights, so that all of them must have seen the same.
    """

    steps: int | None
    covariance: Covariance | None = None
    sampler: str = "ddim"
    run: Callable[..., Iterator[State]] | None = None
    spacing: str = "even"
    evaluations: int = 1
    eta: float = 0.0
    weighs: bool = False


METHODS = {
    "dps": Method(None, covariance=dps, sampler="ddpm"),
    "pigdm": Method(100, covariance=pigdm, eta=1.0),
    "mmps": Method(100, covariance=mmps, eta=1.0),
    "repaint": Method(100, run=repaint, evaluations=ROUNDS),
    "tds": Method(200, run=tds, spacing="log_snr", evaluations=PARTICLES, weighs=True),
    "sir": Method(50, run=sir, spacing="log_snr", evaluations=BLIND, weighs=True),
}


def timesteps_of(scheduler: NoiseScheduler, method: str) -> list[int]:
    """The falling steps t of that method, a key of METHODS: it yields a state for each, and the samples."""
    row, T = METHODS[method], scheduler.num_timesteps
    return spaced_timesteps(scheduler, min(row.steps or T, T), row.spacing)


def sample_given(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    seen: Observation,
    *,
    method: str,
    generator: torch.Generator | None = None,
    last_word: Callable[[Denoiser], Denoiser] | None = None,
) -> Iterator[State]:
    """Samples of x_0 given what was seen, in the denoiser's units; `method` is a key of METHODS.

    last_word: what has to be done to a denoiser's guess, once it has been steered, such as diffusion.within_range.
    """
    row, timesteps = METHODS[method], timesteps_of(scheduler, method)
    if row.covariance is None:
        assert row.run is not None
        return row.run(denoise, scheduler, x_T, seen, timesteps=timesteps, generator=generator)
    steered = given(denoise, scheduler, seen, row.covariance)
    steered = last_word(steered) if last_word else steered
    options = {"sampler": row.sampler, "sampling_steps": len(timesteps), "eta": row.eta}
    return sample(steered, scheduler, x_T, generator=generator, **options)
