"""What a training needs to go on: taken from it, and given back to it; and its weights averaged."""

import hashlib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dataset import DataSet, PointSet
from loss.moments import Moment
from pipeline import take_weights
from training.shards import Batch, LossOf, gradient, own_parts


@dataclass
class Learner:
    """What changes from step to step: a network, the average of its weights, its optimizers, losses not yet logged.

    ema_decay: of the average, see newest_share.
    shards: parts of a batch whose gradients are computed one at a time. references: rows of a batch that serve each
        other as reference batch (see loss.objective.stable_target); 0: none.
    early: an early copy of the average, for autoguidance, once `keep_early` has been called.
    """

    net: nn.Module
    average: AveragedModel
    optimizers: list[torch.optim.Optimizer]
    ema_decay: float | None = None
    shards: int = 1
    references: int = 0
    losses: list[Tensor] = field(default_factory=list)
    early: dict[str, Tensor] | None = None

    @classmethod
    def of(
        cls,
        net: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        ema_decay: float | None,
        shards: int = 1,
        references: int = 0,
    ) -> "Learner":
        return cls(net, AveragedModel(net), optimizers, ema_decay, shards, references)

    def learn(self, loss_of: LossOf, batch: Batch, lr: float, signals: Sequence[int] = ()) -> int:
        """One optimizer step down the mean loss of a batch. Of several processes each brings in its parts of it.

        signals: those that this process has got. Returns the one that ends the training after this step, or 0.
        """
        share, stop = self.counted(), signals[0] if signals else 0
        parts = own_parts(batch, self.shards, self.references)
        means, stop = gradient(self.net, loss_of, parts, len(batch[0]), stop)
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
        self.average_weights(share)
        self.losses.append(means)
        return stop

    def fingerprint(self) -> str:
        """Of the weights and their average: equal where these are, to the bit."""
        tensors = [*self.net.state_dict().values(), *self.average.state_dict().values()]
        return digest_of(tensor.cpu().numpy() for tensor in tensors)

    def counted(self) -> float:
        """Count one more update of the average; returns what the newest weights count in it."""
        n = int(self.average.n_averaged)  # on the CPU, wherever the weights are
        self.average.n_averaged += 1
        return newest_share(n, self.ema_decay)

    @torch.no_grad()
    def average_weights(self, share: float) -> None:
        """Move the average towards the weights: AveragedModel.update_parameters in one call, a fifth of its time."""
        averages: list[Tensor] = [*self.average.parameters()]
        weights: list[Tensor] = [*self.net.parameters()]
        torch._foreach_lerp_(averages, weights, share)  # pyright: ignore[reportPrivateImportUsage]

    def mean_loss(self) -> tuple[float, float]:
        """The means of the ordinary and of the stable losses since the last call."""
        ordinary, stable = torch.stack(self.losses).mean(0).tolist()  # the only moment that waits for a GPU
        self.losses.clear()
        return ordinary, stable

    def keep_early(self) -> None:
        """Keep the averaged weights as they are now; the first call counts."""
        if self.early is None:
            self.early = {name: weights.cpu().clone() for name, weights in self.average.state_dict().items()}

    def state(self) -> dict[str, Any]:
        states = {"net": self.net.state_dict(), "ema": self.average.state_dict()}
        losses = torch.stack(self.losses).cpu() if self.losses else torch.empty(0, 2)
        early = {} if self.early is None else {"early": self.early}
        optimizers = [each.state_dict() for each in self.optimizers]
        return {**states, **early, "optimizers": optimizers, "losses": losses}

    def restore(self, state: Mapping[str, Any], data: DataSet, total: int, run: object) -> Moment:
        """Everything as it was when the checkpoint of `run` was saved; returns when that was.

        Raises:
            ValueError: it lacks a part or is of another network; or the training cannot go on with these data until
                step `total`.
        """
        try:
            moment = checked_moment(state["moment"], operator.index(state["total"]), run)
            check_continues(state, data, total, run)
            take_weights(self.net, state["net"], str(run))
            take_weights(self.average, state["ema"], str(run))
            take_moments(self.optimizers, state["optimizers"], run)
            self.early = state.get("early")
            self.losses[:] = state["losses"].reshape(-1, 2).to(next(self.net.parameters()).device).unbind()
            return moment
        except KeyError as error:
            raise ValueError(f"the checkpoint of {run} cannot be resumed: it lacks {error}") from error
        except (TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"the checkpoint of {run} cannot be resumed: a part of it is damaged ({error})") from error


def newest_share(n: int, decay: float | None) -> float:
    """What the newest weights count in their exponential moving average, after n updates before this one; the first
    counts alone, so that the average is without the bias of a random beginning.

    decay None: over about the last tenth of the training so far. A given decay d is taken literally: (1 - d) /
    (1 - d^(n + 1)), as in Adam (Kingma and Ba 2015, arXiv 1412.6980, section 3).
    """
    if n == 0:
        return 1.0
    return 9 / (10 + n) if decay is None else (1 - decay) / (1 - decay ** (n + 1))


def checksum(data: DataSet) -> str:
    """Of all that is learnt from: points or pixels, and labels. Of a LargeSet: some points, and how many there are."""
    if isinstance(data, PointSet):
        of = f" of {len(data)}" * (len(data) > len(data.points))
        head, parts = f"{data.points.dtype} {data.points.shape}{of}", iter([data.points])
    else:
        head, parts = f"uint8 {(len(data), *data.dims)}", data.blocks()
    return digest_of(chain(parts, [] if data.labels is None else [data.labels]), head)


def digest_of(arrays: Iterable[NDArray | Tensor], begin: str = "") -> str:
    digest = hashlib.blake2b(begin.encode(), digest_size=16)
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()


def take_moments(optimizers: Sequence[torch.optim.Optimizer], states: Sequence[dict[str, Any]], run: object) -> None:
    """Load what the optimizers had gathered. Raises ValueError where it is that of others."""
    try:
        for optimizer, state in zip(optimizers, states, strict=True):
            options = [{**group, "params": None} for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, own in zip(optimizer.param_groups, options):  # a GPU's are others than a CPU's
                group.update({name: value for name, value in own.items() if name != "params"})
            for weight, own in optimizer.state.items():
                if any(moment.shape not in ((), weight.shape) for moment in own.values()):
                    raise ValueError("of another shape")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"the checkpoint of {run} cannot be resumed: its optimizers are others ({error})") from error


def checked_moment(parts: Mapping[str, Any], total: int, run: object) -> Moment:
    """Raises TypeError or ValueError where it is none."""
    moment = Moment(**parts)
    if not 0 < operator.index(moment.done) <= total or not moment.seconds + moment.cpu_seconds >= 0:
        raise ValueError(f"the checkpoint of {run} cannot be resumed: it is of step {moment.done} of {total}")
    return moment


def check_continues(state: Mapping[str, Any], data: DataSet, total: int, run: object) -> None:
    """Whether the training of the checkpoint `state` can go on with these data until step `total`.

    Raises:
        ValueError: the data are others, or the training was to be longer.
    """
    if state["data"] != checksum(data):
        raise ValueError(f"the data are not those that {run} was trained with")
    if total < state["total"]:
        raise ValueError(f"{run} was to be trained for {state['total']} steps: that may grow, not fall to {total}")
    if total > state["total"]:
        print(f"{run}: {total:,} steps instead of {state['total']:,}; the learning rate now follows the longer curve")
