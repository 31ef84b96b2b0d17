"""Reverse processes: from noise to data, as generators that yield every state.

A denoiser is any callable `eps = denoise(x_t, t)`: x_t of shape (B, *dims), t of shape () because one step serves
all rows. A trained network becomes one through `diffusion.denoiser`; the exact law of the data is one as well.
"""

from collections.abc import Callable, Iterator
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


def last(states: Iterator[State]) -> Tensor:
    """The samples at the end of a reverse process."""
    for state in states:  # noqa: B007 (the loop is run for its last value)
        pass
    return state.x_t


def in_chunks(denoise: Denoiser, rows: int) -> Denoiser:
    """The same denoiser, `rows` rows at a time: the network's intermediate results then stay in the CPU's cache."""

    def chunked(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.cat([denoise(part, t) for part in x_t.split(rows)])

    return chunked
