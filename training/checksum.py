"""Checksums that tell whether data or weights are still the same, to the bit."""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dataset import DataSet, PointSet
from pipeline import Pipeline


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


# ---------------------------------------------------------------- the data of a checkpoint


def missing_data(pipeline: Pipeline, checkpoint: Mapping[str, Any]) -> str | None:
    """Why the data that a model was trained on are not at hand, in words; None where they are.

    Only files and folders of images can change. Points that are drawn are a function of the options.
    """
    options = pipeline.config["dataset"]
    path = options.get("path") or options.get("root")
    if not path:
        return None
    try:
        data, _ = pipeline.data_sets()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    except ValueError as error:
        return f"{path} cannot be read: {error}"
    known = checkpoint.get("data")
    if known and checksum(data) != known:
        return f"{path} has changed since the training"
    return None


def check_data(pipeline: Pipeline, checkpoint: Mapping[str, Any]) -> None:
    """Check that the file or the images that a model was trained on are still the same.

    Raises:
        ValueError: it has changed, or cannot be read.
    """
    missing = missing_data(pipeline, checkpoint)
    if missing:
        advice = "samples are compared with what the training held out: put the data of the training back"
        raise ValueError(f"{missing}; {advice}")
