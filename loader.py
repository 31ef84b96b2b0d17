"""Batches of rows, drawn evenly or shuffled. The rows of an epoch are a function of (seed, epoch).

A batch is cut from the data set by one tensor of indices.
"""

from collections.abc import Iterator
from itertools import count
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from runtime import device as devices
from runtime.randomness import generator

MAX_PERMUTATION_ROWS = 10**8  # rows that are shuffled by one permutation
BLOCK_ROWS = 2**14  # rows; larger sets are shuffled by blocks
BLOCKS_TOGETHER = 64  # blocks whose rows are shuffled into each other
CPU = torch.device("cpu")


class Rows(Protocol):
    """A data set that takes a tensor of indices: dataset.PointSet, images.sets.ImageSet."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: Tensor, /) -> tuple[Tensor, ...]: ...


# ---------------------------------------------------------------- order


class ShuffledBatches(Sampler[Tensor]):
    """Index tensors (batch_size,) without end: all rows in random order, epoch after epoch.

    A batch may contain the last rows of an epoch and the first rows of the next. A smaller batch at
    the end of each epoch would have a noisier gradient with the same influence.

    Args:
        num_rows: rows of the data set.
        batch_size: rows of a batch; at most num_rows are taken.
        seed: the order is a function of (seed, epoch).
        device: where the data set is. The order is drawn on the CPU and moved there.

    Attributes:
        start: the number of the batch to begin with, from 0. Earlier batches are skipped unread.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        seed: int,
        device: torch.device = CPU,
    ) -> None:
        self.num_rows = num_rows
        self.batch_size = min(batch_size, num_rows)
        self.seed = seed
        self.device = device
        self.start = 0

    def __iter__(self) -> Iterator[Tensor]:
        remainder = torch.empty(0, dtype=torch.int64, device=self.device)
        for rows in self._row_numbers(skip=self.start * self.batch_size):
            rows = torch.cat([remainder, rows.to(self.device)])
            num_batches = len(rows) // self.batch_size
            end = num_batches * self.batch_size
            if num_batches > 0:
                yield from rows[:end].split(self.batch_size)
            remainder = rows[end:]

    def _row_numbers(self, skip: int) -> Iterator[Tensor]:
        """Yield the row numbers, epoch after epoch, without the first `skip` of them."""
        first_epoch, skip = divmod(skip, self.num_rows)
        for epoch in count(first_epoch):
            for rows in shuffled_rows(self.num_rows, self.seed, epoch):
                yield rows[skip:]
                skip = max(0, skip - len(rows))


