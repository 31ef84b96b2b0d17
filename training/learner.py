"""One optimizer step, and the exponential moving average (EMA) of the weights."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from training.checksum import checksum_of_arrays
from training.shards import Batch, LossOf, gradient, own_parts


@dataclass
class Learner:
    """What changes from step to step: network, optimizers, average, and losses not yet logged.

    ema_decay: decay of the average (see ema_weight).
    shards: the parts of a batch whose gradients are computed one at a time.
    references: rows of a reference batch (see loss.objective.stable_target); 0 for none.
    early: an early copy of the average, for autoguidance, once `keep_early` has been called.
    """

    net: nn.Module
    optimizers: list[torch.optim.Optimizer]
    ema_decay: float | None = None
    shards: int = 1
    references: int = 0
    average: AveragedModel = field(init=False)
    losses: list[Tensor] = field(init=False, default_factory=list)
    early: dict[str, Tensor] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.average = AveragedModel(self.net)

    def learn(self, loss_of: LossOf, batch: Batch, lr: float) -> None:
        """Take one optimizer step that lowers the mean loss of a batch.

        Each process computes its own parts of the batch. Nothing here waits for a GPU.
        """
        parts = own_parts(batch, self.shards, self.references)
        means = gradient(self.net, loss_of, parts, len(batch[0]))
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
        self.advance_ema()
        self.losses.append(means)

    @torch.no_grad()
    def advance_ema(self) -> None:
        """Move the average towards the weights.

        AveragedModel.update_parameters computes the same, but takes five times as long.
        """
        updates = int(self.average.n_averaged)  # on the CPU, wherever the weights are
        newest = ema_weight(updates, self.ema_decay)
        averages: list[Tensor] = [*self.average.parameters()]
        weights: list[Tensor] = [*self.net.parameters()]
        torch._foreach_lerp_(averages, weights, newest)  # pyright: ignore[reportPrivateImportUsage]
        self.average.n_averaged += 1

    def mean_loss(self) -> tuple[float, float]:
        """The means of the ordinary and of the stable loss since the last call."""
        means = torch.stack(self.losses).mean(0)
        ordinary, stable = means.tolist()  # the only line of a training step that waits for a GPU
        self.losses.clear()
        return ordinary, stable

    def keep_early(self) -> None:
        """Keep a copy of the averaged weights as they are now. Later calls change nothing."""
        if self.early is None:
            averages = self.average.state_dict()
            self.early = {name: weights.cpu().clone() for name, weights in averages.items()}

    def weights_checksum(self) -> str:
        """The checksum of the weights and of their average."""
        tensors = [*self.net.state_dict().values(), *self.average.state_dict().values()]
        return checksum_of_arrays(tensor.cpu().numpy() for tensor in tensors)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the learner (see training.resume)."""
        state: dict[str, Any] = {"net": self.net.state_dict(), "ema": self.average.state_dict()}
        if self.early is not None:
            state["early"] = self.early
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        state["losses"] = torch.stack(self.losses).cpu() if self.losses else torch.empty(0, 2)
        return state


def ema_weight(updates: int, decay: float | None) -> float:
    """The weight of the newest network in the moving average, after so many earlier updates.

    The first network gets weight 1, so that the average has no bias from a random beginning.
    Without a decay, the average covers about the last tenth of the training so far. A given decay d
    is taken literally: (1 - d) / (1 - d^(updates + 1)), as in Adam (Kingma and Ba 2015, arXiv
    1412.6980, section 3).
    """
    if updates == 0:
        return 1.0
    if decay is None:
        return 9 / (10 + updates)
    return (1 - decay) / (1 - decay ** (updates + 1))
