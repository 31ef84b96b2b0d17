"""A user's table as numbers, labels and names: text by pandas, .npy and .npz by NumPy.

Text may be packed (gz, zip, bz2, xz) and have any common separator; parquet and Excel files are
read where their readers are installed. This file needs no torch.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from points.text_layout import MISSING, Layout, find_layout, leaves_quote_open, unpacked

if TYPE_CHECKING:
    import pandas as pd

MAX_NAMED = 8  # columns that a sentence names
MIN_COUNTED_ROWS = 10  # with fewer rows, a column 0, 1, 2 ... need not be a row number
# What people call a column that counts the rows.
INDEX_NAMES = ("index", "id", "row", "rowid", "row_id", "rownames", "row_names", "no", "nr", "#")
ARRAY_ENDINGS = (".npy", ".npz")
PARQUET_ENDINGS = (".parquet", ".pq")
EXCEL_ENDINGS = (".xlsx", ".xls", ".xlsm", ".ods")
MISSING_CHOICES = ("error", "drop")
MIN_DISTINCT_VALUES = 0.95  # of a column, as a share of the different rows: then rows do not recur by chance
MAX_COPIES = 4  # of a row, as a multiple of the mean: copies are made of all rows alike
MIN_ZEROS = 0.05  # share of exact zeros that makes a column discrete


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are learnt, as they are called in its file.

    Attributes:
        names: the names of the d coordinates; empty where the file names none.
        whole: whether each coordinate holds whole numbers only, (d,).
        label: the name of the column of labels; "" without one.
    """

    names: tuple[str, ...] = ()
    whole: tuple[bool, ...] = ()
    label: str = ""

    def as_plain(self) -> dict[str, Any]:
        """Return a plain dictionary, as a checkpoint keeps it."""
        return {"names": list(self.names), "whole": list(self.whole), "label": self.label}

    @classmethod
    def from_plain(cls, plain: Any) -> "Columns":
        """Return the columns that `as_plain` described.

        Raises:
            ValueError: it is no such dictionary.
        """
        try:
            names = tuple(plain["names"])
            whole = tuple(plain["whole"])
            label = plain["label"]
        except (KeyError, TypeError) as error:
            raise ValueError("its columns are not those of a table") from error
        is_text = all(isinstance(name, str) for name in (*names, label))
        if not is_text or not all(isinstance(each, bool) for each in whole):
            raise ValueError("its columns are not those of a table")
        return cls(names, whole, label)


def coordinate_names(columns: Columns | None, dim: int) -> list[str]:
    """Return the name of each coordinate: that in the file, else x, y and z, else x1, x2 ..."""
    if columns is not None and len(columns.names) == dim:
        return list(columns.names)
    if dim <= 3:
        return list("xyz"[:dim])
    return [f"x{i + 1}" for i in range(dim)]


def label_position(label: str | None, dim: int) -> int:
    """Return the index of the labels among `dim` coordinates without names.

    label: dataset.label; it is the index where it is one, and otherwise the labels come last.
    """
    is_integer = label is not None and label.lstrip("-").isdecimal()
    if label is not None and is_integer and -dim - 1 <= int(label) <= dim:
        return int(label) % (dim + 1)
    return dim


class DiscreteColumn(NamedTuple):
    """A column with values that a continuous model cannot reproduce exactly.

    index, name: which coordinate it is.
    kind: "constant"; "whole": whole numbers only; "zeros": exactly 0 in many rows.
    share: the share of the rows that have such a value.
    """

    index: int
    name: str
    kind: str
    share: float


def discrete_columns(points: NDArray, columns: Columns) -> list[DiscreteColumn]:
    """Return the columns of points (N, d) that a continuous model cannot reproduce exactly."""
    names = coordinate_names(columns, points.shape[1])
    whole = columns.whole if len(columns.whole) == len(names) else [False] * len(names)
    found = []
    for i, (name, column, is_whole) in enumerate(zip(names, points.T, whole)):
        zeros = float((column == 0).mean())
        if np.ptp(column) == 0:
            found.append(DiscreteColumn(i, name, "constant", 1.0))
        elif is_whole:
            found.append(DiscreteColumn(i, name, "whole", 1.0))
        elif zeros >= MIN_ZEROS:
            found.append(DiscreteColumn(i, name, "zeros", zeros))
    return found


