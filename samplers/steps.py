"""What every sampler is made of: the states that it yields, its strides, its noise."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.spacing import spaced_timesteps
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


def strides(scheduler: NoiseScheduler, timesteps: Sequence[int] | None) -> Iterator[tuple[int, int]]:
    """(t, the next t) down to CLEAN, over these timesteps or all."""
    timesteps = spaced_timesteps(scheduler) if timesteps is None else scheduler.check_t(list(timesteps)).tolist()
    if not timesteps or sorted(set(timesteps), reverse=True) != timesteps:
        raise ValueError("timesteps must fall from step to step")
    return zip(timesteps, [*timesteps[1:], CLEAN])


def as_t(t: int, x: Tensor) -> Tensor:
    """A step as denoisers take it, on x's device."""
    return torch.tensor(t, device=x.device)


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
