"""What all samplers share: the states that they yield, the transitions between steps, and fresh noise."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.spacing import spaced_timesteps
from schedule import CLEAN, NoiseScheduler, step_from_t


class State(NamedTuple):
    """A state of the reverse process: its step t (CLEAN at the end), x_t, and the prediction of x_0 made from it."""

    t: int
    x_t: Tensor
    x_0: Tensor

    @property
    def step(self) -> int:
        """The number of forward steps that lead from clean data to this state."""
        return step_from_t(self.t)


def transitions(scheduler: NoiseScheduler, timesteps: Sequence[int] | None) -> Iterator[tuple[int, int]]:
    """The pairs (t, s) of each step and the next one, down to CLEAN. timesteps: default: all.

    Raises:
        ValueError: steps that do not fall, or that the process does not have.
    """
    if timesteps is None:
        steps = spaced_timesteps(scheduler)
    else:
        steps = scheduler.check_t(list(timesteps)).tolist()
    if not steps or sorted(set(steps), reverse=True) != steps:
        raise ValueError("timesteps must fall from step to step")
    return zip(steps, [*steps[1:], CLEAN])


def as_t(t: int, x: Tensor) -> Tensor:
    """A step as denoisers take it: a tensor of shape (), on x's device."""
    return torch.tensor(t, device=x.device)


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of x."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