def shuffled_rows(num_rows: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield all row numbers once, in an order that is a function of (seed, epoch).

    A permutation of more than MAX_PERMUTATION_ROWS rows would need gigabytes. For data in a file, it would also
    read one page of the file for each row. Larger sets are therefore shuffled in two stages. First
    blocks of BLOCK_ROWS rows are put in random order, and then the rows of BLOCKS_TOGETHER blocks at a time.
    """
    g = generator(seed, "order", epoch)
    if num_rows <= MAX_PERMUTATION_ROWS:
        yield torch.randperm(num_rows, generator=g)
        return

    num_blocks = -(-num_rows // BLOCK_ROWS)  # rounded up
    block_order = torch.randperm(num_blocks, generator=g)
    for blocks in block_order.split(BLOCKS_TOGETHER):
        rows = (blocks[:, None] * BLOCK_ROWS + torch.arange(BLOCK_ROWS)).flatten()
        rows = rows[rows < num_rows]  # the last block may be incomplete
        yield rows[torch.randperm(len(rows), generator=g)]


class EvenBatches(Sampler[Tensor]):
    """Index tensors (batch_size,) without end; each holds one row of each of batch_size strata.

    The strata are equal pieces of `order`. An epoch has K = N / batch_size batches, rounded up.
    In an epoch each stratum is cut into K cells, and each batch draws from another cell of every
    stratum, in random order:

        row = order[floor(N (i + (k_i + u) / K) / batch_size)],    u ~ Uniform(0, 1)

    for the stratum i and its random cell k_i. So each row is drawn as often as any other on average,
    and hardly more or less often within an epoch. The rows of a batch are in random order, so that
    they are paired at random with the noise of their step (see training.noise).

    Args:
        order: all row numbers, neighbours in space near each other (N,) (see points.even_order).
        batch_size: rows of a batch; at most N are taken.
        seed: the rows are a function of (seed, epoch).
        group: rows that share a reference batch (see loss.objective.stable_target). If groups
            divide a batch, each group is even as well: it has one row of each of `group` strata.
            0: there are no groups.
        device: where the data set is. The rows are drawn on the CPU and moved there.

    Attributes:
        start: the number of the batch to begin with, from 0. Earlier epochs are skipped undrawn.
    """

    def __init__(
        self,
        order: Tensor,
        batch_size: int,
        seed: int,
        group: int = 0,
        device: torch.device = CPU,
    ) -> None:
        self.order = order
        self.batch_size = min(batch_size, len(order))
        self.seed = seed
        divides = group > 0 and self.batch_size % group == 0
        self.group = group if divides else self.batch_size
        self.device = device
        self.start = 0

    def __iter__(self) -> Iterator[Tensor]:
        batches_per_epoch = -(-len(self.order) // self.batch_size)  # rounded up
        first_epoch, skip = divmod(self.start, batches_per_epoch)
        for epoch in count(first_epoch):
            rows = self._rows_of_epoch(epoch, batches_per_epoch)
            yield from rows[skip:]
            skip = 0

    def _rows_of_epoch(self, epoch: int, num_batches: int) -> Tensor:
        """The row numbers of all batches of an epoch: (num_batches, batch_size)."""
        g = generator(self.seed, "order", epoch)
        shape = (num_batches, self.batch_size)
        cells = torch.rand(shape, generator=g).argsort(0)  # a permutation for each stratum
        within = torch.rand(shape, generator=g, dtype=torch.float64)
        strata = torch.arange(self.batch_size)
        positions = (strata + (cells + within) / num_batches) / self.batch_size
        places = (positions * len(self.order)).long().clamp(max=len(self.order) - 1)

        places = self._in_even_groups(places, g)
        return self.order[places].to(self.device)

    def _in_even_groups(self, places: Tensor, g: torch.Generator) -> Tensor:
        """Deal neighbouring strata out to the groups, and shuffle each group: (num_batches, batch_size)."""
        num_groups = self.batch_size // self.group
        dealt = _shuffled(places.view(-1, self.group, num_groups), g)
        groups = _shuffled(dealt.transpose(1, 2), g)
        return groups.reshape(len(places), self.batch_size)


def _shuffled(x: Tensor, g: torch.Generator) -> Tensor:
    """x with the entries of its last dimension in random order, each row in another."""
    return x.gather(-1, torch.rand(x.shape, generator=g).argsort(-1))


BatchSampler = ShuffledBatches | EvenBatches


def batch_sampler(
    num_rows: int,
    batch_size: int,
    seed: int,
    *,
    order: Tensor | None = None,
    group: int = 0,
    device: torch.device = CPU,
) -> BatchSampler:
    """Return the batches of a training: even ones where there is an `order`, otherwise shuffled ones."""
    if order is None:
        return ShuffledBatches(num_rows, batch_size, seed, device)
    return EvenBatches(order, batch_size, seed, group, device)


def steps_in_epochs(epochs: int, num_rows: int, batch_size: int) -> int:
    """Return the number of optimizer steps in which each row is used `epochs` times, rounded up."""
    rows = epochs * num_rows
    return -(-rows // min(batch_size, num_rows))


def epochs_in_steps(steps: int, num_rows: int, batch_size: int) -> int:
    """Return the number of complete epochs in `steps` optimizer steps."""
    rows = steps * min(batch_size, num_rows)
    return rows // num_rows


# ---------------------------------------------------------------- batches


def make_loader(
    data: Rows,
    *,
    batch_size: int,
    seed: int,
    device: torch.device = CPU,
    order: Tensor | None = None,
    group: int = 0,
) -> DataLoader:
    """Return a DataLoader of batches without end: (x,) or (x, label) each.

    Args:
        data: the data set.
        batch_size: rows of a batch; all rows if there are fewer.
        seed: the order is a function of (seed, epoch).
        device: where the network runs. If it is a GPU with room for the data, they are copied there
            once, and batches are on the GPU. Otherwise batches are on the CPU.
        order, group: of EvenBatches. Without an order the rows are shuffled.

    Raises:
        ValueError: batch_size less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    placed = copied_to(data, device, devices.room_for_data(device))
    on_cpu = placed is data
    place = CPU if on_cpu else device
    sampler = batch_sampler(len(data), batch_size, seed, order=order, group=group, device=place)
    # From pinned memory a batch is copied to a GPU while the GPU computes.
    pin_memory = on_cpu and device.type == "cuda"
    # With batch_size=None the loader passes each index tensor to the data set in one call.
    dataset = cast(Dataset, placed)
    return DataLoader(dataset, sampler=sampler, batch_size=None, pin_memory=pin_memory)


def copied_to(data: Rows, device: torch.device, room: int) -> Rows:
    """Return a copy of all rows on `device` if they take at most `room` bytes, else `data`."""
    if room == 0:
        return data
    first_row = data[torch.tensor([0])]
    bytes_per_row = sum(x.nbytes for x in first_row)
    if len(data) * bytes_per_row > room:
        return data

    pieces = []
    for rows in torch.arange(len(data)).split(BLOCK_ROWS):
        pieces.append([x.to(device) for x in data[rows]])
    columns = [torch.cat(column) for column in zip(*pieces)]
    return TensorDataset(*columns)


def batches(loader: DataLoader, start: int = 0) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield batches (x, label) without end, epoch after epoch.

    Args:
        loader: as `make_loader` returns it.
        start: the number of the batch to begin with, from 0.

    Yields:
        x of shape (B, *dims), and labels (B,) or None.
    """
    sampler = loader.sampler
    assert isinstance(sampler, BatchSampler)
    sampler.start = start
    for batch in loader:
        label = batch[1] if len(batch) > 1 else None
        yield batch[0], label
