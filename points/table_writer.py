"""Points as a text table with the columns, the labels and the types of the file that was learnt."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from points.tables import Columns, label_position
from points.text_layout import is_number
from runtime.atomic_file import atomic_file

MAX_WHOLE = 2.0**53  # float64 represents every whole number up to here


def write_table(
    path: str | Path,
    points: NDArray,
    columns: Columns,
    labels: NDArray | None = None,
    classes: Sequence[str] = (),
    label_option: str | None = None,
) -> None:
    """Write points as a .csv file that points.tables reads as the same numbers and labels.

    Texts stand in quotes and numbers do not. So a name may hold any character, or look like a
    number. Columns of whole numbers are rounded. Without names there is no header.

    Args:
        path: the file.
        points: shape (N, d), float32 or float64.
        columns: the names and types of the coordinates.
        labels: (N,), indices into `classes`; None: no column of labels.
        classes: the names of the labels.
        label_option: dataset.label of the training; without a header it places the labels.

    Raises:
        OSError: the file cannot be written.
    """
    dim = points.shape[1]
    has_names = len(columns.names) == dim
    whole = columns.whole if len(columns.whole) == dim else [False] * dim
    cells = [_number_cells(column, is_whole) for column, is_whole in zip(points.T, whole)]
    header = [_quoted(name) for name in columns.names]
    if labels is not None:
        names = [name if is_number(name) else _quoted(name) for name in classes]
        position = dim if has_names else label_position(label_option, dim)
        cells.insert(position, [names[label] for label in labels])
        header.insert(position, _quoted(columns.label))

    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        if has_names:
            text.write(",".join(header) + "\n")
        for row in zip(*cells):
            text.write(",".join(row) + "\n")
        text.detach()


def _number_cells(column: NDArray, is_whole: bool) -> list[str]:
    """Return numbers (N,) as the shortest texts that give the same float32 or float64 again."""
    if not is_whole:
        return column.astype(str).tolist()
    rounded = np.round(column.astype(np.float64))
    if np.isfinite(rounded).all() and np.abs(rounded).max() < MAX_WHOLE:
        return rounded.astype(np.int64).astype(str).tolist()
    return rounded.astype(str).tolist()


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
