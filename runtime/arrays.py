"""Arrays of every kind that people have, as tensors: numbers stay what they are, anything else is refused in words."""

import mmap
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def numbers(values: Any, what: str) -> Tensor:
    """Real numbers (an array of any type, byte order or strides, a list, a tensor) as a tensor of the same values.

    Tensors and arrays that torch knows keep their type and memory; other integers become int64, or float64 where they
    do not fit; long doubles become float64.

    Raises:
        ValueError: text, dates, complex numbers, objects, rows of different lengths or hidden (masked) values.
    """
    if isinstance(values, Tensor):
        if values.is_complex() or values.layout != torch.strided or values.is_quantized:
            raise ValueError(f"{what} must be an ordinary array of real numbers, not {values.dtype} {values.layout}")
        return values
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{what} must be an array of real numbers; its rows do not fit together") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what} must be an array of real numbers, not of {array.dtype}")
    if np.ma.is_masked(values):
        raise ValueError(f"{what} has masked values: fill them in or remove their rows")
    kind = array.dtype.newbyteorder("=")
    if kind.kind == "u" and kind.itemsize > 1:
        kind = np.dtype(np.int64 if kind.itemsize < 8 else np.float64)
    elif kind.itemsize > 8:
        kind = np.dtype(np.float64)
    array = np.ascontiguousarray(array, kind).reshape(array.shape)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def read_here_and_there(file: np.memmap) -> None:
    """Let the kernel read single pages of a mapped file: it would read 128 kB for each row."""
    if hasattr(mmap, "MADV_RANDOM"):
        file._mmap.madvise(mmap.MADV_RANDOM)  # pyright: ignore[reportAttributeAccessIssue]


def give_back(file: np.memmap) -> None:
    """Give back the pages of a mapped file that this process has touched; it must not have written to a copy.

    They stay in the kernel's cache as long as there is room, but no longer count as memory of this process.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        file._mmap.madvise(mmap.MADV_DONTNEED)  # pyright: ignore[reportAttributeAccessIssue]


def floats(values: Any, what: str) -> Tensor:
    """The same as floating-point numbers, all finite: integers become float32, or float64 where that would round them.

    Raises:
        ValueError: as `numbers`; also NaN and infinity.
    """
    x = numbers(values, what)
    if not x.is_floating_point():
        exact = x.to(torch.float32)
        x = exact if bool((exact.double() == x.double()).all()) else x.to(torch.float64)
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{what} holds NaN or infinity")
    return x


def joined(parts: Iterable[tuple[Tensor, ...]], rows: int) -> tuple[Tensor, ...]:
    """torch.cat of each of the tensors in `parts`, which come one tuple after the other and have `rows` rows in all.

    Each is copied to its place at once: many small ones that stay, between large ones that are freed, leave gaps in
    memory into which the next large one does not fit (1.5 GB for the score of 100 000 points under 2 000 Gaussians).
    """
    wholes, done = (), 0
    for part in parts:
        wholes = wholes or tuple(x.new_empty(rows, *x.shape[1:]) for x in part)
        for whole, x in zip(wholes, part):
            whole[done : done + len(x)] = x
        done += len(part[0])
    return wholes
