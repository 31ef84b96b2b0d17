"""Checksums that tell whether data or weights are still the same, to the bit."""

import hashlib
from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dataset import DataSet, PointSet


def checksum(data: DataSet) -> str:
    """The checksum of everything that is learnt from: points or pixels, and labels.

    For a LargeSet it covers some of the points, and how many there are.
    """
    if isinstance(data, PointSet):
        sampled_from = f" of {len(data)}" if len(data) > len(data.points) else ""
        header = f"{data.points.dtype} {data.points.shape}{sampled_from}"
        arrays = iter([data.points])
    else:
        header = f"uint8 {(len(data), *data.dims)}"
        arrays = data.blocks()
    labels = [] if data.labels is None else [data.labels]
    return checksum_of_arrays(chain(arrays, labels), header)


def checksum_of_arrays(arrays: Iterable[NDArray | Tensor], header: str = "") -> str:
    """The checksum of a text and of the bytes of some arrays."""
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    for array in arrays:
        digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()