@dataclass(frozen=True)
class Table:
    """The content of a user's table.

    Attributes:
        numbers: the coordinates (N, d): float64, or the array as it was saved.
        columns: their names.
        labels: the label (N,) of each row, as an index into label_texts; None without labels.
        label_texts: the labels as they are written in the file.
        notes: what was left out of the file, in sentences.
    """

    numbers: NDArray
    columns: Columns
    labels: NDArray | None = None
    label_texts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_any_table(
    path: str,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    missing: str = "error",
) -> Table:
    """Read the coordinates and labels of a user's file.

    A column that only counts the rows is left out, unless `columns` names it.

    Args:
        path: a .npy or .npz array, a parquet or Excel file, or a text table.
        label: name, or index from 0, of the column with the labels; None: no labels.
        columns: names or indices of the coordinates; None: all other columns.
        missing: what is done with rows that lack a value; "error": they are refused, "drop": they
            are left out.

    Raises:
        ValueError: no table of numbers, no such column, a missing value, or a column of text; the
            sentence says where, and what to do.
        OSError: the file cannot be read.
    """
    if missing not in MISSING_CHOICES:
        raise ValueError(f"dataset.missing must be one of {', '.join(MISSING_CHOICES)}, not {missing}")
    ending = Path(path).suffix.lower()
    if ending in ARRAY_ENDINGS:
        array = _read_array(path)
        if array.dtype.names is None:
            return _table_of_array(array, path, label, columns, missing)
        names = list(array.dtype.names)
        frame = _frame_of_records(array, path)
    else:
        frame, names = _read_frame(path, ending, label)
    return _table_of_frame(frame, names, path, label, columns, missing)


def column_names(path: str) -> list[str] | None:
    """Return the names of the columns of a text table at once; without a header their indices.

    None: a kind of file whose columns are only known when it is read.
    """
    ending = Path(path).suffix.lower()
    if ending in (*ARRAY_ENDINGS, *PARQUET_ENDINGS) or (ending in EXCEL_ENDINGS and _is_workbook(path)):
        return None
    layout = find_layout(path)
    return layout.names or [str(i) for i in range(layout.num_columns)]


