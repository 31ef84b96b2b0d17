"""Files of points that are too large for memory: an .npy file stays on the disk, and rows are read when asked for."""

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from points.point_files import check_sizes
from runtime.arrays import disable_read_ahead, floats, release_pages

SIZE = 2**29  # bytes from which a file is too large for memory
ATONCE = 1024  # rows


def mapped(path: str | None) -> np.memmap | None:
    """The rows (N, d) of an .npy file of at least SIZE bytes, unread; None for all others, which points.files reads.

    Raises:
        ValueError: it has been cut off, or its numbers are not such as can be used where they lie.
    """
    if not path or not path.endswith(".npy") or not os.path.exists(path):
        return None
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "greater than file size" in str(error):
            raise ValueError(
                f"{path} is shorter than its header says, as if it had been cut off: copy it again"
            ) from error
        return None
    except OSError:
        return None
    if rows.nbytes < SIZE:
        return None
    if rows.dtype not in (np.float32, np.float64) or not rows.flags.c_contiguous:  # nor in the other order of bytes
        kind = f"{rows.dtype}{'' if rows.flags.c_contiguous else ', column by column'}"
        raise ValueError(
            f"{path} is too large for memory and holds {kind}: save it as float32 or float64, row by row, to be read"
            " where it lies"
        )
    if rows.ndim != 2 or rows.shape[1] < 2 or len(rows) < 10:
        raise ValueError(f"{path} must hold points of shape (N, d) with d at least 2, not {rows.shape}")
    disable_read_ahead(rows)
    return rows


def spread(total: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows of `total` in random order: one of each of as many equal parts, so that none of these is missed."""
    edges = torch.arange(count + 1, dtype=torch.int64) * total // count
    chosen = edges[:-1] + (torch.rand(count, generator=generator, dtype=torch.float64) * edges.diff()).long()
    return chosen[torch.randperm(count, generator=generator)]


def read(rows: np.memmap, chosen: Tensor, path: str) -> NDArray:
    """The chosen rows, in memory. Raises ValueError where they hold NaN, infinity or numbers beyond LARGEST."""
    points = floats(np.concatenate([take(rows, some) for some in chosen.split(ATONCE)]), path).numpy()
    check_sizes(points, path)
    return points


def take(rows: np.memmap, chosen: Tensor) -> NDArray:
    """The chosen rows, in memory. The pages around them, 64 kB a row, are given back: they would soon be gigabytes."""
    found = np.array(rows[chosen.numpy()])
    release_pages(rows)
    return found
