"""What a training needs to go on: taken from it, and given back to it; and its weights averaged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from runtime import checkpoint
from runtime.trained import take_weights


class Learner(NamedTuple):
    """What changes from step to step: a network, the average of its weights, and its optimizer."""

    net: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer

    def state(self) -> dict[str, Any]:
        states = {"net": self.net.state_dict(), "ema": self.average.state_dict()}
        return {**states, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any], path: str) -> int:
        """Everything as it was when the checkpoint at `path` was saved; returns the optimizer steps done by then."""
        take_weights(self.net, state["net"], path)
        take_weights(self.average, state["ema"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        return state["step"]


def averaging(decay: float | None) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """The exponential moving average of weights, without the bias of its random beginning.

    None: over about the last tenth of the training so far. A given decay d is taken literally: after n updates the
    newest weights count (1 - d) / (1 - d^n), as in Adam (Kingma and Ba 2015, arXiv 1412.6980, section 3).
    """

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)  # before this one, the first of which has copied the weights
        newest = 9 / (10 + n) if decay is None else (1 - decay) / (1 - decay ** (n + 1))
        for average, weights in zip(averaged, current):
            average.lerp_(weights, newest)

    return update


def resumed_state(path: str | None, options: Mapping[str, Any], fixed: Iterable[str]) -> dict[str, Any] | None:
    """The checkpoint to go on from, if one is asked for.

    Raises:
        ValueError: one of the `fixed` options is not what it was.
    """
    if path is None:
        return None
    state = checkpoint.load(path)
    for group in ("model", "dataset"):
        if (have := state["config"][group]["name"]) != (want := options[group]["name"]):
            raise ValueError(f"resume={path} was trained with {group}={have}, not with {group}={want}")
    if other := sorted(name for name in fixed if state["config"].get(name) != options[name]):
        raise ValueError(f"resume={path} was trained with other options: {', '.join(other)}")
    return state