def column_index(names: Sequence[str], wanted: str, option: str, path: str) -> int:
    """Return the index of the column that is called `wanted`, or that `wanted` is the index of.

    Args:
        option: the option that asks for it, for the error.

    Raises:
        ValueError: there is no such column.
    """
    if wanted in names:
        return list(names).index(wanted)
    is_integer = wanted.lstrip("-").isdecimal()
    if is_integer and -len(names) <= int(wanted) < len(names):
        return int(wanted) % len(names)
    problem = f"no column {wanted!r} for {option}"
    raise ValueError(f"{path} has {problem}; its columns are {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name or "(unnamed)" for name in names[:MAX_NAMED])
    return f"{shown}, ..." if len(names) > MAX_NAMED else shown


def groups_of_copies(points: NDArray) -> NDArray | None:
    """Return the number (N,) of the group of equal rows that each row of points (N, d) belongs to.

    None: no row is a copy of another. In a table of whole or rounded numbers, rows may be equal by
    chance. They count as copies only where some column hardly ever repeats a value otherwise, and
    where no row occurs far more often than the other repeated rows.
    Groups are numbered in the order in which they occur.
    """
    import pandas as pd

    frame = pd.DataFrame(points)
    is_repeated = frame.duplicated().to_numpy(bool)
    if not is_repeated.any():  # much faster than the groups themselves
        return None
    distinct = points[np.logical_not(is_repeated)]
    most_values = max(len(np.unique(column)) for column in distinct.T)
    if most_values < MIN_DISTINCT_VALUES * len(distinct):
        return None

    group = frame.groupby(list(frame.columns), sort=False).ngroup().to_numpy()
    sizes = np.bincount(group)
    of_repeated = sizes[sizes > 1]
    return group if of_repeated.max() <= MAX_COPIES * of_repeated.mean() else None


# ---------------------------------------------------------------- arrays


def _read_array(path: str) -> NDArray:
    try:
        content = np.load(path)
        if isinstance(content, np.ndarray):
            return content
        with content as archive:
            if len(archive.files) != 1:
                found = ", ".join(archive.files) or "none"
                advice = "save the points alone"
                raise ValueError(f"it must hold a single array, and holds {found}; {advice}")
            return archive[archive.files[0]]
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises many types of errors
        advice = "; was it cut off? copy it again" if "EOF" in str(error) else ""
        raise ValueError(f"{path} is not a table of numbers: {error}{advice}") from error


def _table_of_array(
    array: NDArray,
    path: str,
    label: str | None,
    columns: Sequence[str] | None,
    missing: str,
) -> Table:
    """Return the columns of an array of numbers. Anything else is left to the check of its shape."""
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        if label is not None or columns is not None:
            raise ValueError(f"{path} must hold a table of numbers, not {array.dtype} of shape {array.shape}")
        return Table(array, Columns())

    names = [str(i) for i in range(array.shape[1])]
    label_index = None if label is None else column_index(names, label, "dataset.label", path)
    chosen = _chosen_columns(names, columns, label_index, path)
    numbers = array if chosen == list(range(len(names))) else array[:, chosen]
    labels = None if label_index is None else array[:, label_index]

    notes = []
    if array.dtype.kind == "f" and np.isnan(array).any():
        lacking = np.isnan(numbers) if labels is None else np.isnan(np.column_stack([numbers, labels]))
        looked_at = [names[i] for i in chosen] + ([] if label_index is None else [names[label_index]])
        complete = _complete_rows(lacking, looked_at, path, missing, notes)
        numbers = numbers[complete]
        labels = None if labels is None else labels[complete]
    described = _described(numbers, (), "")
    if labels is None:
        return Table(numbers, described, notes=notes)
    texts, codes = np.unique(labels, return_inverse=True)
    return Table(numbers, described, codes.reshape(-1), [str(each) for each in texts], notes)


def _frame_of_records(array: NDArray, path: str) -> "pd.DataFrame":
    """Return an array of records, whose fields have names, as a frame with numbered columns."""
    import pandas as pd

    if array.ndim != 1:
        raise ValueError(f"{path} must hold one record for each point, not an array of shape {array.shape}")
    frame = pd.DataFrame.from_records(array)
    frame.columns = range(frame.shape[1])
    return frame


# ---------------------------------------------------------------- text, parquet, Excel


def _read_frame(path: str, ending: str, label: str | None) -> tuple["pd.DataFrame", list[str]]:
    """Read a file by pandas: a frame with numbered columns, and the names of the columns."""
    import pandas as pd

    if ending in PARQUET_ENDINGS or (ending in EXCEL_ENDINGS and _is_workbook(path)):
        try:
            if ending in PARQUET_ENDINGS:
                frame = pd.read_parquet(path)
            else:
                frame = pd.read_excel(path, na_values=sorted(MISSING))
        except ImportError as error:
            package = "pyarrow" if ending in PARQUET_ENDINGS else "openpyxl"
            raise ValueError(f"{path} needs a package: `pip install {package}`; or save it as .csv") from error
        except FileNotFoundError:
            raise
        except Exception as error:  # each reader raises errors of its own
            raise ValueError(f"{path} is not a table of numbers: {error}") from error
        names = [str(name) for name in frame.columns]
        frame.columns = range(len(names))
        return frame, names

    layout = find_layout(path)
    names = layout.names or [str(i) for i in range(layout.num_columns)]
    label_index = None if label is None else column_index(names, label, "dataset.label", path)
    return _read_text(path, layout, label_index), names


def _is_workbook(path: str) -> bool:
    """Tell whether a file named .xlsx is one; texts are sometimes named so."""
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


def _read_text(path: str, layout: Layout, label_index: int | None) -> "pd.DataFrame":
    """Read a text table. Labels stay as they are written; lines that begin with "#" are left out."""
    import pandas as pd

    options = {
        "sep": r"\s+" if layout.separator == " " else layout.separator,
        "decimal": layout.decimal,
        "header": None,
        "names": range(layout.num_columns),
        "index_col": False,
        "dtype": {} if label_index is None else {label_index: str},
        "na_values": sorted(MISSING),
        "keep_default_na": False,
        "skipinitialspace": True,
        "low_memory": False,
    }
    if pd.__version__.startswith("2."):  # later versions read every digit by default
        options["float_precision"] = "round_trip"
    try:
        try:
            frame = _read_rows(path, layout, options)
        except pd.errors.ParserError:
            frame = None  # a line of another length: a comment, or a fault
        if frame is None or not pd.api.types.is_numeric_dtype(frame[0]):
            comments = _comment_rows(path, layout)
            if frame is None or comments:
                frame = _read_rows(path, layout, {**options, "skiprows": comments})
    except UnicodeDecodeError:
        return _read_text(path, layout._replace(encoding="cp1252"), label_index)
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} is not a table of numbers: {_ragged(str(error), layout)}") from error
    except FileNotFoundError:
        raise
    except (EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}; was it cut off? copy it again") from error
    return frame


