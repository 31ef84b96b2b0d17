"""What all samplers share: the states that they yield, the transitions between steps, and fresh noise."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from registry.plugins import called
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


def checked_states(
    kind: str, name: str, states: Iterable[State] | None, x_T: Tensor, timesteps: Sequence[int]
) -> Iterator[State]:
    """The states of a sampler that a user has added, held against what the functions that take them rely on.

    kind, name: of its row. x_T: the noise (B, *dims). timesteps: each of them has a state, and then clean data. The
    sampler runs without gradients.

    Raises:
        ValueError: a state is missing, has another t or shape, or holds NaN or infinity.
    """
    who = called(kind, name)
    if not isinstance(states, Iterable):
        raise ValueError(f"{who} returned {type(states).__name__} instead of yielding states")
    remaining = iter(states)
    for t in [*timesteps, CLEAN]:
        with torch.no_grad():
            state = next(remaining, None)
        place = "t = CLEAN, its last" if t == CLEAN else f"t = {t}"
        if state is None:
            raise ValueError(f"{who} yielded no state of {place}")
        if not isinstance(state, tuple) or len(state) != 3:
            raise ValueError(f"{who} yielded {type(state).__name__} instead of State(t, x_t, x_0)")
        state = State(*state)
        if state.t != t:
            raise ValueError(f"{who} yielded a state of t = {state.t} where that of {place} belongs")
        _check_tensors(who, state, x_T, place)
        yield state
    if next(remaining, None) is not None:
        raise ValueError(f"{who} yielded another state after that of t = CLEAN")


def _check_tensors(who: str, state: State, x_T: Tensor, place: str) -> None:
    for part, x in (("x_t", state.x_t), ("x_0", state.x_0)):
        if not isinstance(x, Tensor) or x.shape != x_T.shape:
            found = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{who} yielded {part} of {found} at {place}, and x_T has shape {tuple(x_T.shape)}")
        if not bool(x.isfinite().all()):
            raise ValueError(f"{who} yielded NaN or infinity in {part} at {place}")


def as_t(t: int, x: Tensor) -> Tensor:
    """A step as denoisers take it: a tensor of shape (), on x's device."""
    return torch.tensor(t, device=x.device)


def noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of x."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
