"""Files of points: .csv and other tables in text, .npy and .npz, with or without a header and a column of labels."""

import csv
import warnings
from pathlib import Path

import numpy as np

from runtime.arrays import floats

LARGEST = 1e100  # of a coordinate: the squares of larger ones come near to what float64 holds
BLURRED = 1e-4  # of a standard deviation: rounding to float32 may move a point by as much
MOST_LABELS = 1000


def read_table(path: str | None, label: str | None = None) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Points (N, d), labels (N,) int64 and their names; without a column of labels None and [].

    Points are float32, or float64 where float32 would blur them or their squares would not fit into it.
    label: the name or the index, from 0, of the column that holds the labels.

    Raises:
        ValueError: no path, no such column, or not a finite table of at least 2 rows and 2 columns of coordinates, of
            sizes up to LARGEST.
        FileNotFoundError: no such file.
    """
    if not path:
        raise ValueError("dataset=file needs dataset.path=FILE: a .csv, .npy or .npz file, or a table of numbers")
    names, rows = _from_array(path) if Path(path).suffix in (".npy", ".npz") else _from_text(path)
    column, given = None if label is None else _column(names, label, path), None
    if column is not None:
        given, rows = [str(row[column]) for row in rows], _without(rows, column)
    table = rows if isinstance(rows, np.ndarray) else _numbers(rows, column, path)
    points = floats(table, path).double().numpy()
    if points.ndim != 2 or points.shape[1] < 2 or len(points) < 2:
        raise ValueError(f"{path} must hold points of shape (N, d) with N and d at least 2, not {points.shape}")
    check_sizes(points, path)
    labels, classes = (None, []) if given is None else _classes(given, path)
    return _as_short_as_possible(points), labels, classes


def check_sizes(points: np.ndarray, path: str) -> None:
    """Raises ValueError where a number is beyond LARGEST."""
    if (largest := np.abs(points).max()) > LARGEST:
        raise ValueError(f"{path} holds numbers as large as {largest:.1g}: give the points in larger units")


def _from_array(path: str) -> tuple[list[str], np.ndarray]:
    """The names of the columns, which are their indices, and the array."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = np.load(path)
            if not isinstance(held, np.ndarray):
                with held:
                    if len(held.files) != 1:
                        found = ", ".join(held.files) or "none"
                        raise ValueError(f"it must hold a single array, and holds {found}; save the points alone")
                    held = held[held.files[0]]
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises all sorts of errors
        advice = "; was it cut off? copy it again" if "EOF" in str(error) else ""
        raise ValueError(f"{path} is not a table of numbers: {error}{advice}") from error
    return [str(i) for i in range(held.shape[1] if held.ndim == 2 else 0)], held


def _from_text(path: str) -> tuple[list[str], list[list[str]]]:
    """The names of the columns (a header, a first row without any number; else their indices), and all cells."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = [line for row in file if (line := row.split("#")[0].strip("\r\n ")).strip()]
    mark = next((mark for mark in ",;\t" if lines and mark in lines[0]), None)
    cells = csv.reader(lines, delimiter=mark, skipinitialspace=True) if mark else map(str.split, lines)
    try:
        rows = [[cell.strip() for cell in row] for row in cells]
    except csv.Error as error:
        raise ValueError(f"{path} is not a table of numbers: {error}") from error
    if not rows:
        raise ValueError(f"{path} is not a table of numbers: it is empty")
    header = not any(_is_number(cell) for cell in rows[0])
    if header and len(rows) == 1:
        raise ValueError(f"{path} is not a table of numbers: it has a row of names and no points below it")
    names = rows[0] if header else [str(i) for i in range(len(rows[0]))]
    for i, row in enumerate(rows, 1):
        if len(row) != len(names):
            wrong = f"row {i} has {len(row)} cells where row 1 has {len(names)}"
            raise ValueError(f"{path} is not a table of numbers: {wrong}")
    return names, rows[header:]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(names: list[str], label: str, path: str) -> int:
    if label in names:
        return names.index(label)
    if label.lstrip("-").isdecimal() and -len(names) <= int(label) < len(names):
        return int(label) % len(names)
    some = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
    raise ValueError(f"{path} has no column {label!r} for dataset.label; its columns are {some}")


def _without(rows: np.ndarray | list[list[str]], column: int) -> np.ndarray | list[list[str]]:
    if isinstance(rows, np.ndarray):
        return np.delete(rows, column, 1)
    return [row[:column] + row[column + 1 :] for row in rows]


def _numbers(rows: list[list[str]], removed: int | None, path: str) -> np.ndarray:
    """Cells as float64. removed: the column that is missing in the rows, for the sentence about a wrong cell."""
    try:
        table = np.array(rows, dtype=float)
        if np.isfinite(table).all():
            return table
    except ValueError:
        pass
    for i, row in enumerate(rows, 1):
        for j, cell in enumerate(row):
            if not _is_number(cell) or not np.isfinite(float(cell)):
                column = j + (removed is not None and j >= removed)
                what = f"{cell!r}, which is not a finite number" if cell else "nothing"
                raise ValueError(
                    f"{path} is not a table of numbers: point {i} has {what} in column {column} (counted from 0)"
                    "; remove it, or name a column of labels with dataset.label"
                )
    raise ValueError(f"{path} is not a table of numbers")


def _classes(given: list[str], path: str) -> tuple[np.ndarray, list[str]]:
    """Indices (N,) into the sorted names of the labels; whole numbers lose their .0 and are sorted as numbers."""
    if not all(cell and cell != "nan" for cell in given):
        raise ValueError(f"{path} has points without a label: fill the column that dataset.label names")
    if all(map(_is_number, given)):
        given = [str(int(x)) if (x := float(cell)).is_integer() else cell for cell in given]
    known = sorted(set(given), key=float if all(map(_is_number, given)) else None)
    if len(known) > MOST_LABELS:
        raise ValueError(f"{path} has {len(known):,} different labels: dataset.label must name a column of classes")
    index = {name: i for i, name in enumerate(known)}
    return np.array([index[cell] for cell in given], np.int64), known


def _as_short_as_possible(points: np.ndarray) -> np.ndarray:
    """Points (N, d) in float32 where that holds them, their differences and their squares."""
    spread = points.std(0)
    if np.abs(points).max() > 1e15 or (spread[spread > 0] < 1e-15).any():
        return points
    short = points.astype(np.float32)
    return short if (np.abs(short - points).max(0) <= BLURRED * spread)[np.ptp(points, 0) > 0].all() else points