def _read_rows(path: str, layout: Layout, options: dict[str, Any]) -> "pd.DataFrame":
    """Read what follows the header by pandas. It does not see the header, whose cells may hold line ends."""
    import pandas as pd

    with _rows_of_text(path, layout) as rows:
        return pd.read_csv(rows, **options)


def _rows_of_text(path: str, layout: Layout) -> io.TextIOWrapper:
    """Open a text table behind its header."""
    text = io.TextIOWrapper(unpacked(path, layout.compression), layout.encoding, newline="")
    for _ in range(layout.skipped_lines):
        text.readline()
    return text


def _comment_rows(path: str, layout: Layout) -> list[int]:
    """Return the numbers, from 0 behind the header, of the rows that begin with "#"."""
    comments = []
    number = 0
    is_open = False
    with _rows_of_text(path, layout) as lines:
        for line in lines:
            if line.startswith("#") and not is_open:
                comments.append(number)
            else:
                is_open = leaves_quote_open(line, is_open)
            number += not is_open
    return comments


def _ragged(message: str, layout: Layout) -> str:
    """Return what pandas says of a line of another length, in our words."""
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message)
    if found is None:
        return message
    expected, line, cells = found.groups()
    number = int(line) + layout.skipped_lines
    return f"line {number} has {cells} cells where line {layout.skipped_lines + 1} has {expected}"


# ---------------------------------------------------------------- the columns of a frame


def _table_of_frame(
    frame: "pd.DataFrame",
    names: list[str],
    path: str,
    label: str | None,
    columns: Sequence[str] | None,
    missing: str,
) -> Table:
    """Return the chosen columns of a frame with numbered columns as numbers and labels."""
    notes = []
    has_names = names != [str(i) for i in range(len(names))]
    label_index = None if label is None else column_index(names, label, "dataset.label", path)
    chosen = _chosen_columns(names, columns, label_index, path)
    if columns is None and has_names:
        chosen = _without_row_numbers(frame, names, chosen, notes)

    used = chosen if label_index is None else [*chosen, label_index]
    if any(frame[i].isna().any() for i in used):
        lacking = frame[used].isna().to_numpy()
        described = [names[i] for i in used]
        frame = frame.loc[_complete_rows(lacking, described, path, missing, notes)]

    _check_no_text(frame, names, chosen, path, label is not None)
    numbers = frame[chosen].to_numpy(np.float64)
    _check_finite(numbers, [names[i] for i in chosen], path)
    coordinates = [names[i] for i in chosen] if has_names else []
    if label_index is None:
        return Table(numbers, _described(numbers, coordinates, ""), notes=notes)

    label_name = names[label_index] if has_names else ""
    codes, texts = frame[label_index].factorize()
    label_texts = [str(text).strip() for text in texts]
    return Table(numbers, _described(numbers, coordinates, label_name), codes, label_texts, notes)


def _chosen_columns(
    names: Sequence[str],
    columns: Sequence[str] | None,
    label_index: int | None,
    path: str,
) -> list[int]:
    """Return the indices of the coordinates: those asked for, or all but the labels."""
    if columns is None:
        return [i for i in range(len(names)) if i != label_index]
    chosen = []
    for wanted in columns:
        i = column_index(names, str(wanted), "dataset.columns", path)
        if i in chosen:
            raise ValueError(f"dataset.columns names the column {names[i]} of {path} twice")
        if i == label_index:
            raise ValueError(f"the column {names[i]} of {path} cannot be both dataset.label and one of dataset.columns")
        chosen.append(i)
    return chosen


