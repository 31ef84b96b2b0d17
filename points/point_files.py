"""Files of points: text tables such as .csv, and .npy and .npz arrays.

Text may have a header. A column may hold labels.
"""

import csv
import warnings
from pathlib import Path

import numpy as np

from runtime.arrays import floats

MAX_COORDINATE = 1e100  # squares of larger numbers come near to the limit of float64
MAX_ROUNDING = 1e-4  # standard deviations by which rounding to float32 may move a point
MAX_FLOAT32_COORDINATE = 1e15  # squares of larger numbers come near to the limit of float32
MIN_FLOAT32_SPREAD = 1e-15  # squares of smaller numbers come near to the least float32
MAX_LABELS = 1000
SEPARATORS = ",;\t"

Rows = np.ndarray | list[list[str]]


def read_table(
    path: str | None,
    label: str | None = None,
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Read points, and the labels in one of the columns.

    Args:
        path: a .npy or .npz file that holds one array, or a text file with one point per line.
            Commas, semicolons, tabs or spaces separate its cells, and "#" begins a comment.
        label: name or index, from 0, of the column with the labels; default: no labels.

    Returns:
        Points (N, d), float32, or float64 where float32 would move them visibly. Labels (N,) int64,
        or None. The names of the labels, or [].

    Raises:
        ValueError: no path, no such column, or anything but a finite table of at least 2 rows and 2
            coordinates, with numbers up to MAX_COORDINATE.
        FileNotFoundError: no such file.
    """
    if not path:
        kinds = "a .csv, .npy or .npz file, or a table of numbers"
        raise ValueError(f"dataset=file needs dataset.path=FILE: {kinds}")
    if Path(path).suffix in (".npy", ".npz"):
        column_names, rows = _read_array(path)
    else:
        column_names, rows = _read_text(path)

    label_column = None
    cells: list[str] = []
    if label is not None:
        label_column = _column_index(column_names, label, path)
        cells = [str(row[label_column]) for row in rows]
        rows = _without_column(rows, label_column)

    table = rows if isinstance(rows, np.ndarray) else _parse_cells(rows, label_column, path)
    points = floats(table, path).double().numpy()
    if points.ndim != 2 or points.shape[1] < 2 or len(points) < 2:
        rule = "points of shape (N, d) with N and d at least 2"
        raise ValueError(f"{path} must hold {rule}, not {points.shape}")
    check_sizes(points, path)
    points = _in_float32_if_exact(points)

    if label_column is None:
        return points, None, []
    labels, label_names = _class_indices(cells, path)
    return points, labels, label_names


def check_sizes(points: np.ndarray, path: str) -> None:
    """Check that all numbers are small enough to be squared.

    Raises:
        ValueError: a number is beyond MAX_COORDINATE.
    """
    largest = np.abs(points).max()
    if largest > MAX_COORDINATE:
        advice = "give the points in larger units"
        raise ValueError(f"{path} holds numbers as large as {largest:.1g}: {advice}")


# ---------------------------------------------------------------- reading


def _read_array(path: str) -> tuple[list[str], np.ndarray]:
    """Return the names of the columns, which are their indices, and the array."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = _load_single_array(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises many types of errors
        advice = "; was it cut off? copy it again" if "EOF" in str(error) else ""
        raise ValueError(f"{path} is not a table of numbers: {error}{advice}") from error
    num_columns = array.shape[1] if array.ndim == 2 else 0
    return [str(i) for i in range(num_columns)], array


def _load_single_array(path: str) -> np.ndarray:
    content = np.load(path)
    if isinstance(content, np.ndarray):
        return content
    with content as archive:
        if len(archive.files) != 1:
            found = ", ".join(archive.files) or "none"
            advice = "save the points alone"
            raise ValueError(f"it must hold a single array, and holds {found}; {advice}")
        return archive[archive.files[0]]


def _read_text(path: str) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and all cells.

    The first row is a header if none of its cells is a number. Without a header the names are the
    indices of the columns.
    """
    rows = _split_into_cells(_lines_with_content(path), path)
    if not rows:
        raise ValueError(f"{path} is not a table of numbers: it is empty")
    has_header = not any(_is_number(cell) for cell in rows[0])
    if has_header and len(rows) == 1:
        reason = "it has a row of names and no points below it"
        raise ValueError(f"{path} is not a table of numbers: {reason}")

    num_columns = len(rows[0])
    for i, row in enumerate(rows, 1):
        if len(row) != num_columns:
            reason = f"row {i} has {len(row)} cells where row 1 has {num_columns}"
            raise ValueError(f"{path} is not a table of numbers: {reason}")
    if has_header:
        return rows[0], rows[1:]
    return [str(i) for i in range(num_columns)], rows


def _lines_with_content(path: str) -> list[str]:
    """Return the lines of a file without comments, and without empty lines."""
    lines = []
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for row in file:
            before_comment, _, _ = row.partition("#")
            line = before_comment.strip("\r\n ")
            if line.strip():
                lines.append(line)
    return lines


def _split_into_cells(lines: list[str], path: str) -> list[list[str]]:
    """Split lines at the first of SEPARATORS that occurs in the first line, else at spaces."""
    if not lines:
        return []
    separator = None
    for candidate in SEPARATORS:
        if candidate in lines[0]:
            separator = candidate
            break
    if separator is None:
        return [line.split() for line in lines]

    rows = []
    try:
        for row in csv.reader(lines, delimiter=separator, skipinitialspace=True):
            rows.append([cell.strip() for cell in row])
    except csv.Error as error:
        raise ValueError(f"{path} is not a table of numbers: {error}") from error
    return rows


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- columns


def _column_index(names: list[str], label: str, path: str) -> int:
    """Return the index of the column that `label` names, or is itself the index of."""
    if label in names:
        return names.index(label)
    is_integer = label.lstrip("-").isdecimal()
    if is_integer and -len(names) <= int(label) < len(names):
        return int(label) % len(names)
    some_names = ", ".join(names[:8])
    if len(names) > 8:
        some_names += ", ..."
    problem = f"no column {label!r} for dataset.label"
    raise ValueError(f"{path} has {problem}; its columns are {some_names}")


def _without_column(rows: Rows, column: int) -> Rows:
    if isinstance(rows, np.ndarray):
        return np.delete(rows, column, 1)
    return [row[:column] + row[column + 1 :] for row in rows]


def _parse_cells(rows: list[list[str]], removed: int | None, path: str) -> np.ndarray:
    """Return cells as float64.

    removed: index of the label column, which the rows no longer have. An error counts columns as
        in the file.
    """
    try:
        table = np.array(rows, dtype=float)
    except ValueError:
        table = None
    if table is not None and np.isfinite(table).all():
        return table

    for i, row in enumerate(rows, 1):
        for j, cell in enumerate(row):
            if not _is_number(cell) or not np.isfinite(float(cell)):
                column = j
                if removed is not None and j >= removed:
                    column += 1
                content = f"{cell!r}, which is not a finite number" if cell else "nothing"
                raise ValueError(
                    f"{path} is not a table of numbers: point {i} has {content} in column {column}"
                    " (counted from 0); remove it, or name a column of labels with dataset.label"
                )
    raise ValueError(f"{path} is not a table of numbers")


def _class_indices(cells: list[str], path: str) -> tuple[np.ndarray, list[str]]:
    """Return the index (N,) of each label in the sorted names of the labels, and these names.

    If all labels are numbers, they are sorted as numbers, and whole ones lose their ".0".
    """
    for cell in cells:
        if not cell or cell == "nan":
            advice = "fill the column that dataset.label names"
            raise ValueError(f"{path} has points without a label: {advice}")

    all_numbers = all(_is_number(cell) for cell in cells)
    if all_numbers:
        cells = [_without_decimals(cell) for cell in cells]
    names = sorted(set(cells), key=float if all_numbers else None)
    if len(names) > MAX_LABELS:
        advice = "dataset.label must name a column of classes"
        raise ValueError(f"{path} has {len(names):,} different labels: {advice}")

    index = {name: i for i, name in enumerate(names)}
    return np.array([index[cell] for cell in cells], np.int64), names


def _without_decimals(cell: str) -> str:
    """Return "2" for "2.0", and any other number as it is."""
    number = float(cell)
    return str(int(number)) if number.is_integer() else cell


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
