"""Files of points: text tables such as .csv, and .npy and .npz arrays.

Text may have a header. A column may hold labels.
"""

import csv
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime.arrays import floats

MAX_COORDINATE = 1e100  # squares of larger numbers come near to the limit of float64
MAX_ROUNDING = 1e-4  # standard deviations by which rounding to float32 may move a point
MAX_FLOAT32_COORDINATE = 1e15  # squares of larger numbers come near to the limit of float32
MIN_FLOAT32_SPREAD = 1e-15  # squares of smaller numbers come near to the least float32
MAX_LABELS = 1000
SEPARATORS = ",;\t"


class TextTable(NamedTuple):
    """The cells of a text file.

    names: the names of its columns; without a header their indices.
    rows: the cells of each point.
    lines: the number of the line, from 1, that each row stands in.
    has_header: whether the names come from the file.
    """

    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    has_header: bool

    def without_column(self, column: int) -> "TextTable":
        names = _without(self.names, column)
        rows = [_without(row, column) for row in self.rows]
        return TextTable(names, rows, self.lines, self.has_header)


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
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is a folder, a device or a pipe, and not a file of points")
    if Path(path).suffix in (".npy", ".npz"):
        table, cells = _points_and_labels_of_array(path, label)
    else:
        table, cells = _points_and_labels_of_text(path, label)

    points = floats(table, path).double().numpy()
    if points.ndim != 2 or points.shape[1] < 2 or len(points) < 2:
        rule = "points of shape (N, d) with N and d at least 2"
        raise ValueError(f"{path} must hold {rule}, not {points.shape}")
    check_sizes(points, path)
    points = _in_float32_if_exact(points)

    if cells is None:
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


def _points_and_labels_of_array(path: str, label: str | None) -> tuple[np.ndarray, list[str] | None]:
    """Return the array without the column of labels, and that column; None without labels."""
    array = _read_array(path)
    if label is None:
        return array, None
    num_columns = array.shape[1] if array.ndim == 2 else 0
    column = _column_index([str(i) for i in range(num_columns)], label, path)
    return np.delete(array, column, 1), [str(row[column]) for row in array]


def _points_and_labels_of_text(path: str, label: str | None) -> tuple[np.ndarray, list[str] | None]:
    """Return the numbers of a text file, and its column of labels; None without labels."""
    table = _read_text(path)
    if label is None:
        return _parse_cells(table, path, has_labels=False), None
    column = _column_index(table.names, label, path)
    cells = [row[column] for row in table.rows]
    return _parse_cells(table.without_column(column), path, has_labels=True), cells


def _read_array(path: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _load_single_array(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises many types of errors
        advice = "; was it cut off? copy it again" if "EOF" in str(error) else ""
        raise ValueError(f"{path} is not a table of numbers: {error}{advice}") from error


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


def _read_text(path: str) -> TextTable:
    """Return all cells of a text file.

    The first row is a header if none of its cells is a number. Without a header the names are the
    indices of the columns.
    """
    rows, lines = _split_into_cells(_lines_with_content(path), path)
    if not rows:
        raise ValueError(f"{path} is not a table of numbers: it is empty")
    has_header = not any(_is_number(cell) for cell in rows[0])
    if has_header and len(rows) == 1:
        reason = "it has a row of names and no points below it"
        raise ValueError(f"{path} is not a table of numbers: {reason}")

    num_columns = len(rows[0])
    for row, line in zip(rows, lines):
        if len(row) != num_columns:
            reason = f"line {line} has {len(row)} cells where line {lines[0]} has {num_columns}"
            raise ValueError(f"{path} is not a table of numbers: {reason}")
    if has_header:
        return TextTable(rows[0], rows[1:], lines[1:], has_header)
    return TextTable([str(i) for i in range(num_columns)], rows, lines, has_header)


def _lines_with_content(path: str) -> dict[int, str]:
    """Return the lines of a file by their numbers from 1, without comments and empty lines."""
    lines = {}
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, row in enumerate(file, 1):
            before_comment, _, _ = row.partition("#")
            line = before_comment.strip("\r\n ")
            if line.strip():
                lines[number] = line
    return lines


def _split_into_cells(lines: dict[int, str], path: str) -> tuple[list[list[str]], list[int]]:
    """Split lines at the first of SEPARATORS that occurs in the first line, else at spaces.

    Returns:
        The rows of cells, and the number of the last line of each.
    """
    numbers = list(lines)
    texts = list(lines.values())
    separator = None
    for candidate in SEPARATORS:
        if texts and candidate in texts[0]:
            separator = candidate
            break
    if separator is None:
        return [text.split() for text in texts], numbers

    rows = []
    row_numbers = []
    reader = csv.reader(texts, delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            rows.append([cell.strip() for cell in row])
            row_numbers.append(numbers[reader.line_num - 1])  # a quoted cell may span lines
    except csv.Error as error:
        raise ValueError(f"{path} is not a table of numbers: {error}") from error
    return rows, row_numbers


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


def _without(cells: list[str], column: int) -> list[str]:
    return cells[:column] + cells[column + 1 :]


def _parse_cells(table: TextTable, path: str, has_labels: bool) -> np.ndarray:
    """Return the cells as float64.

    Raises:
        ValueError: a cell is empty or no finite number; the sentence says where, and what to do.
    """
    try:
        numbers = np.array(table.rows, dtype=float)
    except ValueError:
        numbers = None
    if numbers is not None and np.isfinite(numbers).all():
        return numbers

    for row, line in zip(table.rows, table.lines):
        for column, cell in enumerate(row):
            if not _is_number(cell) or not np.isfinite(float(cell)):
                fault = _fault_of_cell(table, line, column, cell, has_labels)
                raise ValueError(f"{path} is not a table of numbers: {fault}")
    raise ValueError(f"{path} is not a table of numbers")


def _fault_of_cell(table: TextTable, line: int, column: int, cell: str, has_labels: bool) -> str:
    """Return where a wrong cell stands, what is wrong with it, and what to do."""
    name = table.names[column]
    where = f"column {name!r}" if table.has_header else f"cell {int(name) + 1}"
    if not cell:
        return f"line {line}, {where} is empty: fill it, or remove the line"

    is_text = not any(_is_number(row[column]) for row in table.rows)
    advice = "write a number, or remove the line"
    if is_text and has_labels:
        advice = "remove the column"
    elif is_text:
        advice = f"if these are labels, add dataset.label={name}, otherwise remove the column"
    kind = "finite number" if _is_number(cell) else "number"
    return f"line {line}, {where} holds {cell!r}, which is not a {kind}: {advice}"


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
