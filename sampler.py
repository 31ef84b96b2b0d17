"""Reverse processes: from noise to data, as generators that yield every state.

They run with any denoiser (diffusion.Denoiser) and any process: of the scheduler they ask for alpha and sigma only.
A new one is a function here, its row in SAMPLERS, and its name in conf/choices.py.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion import Denoiser
from runtime.arrays import floats
from schedule import CLEAN, NoiseScheduler, step_of


class State(NamedTuple):
    """A moment of the reverse process: its t (CLEAN at the end), x_t, and the x_0 guessed from it."""

    t: int
    x_t: Tensor
    x_0: Tensor

    @property
    def step(self) -> int:
        """How many forward steps away from clean data it is."""
        return step_of(self.t)


@torch.no_grad()
def ddpm(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2) over all T steps or any falling subset of them.

    x_s = c_t x_t + c_0 x_0 + std noise, the posterior of eq. 6 and 7 with the guess of x_0 in place of the truth.
    Yields a state for each step, x_T itself first, and the samples last.
    """
    x = floats(x_T, "x_T")
    for t, s in _strides(scheduler, timesteps):
        x_0 = denoise(x, torch.tensor(t, device=x.device)).x_0
        yield State(t, x, x_0)
        c_t, c_0, std = scheduler.posterior(t, s)
        x = c_t * x + c_0 * x_0
        if std > 0:
            x = x + std * _noise_like(x, generator)
    yield State(CLEAN, x, x)


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
    deviation of the posterior: eta = 0 is deterministic, eta = 1 is `ddpm`.
    """
    x = floats(x_T, "x_T")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in 0..1, got {eta}")
    for t, s in _strides(scheduler, timesteps):
        eps, x_0 = denoise(x, torch.tensor(t, device=x.device))
        yield State(t, x, x_0)
        (alpha_s, sigma_s), fresh = scheduler.alpha_sigma_at(s), eta * scheduler.posterior(t, s)[2]
        x = alpha_s * x_0 + math.sqrt(sigma_s**2 - fresh**2) * eps
        if fresh > 0:
            x = x + fresh * _noise_like(x, generator)
    yield State(CLEAN, x, x)


@torch.no_grad()
def dpmpp_2m(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2): deterministic, second order, few steps.

    x_s = sigma_s / sigma_t x_t - alpha_s (exp(-h) - 1) D with h the stride in log-SNR and D = x_0 + (x_0 - x_0_last)
    h / (2 h_last), the guess extrapolated to the middle of the stride. `timesteps` should be even in log-SNR.
    """
    x, x_0_last, h_last = floats(x_T, "x_T"), None, math.inf
    for t, s in _strides(scheduler, timesteps):
        x_0 = denoise(x, torch.tensor(t, device=x.device)).x_0
        yield State(t, x, x_0)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = scheduler.alpha_sigma_at(t), scheduler.alpha_sigma_at(s)
        if s == CLEAN:  # infinite log-SNR: the guess itself
            x = x_0
            break
        h = math.log(alpha_s / sigma_s) - math.log(alpha_t / sigma_t)
        D = x_0 if x_0_last is None else x_0 + (x_0 - x_0_last) * (h / h_last / 2)
        x = sigma_s / sigma_t * x - alpha_s * math.expm1(-h) * D
        x_0_last, h_last = x_0, h
    yield State(CLEAN, x, x)


@torch.no_grad()
def dpmpp_2m_sde(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, section 5): dpmpp_2m with the noise of the reverse SDE.

    x_s = sigma_s / sigma_t exp(-h) x_t + alpha_s (1 - exp(-2h)) D + sigma_s sqrt(1 - exp(-2h)) noise. Fresh noise heals
    what a network gets wrong on the way: a point between two parts of the data does not stay there.
    """
    x, x_0_last, h_last = floats(x_T, "x_T"), None, math.inf
    for t, s in _strides(scheduler, timesteps):
        x_0 = denoise(x, torch.tensor(t, device=x.device)).x_0
        yield State(t, x, x_0)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = scheduler.alpha_sigma_at(t), scheduler.alpha_sigma_at(s)
        if s == CLEAN:
            x = x_0
            break
        h = math.log(alpha_s / sigma_s) - math.log(alpha_t / sigma_t)
        D = x_0 if x_0_last is None else x_0 + (x_0 - x_0_last) * (h / h_last / 2)
        fresh = -math.expm1(-2 * h)
        x = sigma_s / sigma_t * math.exp(-h) * x + alpha_s * fresh * D
        x = x + sigma_s * math.sqrt(fresh) * _noise_like(x, generator)
        x_0_last, h_last = x_0, h
    yield State(CLEAN, x, x)


def _strides(scheduler: NoiseScheduler, timesteps: Sequence[int] | None) -> Iterator[tuple[int, int]]:
    """(t, the next t) down to CLEAN, over these timesteps or all."""
    timesteps = scheduler.timesteps() if timesteps is None else scheduler.check_t(list(timesteps)).tolist()
    if not timesteps or sorted(set(timesteps), reverse=True) != timesteps:
        raise ValueError("timesteps must fall from step to step")
    return zip(timesteps, [*timesteps[1:], CLEAN])


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


# ---------------------------------------------------------------- by name


class Sampler(NamedTuple):
    """evaluations: of the network, by default (None: one for each of the T steps); spacing: see scheduler.timesteps;
    takes: the options of `sample` that mean something to it."""

    run: Callable[..., Iterator[State]]
    evaluations: int | None
    spacing: str
    takes: tuple[str, ...] = ()


SAMPLERS = {
    "ddpm": Sampler(ddpm, None, "even"),
    "ddim": Sampler(ddim, 50, "even", takes=("eta",)),
    "dpmpp_2m": Sampler(dpmpp_2m, 50, "log_snr"),
    "dpmpp_2m_sde": Sampler(dpmpp_2m_sde, 50, "log_snr"),
}
ALIASES = {"dpm": "dpmpp_2m"}


def sampler_of(name: str) -> Sampler:
    """The row of that name or alias. Raises ValueError where there is none."""
    if ALIASES.get(name, name) not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[ALIASES.get(name, name)]


def timesteps_of(scheduler: NoiseScheduler, sampler: str, sampling_steps: int | None = None) -> list[int]:
    """The falling steps t at which `sample` evaluates the denoiser: it yields a state for each, and the samples.

    Raises:
        ValueError: no such sampler, or a number of steps outside 2 .. T.
    """
    row, T = sampler_of(sampler), scheduler.num_timesteps
    return scheduler.timesteps(min(row.evaluations or T, T) if sampling_steps is None else sampling_steps, row.spacing)


def sample(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    sampler: str = "ddpm",
    sampling_steps: int | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """The reverse process by name, a key of SAMPLERS.

    Raises:
        ValueError: no such sampler, a number of steps that it cannot take, or eta where it has no meaning.
    """
    row, timesteps = sampler_of(sampler), timesteps_of(scheduler, sampler, sampling_steps)
    if eta != 0 and "eta" not in row.takes:
        takers = ", ".join(name for name, other in SAMPLERS.items() if "eta" in other.takes)
        raise ValueError(f"eta belongs to sampler={takers}, not to {sampler}")
    options = {"eta": eta} if "eta" in row.takes else {}
    return row.run(denoise, scheduler, x_T, timesteps=timesteps, generator=generator, **options)


def last(states: Iterator[State]) -> Tensor:
    """The samples at the end of a reverse process."""
    state = None
    for state in states:  # noqa: B007 (the loop is run for its last value)
        pass
    if state is None:
        raise ValueError("the reverse process has no states")
    return state.x_t
