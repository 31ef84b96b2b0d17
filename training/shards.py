"""The gradient of a batch, part by part: in less memory, and with the same bits in any number of
processes.

A batch is cut into `shards` equal parts. Each process computes the gradients of its own parts, one
at a time; then the gradients of all parts are added in the order of the parts (see
runtime.distributed.sum_over_processes).
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from loss.objective import Loss, References, reference_batches, references_of_rows
from runtime import distributed

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor | None]  # x_0, t, eps, label
Part: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor | None, Sequence[References]]
LossOf: TypeAlias = Callable[..., Loss]  # called with the five members of a Part


def check(shards: int, batch_size: int) -> None:
    """Check that a batch can be cut into equal parts, and that the processes can share these
    evenly.

    Raises:
        ValueError: it cannot; the sentence says which numbers would do.
    """
    if batch_size % shards:
        smaller = batch_size // shards * shards
        sizes = [str(size) for size in (smaller, smaller + shards) if size > 0]
        raise ValueError(
            f"batch_size={batch_size} cannot be cut into shards={shards} equal parts;"
            f" take batch_size={' or '.join(sizes)}"
        )

    processes = distributed.world_size()
    if shards % processes:
        counts = [str(n) for n in range(1, shards + 1) if shards % n == 0]
        next_multiple = -(-shards // processes) * processes
        raise ValueError(
            f"shards={shards} cannot be shared out evenly among {processes} processes;"
            f" start {' or '.join(counts)} of them, or a new training with shards={next_multiple}"
        )


def own_parts(batch: Batch, shards: int, references: int) -> list[Part]:
    """The parts of a batch that this process computes.

    Each row keeps the reference batch, of `references` rows, that it has in the whole batch (see
    loss.objective.stable_target). Where the rows do not divide evenly, the last parts are smaller
    or empty.
    """
    x_0, t, eps, label = batch
    references_of_batch = reference_batches(x_0, label, references)
    sizes = [len(part) for part in t.tensor_split(shards)]
    per_process = shards // distributed.world_size()
    first = distributed.rank() * per_process

    parts: list[Part] = []
    begin = sum(sizes[:first])
    for size in sizes[first : first + per_process]:
        end = begin + size
        own_label = None if label is None else label[begin:end]
        own_references = references_of_rows(references_of_batch, begin, end)
        parts.append((x_0[begin:end], t[begin:end], eps[begin:end], own_label, own_references))
        begin = end
    return parts


def gradient(net: nn.Module, loss_of: LossOf, parts: Sequence[Part], rows: int) -> Tensor:
    """Leave in `net` the gradient of the mean loss over a batch.

    Args:
        parts: those that this process computes.
        rows: the number of rows in the whole batch.

    Returns:
        The means of the ordinary and of the stable loss over the batch, (2,).
    """
    net.zero_grad()
    if distributed.world_size() > 1:
        return _gradient_of_all_processes([*net.parameters()], loss_of, parts, rows)
    means = [_backward(loss_of(*part), rows) for part in parts if len(part[0])]
    return distributed.sum_in_order(torch.stack(means))


def _gradient_of_all_processes(
    weights: Sequence[Tensor],
    loss_of: LossOf,
    parts: Sequence[Part],
    rows: int,
) -> Tensor:
    """Leave the sum of the gradients of all processes in the weights; return the means (2,).

    Each part gives one vector, which holds its gradient and its share of the means.
    """
    vectors = [_gradient_vector(weights, loss_of, part, rows) for part in parts]
    total = distributed.sum_over_processes(torch.stack(vectors))

    sizes = [weight.numel() for weight in weights]
    *gradients, means = total.split([*sizes, 2])
    for weight, summed in zip(weights, gradients):
        if weight.grad is None:
            weight.grad = torch.empty_like(weight)
        weight.grad.copy_(summed.view_as(weight))
    return means


def _gradient_vector(weights: Sequence[Tensor], loss_of: LossOf, part: Part, rows: int) -> Tensor:
    """The gradient of one part, flattened, followed by its means: (number of weights + 2,)."""
    for weight in weights:
        weight.grad = None
    means = weights[0].new_zeros(2)
    if len(part[0]):
        means = _backward(loss_of(*part), rows)

    pieces = []
    for weight in weights:
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        pieces.append(gradient.reshape(-1))
    return torch.cat([*pieces, means])


def _backward(loss: Loss, rows: int) -> Tensor:
    """Add the gradient of one part of the mean over `rows`; return its share of the means, (2,)."""
    (loss.stable.sum() / rows).backward()
    means = [each.detach().sum() / rows for each in loss]
    return torch.stack(means)