def _without_row_numbers(
    frame: "pd.DataFrame",
    names: Sequence[str],
    chosen: Sequence[int],
    notes: list[str],
) -> list[int]:
    """Leave out the columns that only count or name the rows, and note which.

    A first column without a name is one: programs write the names of the rows there. Another is one
    if it is called as in INDEX_NAMES and holds 0, 1, 2 ... or 1, 2, 3 ...
    """
    kept = []
    for i in chosen:
        name = names[i].strip().lower()
        is_unnamed = i == 0 and name in ("", "unnamed: 0")
        counts = _counts_rows(frame[i].to_numpy())
        if is_unnamed:
            notes.append("left out: the first column, which has no name and only numbers or names the rows")
            continue
        if counts and name in INDEX_NAMES:
            notes.append(f"left out: the column {names[i]}, which only numbers the rows")
            continue
        if counts:
            advice = "if it is no coordinate, choose others by dataset.columns=[...]"
            notes.append(f"the column {names[i]} counts the rows: {advice}")
        kept.append(i)
    return kept


def _counts_rows(values: NDArray) -> bool:
    """Tell whether a column holds 0, 1, 2 ... or 1, 2, 3 ..., in enough rows to be sure."""
    if values.dtype.kind not in "iuf" or len(values) < MIN_COUNTED_ROWS:
        return False
    return bool(values[0] in (0, 1) and (np.diff(values) == 1).all())


def _complete_rows(
    lacking: NDArray,
    names: Sequence[str],
    path: str,
    missing: str,
    notes: list[str],
) -> NDArray:
    """Return which rows lack no value, as booleans (N,).

    Args:
        lacking: whether each cell is missing, (N, columns).
        names: of these columns.

    Raises:
        ValueError: some rows lack a value, and `missing` is "error"; or all rows do.
    """
    complete = np.logical_not(lacking.any(1))
    count = int((~complete).sum())
    by_column = []
    for name, number in zip(names, lacking.sum(0)):
        if number:
            by_column.append(f"{name} ({number:,})")
    rows = "1 row lacks" if count == 1 else f"{count:,} rows lack"
    fact = f"{rows} a value, of {len(complete):,}; by column: {_listed(by_column)}"
    if missing == "error":
        first = int(np.flatnonzero(~complete)[0]) + 1
        advice = "fill them, or leave these rows out with dataset.missing=drop"
        raise ValueError(f"{path} is not complete: {fact}; the first is row {first}: {advice}")
    if not complete.any():
        raise ValueError(f"{path} has no row without a missing value: {fact}")
    notes.append(f"left out: {fact}")
    return complete


def _check_no_text(
    frame: "pd.DataFrame",
    names: Sequence[str],
    chosen: Sequence[int],
    path: str,
    has_label: bool,
) -> None:
    """Raise ValueError where a coordinate is no column of numbers; the sentence says what to do."""
    import pandas as pd

    for i in chosen:
        column = frame[i]
        if column.dtype.kind in "biuf":
            continue
        cells = column.to_numpy(object)
        numeric = np.isfinite(np.asarray(pd.to_numeric(column, errors="coerce"), float))
        texts = [str(cell) for cell in cells[~numeric]]
        row = int(np.flatnonzero(~numeric)[0]) + 1
        if numeric.mean() > 0.5:
            cell = f"{texts[0]!r} in row {row}"
            raise ValueError(
                f"{path}: the column {names[i]} holds {cell}, which is not a number: mend it, or leave the column out"
            )
        examples = " and ".join(repr(text) for text in list(dict.fromkeys(texts))[:2])
        ways = "leave it out with dataset.columns=[...], the columns to learn"
        if not has_label:
            ways += f", or make it the label with dataset.label={names[i]}"
        raise ValueError(f"{path}: the column {names[i]} holds text, such as {examples}: {ways}")


def _check_finite(numbers: NDArray, names: Sequence[str], path: str) -> None:
    """Raise ValueError where a number is infinite."""
    infinite = ~np.isfinite(numbers)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise ValueError(f"{path}: the column {names[column]} is infinite in row {row + 1}: mend it, or remove the row")


def _described(numbers: NDArray, names: Sequence[str], label: str) -> Columns:
    """Return the names of the coordinates, and which of them hold whole numbers only."""
    whole = []
    for column in numbers.T:
        # Most columns show at once that they hold other numbers.
        is_whole = all(_is_whole(part) for part in (column[:1000], column))
        whole.append(is_whole)
    return Columns(tuple(names), tuple(whole), label)


def _is_whole(numbers: NDArray) -> bool:
    return bool(np.isfinite(numbers).all()) and bool((numbers == np.round(numbers)).all())
