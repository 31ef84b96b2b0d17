"""Arrays as tensors: conversion and checks, memory-mapped files, and concatenation in pieces."""

import mmap
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

REAL_KINDS = "biuf"  # the letters of numpy.dtype.kind: bool, signed and unsigned integers, floats

# ---------------------------------------------------------------- conversion


def numbers(values: Any, what: str) -> Tensor:
    """Convert an array, a list or a number to a tensor of the same shape and the same values.

    A tensor is returned as it is. An array shares its memory with the result where torch allows
    that. Unsigned integers of more than 8 bits become int64, because torch computes with few of
    them; uint64 becomes float64.

    Args:
        values: anything that numpy.asarray takes.
        what: the name of the values in an error.

    Raises:
        ValueError: rows of different lengths, or anything but real numbers of at most 64 bits.
    """
    if isinstance(values, Tensor) and not values.is_complex():
        return values

    try:
        array = np.asarray(values)
    except ValueError as error:
        message = f"{what} must be an array of real numbers with rows of equal length"
        raise ValueError(message) from error
    kind = array.dtype.kind
    size = array.dtype.itemsize
    if kind not in REAL_KINDS or size > 8:
        raise ValueError(f"{what} must be an array of real numbers, not of {array.dtype}")

    dtype = array.dtype.newbyteorder("=")
    if kind == "u" and size > 1:
        dtype = np.promote_types(dtype, np.int64)
    return torch.from_numpy(np.require(array, dtype, ["C_CONTIGUOUS", "WRITEABLE"]))


def floats(values: Any, what: str) -> Tensor:
    """Convert values to a floating-point tensor of the same shape, and check that all are finite.

    Floats keep their type. Integers become float32, or float64 where float32 would round them.

    Raises:
        ValueError: NaN or infinity; also as `numbers`.
    """
    x = numbers(values, what)
    if not x.is_floating_point():
        single = x.to(torch.float32)
        is_exact = bool((single.double() == x.double()).all())
        x = single if is_exact else x.to(torch.float64)
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{what} holds NaN or infinity")
    return x


# ---------------------------------------------------------------- memory-mapped files


def disable_read_ahead(file: np.memmap) -> None:
    """Tell the kernel to read single pages of a mapped file.

    By default it reads 128 kB around each page, which is wasted where rows are read at random.
    """
    if hasattr(mmap, "MADV_RANDOM"):
        file._mmap.madvise(mmap.MADV_RANDOM)  # pyright: ignore[reportAttributeAccessIssue]


def release_pages(file: np.memmap) -> None:
    """Remove the pages of a mapped file from this process's memory.

    The kernel keeps them in its cache as long as there is room. The next access maps them again.
    What was written to a copy-on-write mapping would be lost.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        file._mmap.madvise(mmap.MADV_DONTNEED)  # pyright: ignore[reportAttributeAccessIssue]


# ---------------------------------------------------------------- concatenation


def concatenated(parts: Iterable[tuple[Tensor, ...]], rows: int) -> tuple[Tensor, ...]:
    """Concatenate tuples of tensors along the first dimension, each tensor with its counterparts.

    Each part is copied to its place before the next one is computed. torch.cat needs all parts at
    once: many small results between large freed ones fragment the memory. For the score of 100,000
    points under 2,000 Gaussians this took 1.5 GB.

    Args:
        parts: tuples of tensors (n, ...), one after the other; the n may differ.
        rows: the sum of all n.

    Returns:
        One tensor (rows, ...) for each place in the tuples; () if there are no parts.
    """
    wholes: tuple[Tensor, ...] = ()
    begin = 0
    for part in parts:
        if not wholes:
            wholes = tuple(x.new_empty(rows, *x.shape[1:]) for x in part)
        end = begin + len(part[0])
        for whole, x in zip(wholes, part):
            whole[begin:end] = x
        begin = end
    return wholes
