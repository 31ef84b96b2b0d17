"""Reverse processes: from noise to data, as generators that yield every state.

A denoiser is any callable `eps = denoise(x_t, t)`: x_t of shape (B, *dims), t of shape () because one step serves
all rows. A trained network becomes one through `diffusion.denoiser`; the exact law of the data is one as well.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from schedule import NoiseScheduler

Denoiser = Callable[[Tensor, Tensor], Tensor]


class State(NamedTuple):
    """A moment of the reverse process: after how many noisings, x_t, and the x_0 guessed from it."""

    step: int
    x_t: Tensor
    x_0: Tensor


@torch.no_grad()
def ddpm(
    denoise: Denoiser, scheduler: NoiseScheduler, x_T: Tensor, *, generator: torch.Generator | None = None
) -> Iterator[State]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), all T steps.

    Yields T + 1 states: step T (x_T itself) first, step 0 (the samples) last.
    """
    x = x_T
    for step in range(scheduler.num_timesteps, 0, -1):
        t = torch.tensor(step - 1, device=x.device)
        eps = denoise(x, t)
        yield State(step, x, scheduler.predict_x0(x, t, eps))
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        x = scheduler.reverse_step(x, t, eps, noise)
    yield State(0, x, x)


@torch.no_grad()
def ddim(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    timesteps: Sequence[int] | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """DDIM (Song, Meng and Ermon 2021, arXiv 2010.02502, eq. 12) over any falling subset of steps.

    eta = 0 is deterministic; eta = 1 over all steps is `ddpm`.
    """
    timesteps = scheduler.timesteps() if timesteps is None else timesteps
    x = x_T
    for t, t_next in zip(timesteps, [*timesteps[1:], -1]):
        eps = denoise(x, torch.tensor(t, device=x.device))
        x_0 = scheduler.predict_x0(x, torch.tensor(t), eps)
        yield State(t + 1, x, x_0)
        (alpha, sigma), (alpha_next, sigma_next) = scheduler.alpha_sigma_at(t), scheduler.alpha_sigma_at(t_next)
        fresh = eta * sigma_next / sigma * math.sqrt(1 - (alpha / alpha_next) ** 2)  # eq. 16
        x = alpha_next * x_0 + math.sqrt(sigma_next**2 - fresh**2) * eps
        if fresh > 0:
            x = x + fresh * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    yield State(0, x, x)


@torch.no_grad()
def dpm(denoise: Denoiser, scheduler: NoiseScheduler, x_T: Tensor, *, timesteps: Sequence[int]) -> Iterator[State]:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2): deterministic, second order, few steps.

    `timesteps` must be distinct and should be evenly spaced in log-SNR (scheduler.timesteps).
    """
    x, x_0_before, h_before = x_T, None, None
    for t, t_next in zip(timesteps, [*timesteps[1:], -1]):
        eps = denoise(x, torch.tensor(t, device=x.device))
        x_0 = scheduler.predict_x0(x, torch.tensor(t), eps)
        yield State(t + 1, x, x_0)
        (alpha, sigma), (alpha_next, sigma_next) = scheduler.alpha_sigma_at(t), scheduler.alpha_sigma_at(t_next)
        if t_next < 0:  # infinite log-SNR: the guess itself
            x = x_0
            break
        h = math.log(alpha_next / sigma_next) - math.log(alpha / sigma)
        towards = x_0
        if x_0_before is not None:  # extrapolated to the middle of the stride
            towards = x_0 + (x_0 - x_0_before) * (h / h_before / 2)
        x = sigma_next / sigma * x - alpha_next * math.expm1(-h) * towards
        x_0_before, h_before = x_0, h
    yield State(0, x, x)


# how many network evaluations each takes by default; None: one for each of the T steps
SAMPLERS = {"ddpm": None, "ddim": 50, "dpmpp_2m": 50}


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
    timesteps = [steps - 1 for steps in visited(scheduler, sampler, sampling_steps)[:-1]]
    if sampler != "ddim" and eta != 0:
        raise ValueError(f"eta belongs to sampler=ddim, not to {sampler}")
    if sampler == "ddpm":
        return ddpm(denoise, scheduler, x_T, generator=generator)
    if sampler == "dpmpp_2m":
        return dpm(denoise, scheduler, x_T, timesteps=timesteps)
    return ddim(denoise, scheduler, x_T, timesteps=timesteps, eta=eta, generator=generator)


def visited(scheduler: NoiseScheduler, sampler: str, sampling_steps: int | None = None) -> list[int]:
    """The `step` of every state that `sample` will yield: numbers of noisings, T first and 0 last."""
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler {sampler!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    T = scheduler.num_timesteps
    if sampler == "ddpm" and sampling_steps not in (None, T):
        raise ValueError(f"sampler=ddpm takes all {T} steps; for fewer use ddim or dpm")
    default = T if sampler == "ddpm" else min(SAMPLERS[sampler], T)
    spacing = "even" if sampler == "ddim" else "log_snr"
    return [t + 1 for t in scheduler.timesteps(sampling_steps or default, spacing)] + [0]


def last(states: Iterator[State]) -> Tensor:
    """The samples at the end of a reverse process."""
    for state in states:  # noqa: B007 (the loop is run for its last value)
        pass
    return state.x_t


def in_chunks(denoise: Denoiser, rows: int) -> Denoiser:
    """The same denoiser, `rows` rows at a time: the network's intermediate results then stay in the CPU's cache."""

    def chunked(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        if label is None:
            return torch.cat([denoise(part, t) for part in x_t.split(rows)])
        return torch.cat([denoise(part, t, of) for part, of in zip(x_t.split(rows), label.split(rows))])

    return chunked
