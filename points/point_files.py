"""Files of points: a user's table as points, labels and names.

points.tables reads the file. Here its numbers become float32, or float64 where float32 would move
the points visibly.
"""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from points.tables import Columns, read_any_table
from points.text_layout import is_number
from runtime.arrays import floats

MAX_COORDINATE = 1e100  # squares of larger numbers come near to the limit of float64
MAX_ROUNDING = 1e-4  # standard deviations by which rounding to float32 may move a point
MAX_FLOAT32_COORDINATE = 1e15  # squares of larger numbers come near to the limit of float32
MIN_FLOAT32_SPREAD = 1e-15  # squares of smaller numbers come near to the least float32
MAX_LABELS = 1000
WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0*$")  # such as 2.0


class PointFile(NamedTuple):
    """The points of a file.

    points: shape (N, d), float32, or float64 where float32 would move them visibly.
    labels: (N,), int64: indices into `classes`. None without labels.
    classes: the names of the labels; [] without labels.
    columns: the names of the coordinates, and which hold whole numbers only.
    notes: what was left out of the file, in sentences.
    """

    points: NDArray
    labels: NDArray | None
    classes: list[str]
    columns: Columns
    notes: list[str]


def read_table(
    path: str | None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    missing: str = "error",
) -> PointFile:
    """Read points, and the labels in one of the columns (see points.tables.read_any_table).

    Raises:
        ValueError: no path, or anything but a finite table of at least 2 rows and 2 coordinates, with
            numbers up to MAX_COORDINATE; also as read_any_table.
        OSError: the file cannot be read.
    """
    if not path:
        kinds = "a .csv, .npy or .npz file, or a table of numbers"
        raise ValueError(f"dataset=file needs dataset.path=FILE: {kinds}")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is a folder, a device or a pipe, and not a file of points")
    table = read_any_table(path, label, columns, missing)
    points = floats(table.numbers, path).double().numpy()
    if points.ndim != 2 or points.shape[1] < 2 or len(points) < 2:
        rule = "points of shape (N, d) with N and d at least 2"
        raise ValueError(f"{path} must hold {rule}, not {points.shape}")
    check_sizes(points, path)
    points = _in_float32_if_exact(points)

    if table.labels is None:
        return PointFile(points, None, [], table.columns, table.notes)
    labels, classes = _class_indices(table.labels, table.label_texts, path)
    return PointFile(points, labels, classes, table.columns, table.notes)


def check_sizes(points: np.ndarray, path: str) -> None:
    """Check that all numbers are small enough to be squared.

    Raises:
        ValueError: a number is beyond MAX_COORDINATE.
    """
    largest = np.abs(points).max()
    if largest > MAX_COORDINATE:
        advice = "give the points in larger units"
        raise ValueError(f"{path} holds numbers as large as {largest:.1g}: {advice}")


def _class_indices(codes: NDArray, texts: list[str], path: str) -> tuple[NDArray, list[str]]:
    """Return the index (N,) of each label in the sorted names of the labels, and these names.

    If all labels are numbers, they are sorted as numbers, and "2.0" becomes "2".

    Args:
        codes: the labels (N,), as indices into `texts`.
    """
    all_numbers = all(is_number(text) for text in texts)
    if all_numbers:
        texts = [WHOLE_NUMBER.sub(r"\1", text) for text in texts]
    names = sorted(set(texts), key=lambda text: (float(text), text) if all_numbers else text)
    if len(names) > MAX_LABELS:
        advice = "dataset.label must name a column of classes"
        raise ValueError(f"{path} has {len(names):,} different labels: {advice}")

    index = {name: i for i, name in enumerate(names)}
    index_of_code = np.array([index[text] for text in texts], np.int64)
    return index_of_code[codes], names


# ---------------------------------------------------------------- precision


def _in_float32_if_exact(points: np.ndarray) -> np.ndarray:
    """Return points (N, d) in float32 if that represents them, their differences and squares."""
    spread = points.std(0)
    too_large = np.abs(points).max() > MAX_FLOAT32_COORDINATE
    too_close = (spread[spread > 0] < MIN_FLOAT32_SPREAD).any()
    if too_large or too_close:
        return points

    single = points.astype(np.float32)
    rounding = np.abs(single - points).max(0)
    varies = np.ptp(points, 0) > 0
    is_exact_enough = (rounding <= MAX_ROUNDING * spread)[varies].all()
    return single if is_exact_enough else points
