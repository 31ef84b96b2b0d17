"""Files of points that are too large for memory.

Such an .npy file is mapped: it stays on the disk, and rows are read when they are needed.
"""

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from points.point_files import check_sizes
from runtime.arrays import disable_read_ahead, floats, release_pages

LARGE_FILE_BYTES = 2**29  # bytes; a file of at least this size is too large for memory
ROWS_PER_READ = 1024


def map_large_file(path: str | None) -> np.memmap | None:
    """Map the rows (N, d) of an .npy file of at least SIZE bytes, without reading them.

    Returns:
        The rows, or None for any other file, which points.point_files reads.

    Raises:
        ValueError: the file has been cut off, or its numbers cannot be used without conversion.
    """
    if not path or not path.endswith(".npy") or not os.path.isfile(path):
        return None
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "greater than file size" in str(error):
            problem = "is shorter than its header says, as if it had been cut off"
            raise ValueError(f"{path} {problem}: copy it again") from error
        return None
    except OSError:
        return None
    if rows.nbytes < LARGE_FILE_BYTES:
        return None

    _check_usable(rows, path)
    disable_read_ahead(rows)
    return rows


def _check_usable(rows: np.memmap, path: str) -> None:
    # comparing dtypes also refuses the other byte order
    by_rows = rows.flags.c_contiguous
    if rows.dtype not in (np.float32, np.float64) or not by_rows:
        kind = str(rows.dtype)
        if not by_rows:
            kind += ", column by column"
        advice = "save it as float32 or float64, row by row, to be read where it lies"
        raise ValueError(f"{path} is too large for memory and holds {kind}: {advice}")
    if rows.ndim != 2 or rows.shape[1] < 2 or len(rows) < 10:
        rule = "points of shape (N, d) with d at least 2"
        raise ValueError(f"{path} must hold {rule}, not {rows.shape}")


def stratified_rows(total: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` distinct rows of `total`, one from each of `count` equal ranges of rows.

    No part of a sorted file is missed then. The rows come in random order: (count,) int64.
    """
    edges = torch.arange(count + 1, dtype=torch.int64) * total // count
    u = torch.rand(count, generator=generator, dtype=torch.float64)
    chosen = edges[:-1] + (u * edges.diff()).long()
    order = torch.randperm(count, generator=generator)
    return chosen[order]


def read_rows(rows: np.memmap, chosen: Tensor, path: str) -> NDArray:
    """Copy the chosen rows into memory and check them: (len(chosen), d).

    Raises:
        ValueError: NaN, infinity, or a number beyond point_files.MAX_COORDINATE.
    """
    pieces = [copy_rows(rows, piece) for piece in chosen.split(ROWS_PER_READ)]
    points = floats(np.concatenate(pieces), path).numpy()
    check_sizes(points, path)
    return points


def copy_rows(rows: np.memmap, chosen: Tensor) -> NDArray:
    """Copy the chosen rows into memory, unchecked: (len(chosen), d).

    Reading a row maps 64 kB around it, and many rows would soon fill the memory. The mapped pages
    are therefore released.
    """
    copied = np.array(rows[chosen.numpy()])
    release_pages(rows)
    return copied
