"""The gradient of a batch, part by part: in little memory, and in many processes to the same bits."""

import signal
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from loss.objective import Loss, References, overlapping, reference_batches
from runtime import distributed

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor | None]  # x_0, t, eps, label
Part: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor | None, Sequence[References]]
LossOf: TypeAlias = Callable[..., Loss]  # of the five members of a Part


def check(shards: int, batch_size: int) -> None:
    """Raises ValueError where batches cannot be cut into so many equal parts, or these not be shared out evenly."""
    if batch_size % shards:
        near = [size for size in (batch_size // shards * shards, (batch_size // shards + 1) * shards) if size]
        raise ValueError(
            f"batch_size={batch_size} cannot be cut into shards={shards} equal parts; take batch_size="
            f"{' or '.join(map(str, near))}"
        )
    if shards % (p := distributed.world()):
        able = [str(n) for n in range(1, shards + 1) if shards % n == 0]
        raise ValueError(
            f"shards={shards} cannot be shared out evenly among {p} processes; start {' or '.join(able)} of them, or a"
            f" new training with shards={-(-shards // p) * p}"
        )


def own_parts(batch: Batch, shards: int, references: int) -> list[Part]:
    """Those of the `shards` parts of a batch that this process computes; each of its rows keeps the reference batch of
    `references` rows that it has in the whole. The last parts of a short batch may be smaller, or empty."""
    x_0, t, eps, label = batch
    whole, each = reference_batches(x_0, label, references), shards // distributed.world()
    cuts = [len(x) for x in t.tensor_split(shards)]
    ends = torch.tensor(cuts).cumsum(0).tolist()
    mine = range(distributed.rank() * each, (distributed.rank() + 1) * each)
    rows = [slice(ends[i] - cuts[i], ends[i]) for i in mine]
    return [(x_0[r], t[r], eps[r], None if label is None else label[r],
             overlapping(whole, r.start, r.stop)) for r in rows]  # fmt: skip


def gradient(net: nn.Module, loss_of: LossOf, parts: Sequence[Part], rows: int, stop: int) -> tuple[Tensor, int]:
    """Leave in `net` the gradient of the mean loss over the `rows` of a whole batch, of which these are our parts.

    stop: the signal that this process has got, or 0. Returns the means of the Loss (2,), and the signal that ends the
    training: that of this process or, where it has none and another has, SIGTERM.
    """
    net.zero_grad()
    if distributed.world() == 1:
        means = [_backward(loss_of(*part), rows) for part in parts if len(part[0])]
        return distributed.in_order(torch.stack(means)), stop
    weights, vectors = [*net.parameters()], []
    for part in parts:
        for weight in weights:
            weight.grad = None
        tail = _backward(loss_of(*part), rows) if len(part[0]) else weights[0].new_zeros(2)
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        vectors.append(torch.cat([*(g.reshape(-1) for g in grads), tail, tail.new_tensor([float(stop > 0)])]))
    *sums, means, stopped = distributed.added_up(torch.stack(vectors)).split([*(w.numel() for w in weights), 2, 1])
    for weight, total in zip(weights, sums):
        weight.grad = torch.empty_like(weight) if weight.grad is None else weight.grad
        weight.grad.copy_(total.view_as(weight))
    return means, (stop or signal.SIGTERM) if stopped else 0


def _backward(loss: Loss, rows: int) -> Tensor:
    """Add the gradient of this part of the mean over `rows`; returns its part of the means of the Loss (2,)."""
    (loss.stable.sum() / rows).backward()
    return torch.stack([each.detach().sum() / rows for each in loss])
