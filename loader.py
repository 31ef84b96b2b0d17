"""Batches: the DataLoader's order is a function of (seed, epoch), and a batch is cut by one tensor indexing."""

from collections.abc import Iterator
from itertools import count
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from runtime import device as devices
from runtime.randomness import generator

MOST = 10**8  # rows that are shuffled at once
BLOCK, TOGETHER = 2**14, 64
CPU = torch.device("cpu")


class Rows(Protocol):
    """A data set that takes a tensor of indices: dataset.PointSet, images.sets.ImageSet."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: Tensor, /) -> tuple[Tensor, ...]: ...


class ShuffledBatches(Sampler[Tensor]):
    """Index tensors of `batch_size` rows (of fewer rows: of all) without end: all rows once in random order, then all
    once more. A batch may hold the last rows of an epoch and the first of the next: a smaller one at the end of each
    would have a noisier gradient, and count as much.

    start: the batch to begin with; those before it are not read. device: where the rows lie; the order of an epoch is
    drawn on the CPU and goes there at once.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int, device: torch.device = CPU) -> None:
        self.num_rows, self.batch_size, self.seed, self.device = num_rows, min(batch_size, num_rows), seed, device
        self.start = 0

    def __iter__(self) -> Iterator[Tensor]:
        left = torch.empty(0, dtype=torch.int64, device=self.device)
        for rows in self._rows(self.start * self.batch_size):
            rows = torch.cat([left, rows.to(self.device)])
            whole = len(rows) // self.batch_size * self.batch_size
            yield from rows[:whole].split(self.batch_size) if whole else ()
            left = rows[whole:]

    def _rows(self, done: int) -> Iterator[Tensor]:
        """The row numbers, epoch after epoch, but the first `done`."""
        first, done = divmod(done, self.num_rows)
        for epoch in count(first):
            for rows in shuffled(self.num_rows, self.seed, epoch):
                yield rows[done:]
                done = max(0, done - len(rows))


def steps_of(epochs: int, num_rows: int, batch_size: int) -> int:
    """Optimizer steps after which all rows have been learnt from so many times."""
    return -(-epochs * num_rows // min(batch_size, num_rows))


def epochs_of(steps: int, num_rows: int, batch_size: int) -> int:
    """Whole epochs in so many optimizer steps."""
    return steps * min(batch_size, num_rows) // num_rows


def shuffled(num_rows: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """All row numbers once, in an order that is a function of (seed, epoch).

    A permutation of more than MOST rows would need gigabytes, and read one page of a file for each row. Blocks of BLOCK
    rows are shuffled then, and TOGETHER of them at a time are shuffled into each other, row by row.
    """
    g = generator(seed, "order", epoch)
    if num_rows <= MOST:
        yield torch.randperm(num_rows, generator=g)
        return
    for blocks in torch.randperm(-(-num_rows // BLOCK), generator=g).split(TOGETHER):
        rows = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
        rows = rows[rows < num_rows]
        yield rows[torch.randperm(len(rows), generator=g)]


def make_loader(data: Rows, *, batch_size: int, seed: int, device: torch.device = CPU) -> DataLoader:
    """A DataLoader whose batches are (x,) or (x, label). Of data that a GPU `device` has room for they lie there."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    held = held_on(data, device, devices.room(device))
    sampler = ShuffledBatches(len(data), batch_size, seed, CPU if held is data else device)
    # batch_size=None: the sampler yields whole batches of indices, which the data set takes in one call.
    # From pinned memory a batch can be copied to a GPU while that computes.
    pin = held is data and device.type == "cuda"
    return DataLoader(cast(Dataset, held), sampler=sampler, batch_size=None, pin_memory=pin)


def held_on(data: Rows, device: torch.device, room: int) -> Rows:
    """The same rows on `device`, if they take at most `room` bytes there; else `data` itself."""
    if not room or len(data) * sum(x.nbytes for x in data[torch.tensor([0])]) > room:
        return data
    parts = [[x.to(device) for x in data[rows]] for rows in torch.arange(len(data)).split(BLOCK)]
    return TensorDataset(*map(torch.cat, zip(*parts)))


def batches(loader: DataLoader, start: int = 0) -> Iterator[tuple[Tensor, Tensor | None]]:
    """(x, label or None) forever, epoch after epoch; `start` is the batch to begin with, counted from 0."""
    sampler = loader.sampler
    assert isinstance(sampler, ShuffledBatches)
    sampler.start = start
    for batch in loader:
        yield batch[0], batch[1] if len(batch) > 1 else None
