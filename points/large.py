"""Files of points that are too large for memory.

Such an .npy file stays on the disk. Rows are read when they are needed, and checked then: nobody
has looked at most of them before.
"""

import os
import weakref
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from points.point_files import MAX_COORDINATE, MAX_FLOAT32_COORDINATE

LARGE_FILE_BYTES = 2**29  # bytes; a file of at least this size is too large for memory
ROWS_PER_READ = 4096
MAX_GAP_BYTES = 4096  # bytes between two rows that are read and dropped rather than passed over


class UnusableRowError(ValueError):
    """A row of a file could not be read, or holds a number that cannot be used."""


class RowFile:
    """The rows of an .npy file, which are read from the disk one batch at a time.

    They are not mapped into memory. If somebody shortens a mapped file, the next access kills the
    process; the end of an open file can be noticed and named.

    Args:
        path: the file.
        shape: (N, d).
        dtype: float32 or float64.
        offset: bytes before the first row.

    Attributes:
        path, shape, dtype, offset: as above.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, int],
        dtype: np.dtype,
        offset: int,
    ) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.offset = offset
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor)
        self._version = self._current_version()
        if hasattr(os, "posix_fadvise"):
            # By default the kernel reads 128 kB around each row.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, chosen: Tensor) -> NDArray:
        """Read the chosen rows (int64, from 0) and check them: (len(chosen), d).

        Raises:
            UnusableRowError: the file was written to, has become shorter or cannot be read; or a row
                holds NaN, infinity, or a number too large to be squared.
        """
        points = np.empty((len(chosen), self.shape[1]), self.dtype)
        begin = 0
        while begin < len(chosen):
            end = begin + ROWS_PER_READ
            points[begin:end] = self._read_piece(chosen[begin:end].numpy())
            begin = end
        self._check_unchanged()
        self._check(points, chosen)
        return points

    def _current_version(self) -> tuple[int, int]:
        """The size of the file and the time at which it was last written to."""
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _check_unchanged(self) -> None:
        """Raise UnusableRowError where somebody has written to the file since it was opened.

        A training would go on with a mixture of the old and the new rows.
        """
        if self._current_version() != self._version:
            raise UnusableRowError(
                f"{self.path} was written to while it was read: put the old file back, or start a new training"
            )

    def _read_piece(self, chosen: NDArray) -> NDArray:
        """Read the chosen rows in the order of the file; neighbours come in one read."""
        order = np.argsort(chosen, kind="stable")
        rows = chosen[order]
        row_bytes = self.dtype.itemsize * self.shape[1]
        is_far = np.diff(rows) * row_bytes > MAX_GAP_BYTES
        group = np.concatenate([[0], is_far.cumsum()])
        first = rows[np.concatenate([[True], is_far])]
        last = rows[np.concatenate([is_far, [True]])]
        lengths = last - first + 1

        begins = (self.offset + first * row_bytes).tolist()
        sizes = (lengths * row_bytes).tolist()
        content = self._read_ranges(begins, sizes)
        if len(content) < sum(sizes):
            raise UnusableRowError(f"{self.path} has become shorter while it was read: copy it again")

        read = np.frombuffer(content, self.dtype).reshape(-1, self.shape[1])
        first_read = lengths.cumsum() - lengths  # where each group begins in `read`
        points = np.empty((len(rows), self.shape[1]), self.dtype)
        points[order] = read[first_read[group] + rows - first[group]]
        return points

    def _read_ranges(self, begins: list[int], sizes: list[int]) -> bytes:
        """Read ranges of bytes, one after the other; beyond the end of the file there are none."""
        try:
            if hasattr(os, "pread"):
                read = os.pread
                file = self._descriptor
                return b"".join([read(file, size, begin) for begin, size in zip(begins, sizes)])
            parts = []
            for begin, size in zip(begins, sizes):
                os.lseek(self._descriptor, begin, os.SEEK_SET)
                parts.append(os.read(self._descriptor, size))
            return b"".join(parts)
        except OSError as error:
            raise UnusableRowError(f"{self.path} cannot be read: {error.strerror}") from error

    def _check(self, points: NDArray, chosen: Tensor) -> None:
        is_single = self.dtype == np.float32
        limit = MAX_FLOAT32_COORDINATE if is_single else MAX_COORDINATE
        largest = np.abs(points).max(initial=0)
        if largest <= limit:  # NaN is not
            return
        i, column = np.argwhere(~(np.abs(points) <= limit))[0]
        value = f"{points[i, column]:.3g}".replace("nan", "NaN").replace("inf", "infinity")
        where = f"row {int(chosen[i])}, column {column} (both count from 0)"
        advice = "remove the row, or write a finite number there"
        if np.isfinite(points[i, column]):
            advice = "give the points in larger units"
            if is_single:
                advice += ", or save them as float64"
        raise UnusableRowError(f"{self.path} holds {value} in {where}: {advice}")


def open_large_file(path: str | None) -> RowFile | None:
    """Open an .npy file of at least LARGE_FILE_BYTES of rows (N, d), without reading them.

    Returns:
        The rows, or None for any other file, which points.point_files reads.

    Raises:
        ValueError: the file has been cut off, or its numbers cannot be used without conversion.
    """
    if not path or not path.endswith(".npy") or not os.path.isfile(path):
        return None
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)  # reads the header alone
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
    return RowFile(path, rows.shape, rows.dtype, rows.offset)


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
