"""The layout of a text table: encoding, compression, separator, decimal mark and names of columns.

All of it is found from the beginning of the file. Neither torch nor pandas is needed, so that a
command can name the columns of a file at once.
"""

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from typing import IO, NamedTuple, cast

BEGINNING = 2**17  # bytes, unpacked: enough for hundreds of rows
ROWS_SEEN = 200
# The separators, from the least to the most likely to stand inside a cell.
SEPARATORS = ("\t", ";", "|", ",", " ")
MISSING = frozenset(
    (
        "",
        "-",
        "--",
        "?",
        ".",
        "NA",
        "N/A",
        "n/a",
        "na",
        "#N/A",
        "<NA>",
        "NaN",
        "nan",
        "NAN",
        "-nan",
        "NULL",
        "null",
        "None",
    )
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE)
# How a packed file begins, and how it is opened.
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}
QUOTED_CELL = re.compile(r'(^|[,;|\t ])\s*"')  # where a cell in quotes may begin
ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# Beginnings of files that are no text, and what they are.
OTHER_KINDS = {
    b"PAR1": "a parquet file: name it .parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as .xlsx or .csv",
    b"\x93NUMPY": "a NumPy array: name it .npy",
    b"SQLite": "a database: export the table as .csv",
    b"%PDF": "a PDF document: it holds no table that can be read",
    b"\x89PNG": "a picture: it is no table of points; see dataset=picture",
    b"\xff\xd8\xff": "a picture: it is no table of points; see dataset=picture",
}


class Layout(NamedTuple):
    """How a text table is written.

    encoding, compression: as pandas.read_csv takes them.
    separator: one of SEPARATORS; " " means any number of spaces.
    decimal: "." or ",".
    names: the names of the columns; None without a header.
    num_columns: the number of cells of most rows.
    skipped_lines: the number of lines before the first row of data.
    """

    encoding: str
    compression: str | None
    separator: str
    decimal: str
    names: list[str] | None
    num_columns: int
    skipped_lines: int


def find_layout(path: str) -> Layout:
    """Find the layout of a text table from its beginning.

    Raises:
        ValueError: the file is empty, has names and no rows, or is no text.
        OSError: it cannot be read.
    """
    compression = _compression(path)
    start, is_whole = _first_bytes(path, compression)
    encoding = _encoding(start, path)
    lines = _complete_lines(start, encoding, is_whole)

    skipped, comment, lines = _without_leading_comments(lines)
    if not lines:
        raise ValueError(f"{path} is not a table of numbers: it is empty")
    separator, decimal, rows = _best_split(lines)
    num_columns = Counter(len(row) for row in rows).most_common(1)[0][0]

    names = _quoted_header(lines, rows[0], separator, num_columns) or _header(rows, num_columns, decimal)
    if names is not None:
        skipped += _lines_of_first_row(lines, separator)
        if len(rows) == 1:
            reason = "it has a row of names and no points below it"
            raise ValueError(f"{path} is not a table of numbers: {reason}")
    elif comment is not None:
        names = _names_in_comment(comment, separator, num_columns)
    return Layout(encoding, compression, separator, decimal, names, num_columns, skipped)


def is_number(cell: str, decimal: str = ".") -> bool:
    """Tell whether a cell is written as a number, which may be infinite."""
    if decimal == ",":
        cell = cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell
    return NUMBER.fullmatch(cell.strip()) is not None


# ---------------------------------------------------------------- bytes and lines


def _compression(path: str) -> str | None:
    """Return how the file is packed, by its content.

    Raises:
        ValueError: it is something that is no text.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    for magic, kind in OTHER_KINDS.items():
        if start.startswith(magic):
            raise ValueError(f"{path} is not a table of numbers but {kind}")
    for magic, compression in PACKED.items():
        if start.startswith(magic):
            return compression
    return None


def _first_bytes(path: str, compression: str | None) -> tuple[bytes, bool]:
    """Return the beginning of the unpacked file, and whether this is all of it.

    Raises:
        ValueError: an archive that is damaged or holds anything but one file.
    """
    try:
        with unpacked(path, compression) as file:
            start = file.read(BEGINNING)
            return start, not file.read(1)
    except (EOFError, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}; was it cut off? copy it again") from error


def unpacked(path: str, compression: str | None) -> IO[bytes]:
    """Open a file that is packed as `Layout.compression` says.

    Raises:
        ValueError: an archive of several files, or an Excel workbook.
    """
    if compression == "gzip":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if compression == "bz2":
        return cast(IO[bytes], bz2.open(path, "rb"))
    if compression == "xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    if compression == "zip":
        archive = zipfile.ZipFile(path)
        names = archive.namelist()
        if "xl/workbook.xml" in names:
            raise ValueError(f"{path} is not a text but an Excel workbook: name it .xlsx")
        if len(names) != 1:
            raise ValueError(f"{path} must hold one table, and holds {len(names)} files")
        return archive.open(names[0])
    return open(path, "rb")


def _encoding(start: bytes, path: str) -> str:
    """Return the encoding of a text, by its byte order mark or its content.

    Raises:
        ValueError: the bytes are no text.
    """
    for mark, encoding in ENCODINGS.items():
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        half = len(start) // 2
        if start[1::2].count(0) > 0.4 * half:
            return "utf-16-le"
        if start[0::2].count(0) > 0.4 * half:
            return "utf-16-be"
        raise ValueError(f"{path} is not a table of numbers: it holds bytes that are no text")
    try:
        start[: start.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _complete_lines(start: bytes, encoding: str, is_whole: bool) -> list[str]:
    """Return the lines; the last one is left out if the file goes on."""
    text = start.decode(encoding, errors="replace")
    lines = io.StringIO(text, newline=None).read().split("\n")
    return lines if is_whole else lines[:-1]


def _without_leading_comments(lines: Sequence[str]) -> tuple[int, str | None, list[str]]:
    """Skip empty lines and lines that begin with "#".

    Returns:
        The number of lines skipped, the last comment or None, and the other lines with content.
    """
    comment = None
    skipped = 0
    for line in lines:
        text = line.strip()
        if text.startswith("#"):
            comment = text.lstrip("#").strip()
        elif text:
            break
        skipped += 1
    others = []
    is_open = False
    for line in lines[skipped:]:
        if is_open or (line.strip() and not line.lstrip().startswith("#")):
            others.append(line)
            is_open = leaves_quote_open(line, is_open)
    return skipped, comment, others


def leaves_quote_open(line: str, is_open: bool) -> bool:
    """Tell whether a cell in quotes goes on in the next line. is_open: whether one goes on in this line."""
    if not is_open and QUOTED_CELL.search(line) is None:
        return False
    return (line.count('"') % 2 == 1) != is_open


# ---------------------------------------------------------------- cells


def split_rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Split lines into cells. A quoted cell may contain the separator, and line ends."""
    if separator != " ":
        reader = csv.reader([f"{line}\n" for line in lines], delimiter=separator, skipinitialspace=True)
    else:
        reader = csv.reader([line.strip() for line in lines], delimiter=" ", skipinitialspace=True)
    rows = []
    try:
        for row in reader:
            rows.append([cell.strip() for cell in row])
            if len(rows) == ROWS_SEEN:
                break
    except csv.Error:  # a cell of more than 128 kB; what was read before suffices
        pass
    return rows or [[]]


def _best_split(lines: Sequence[str]) -> tuple[str, str, list[list[str]]]:
    """Return the separator, the decimal mark and the rows that make most of the text a table.

    A separator is better if more rows have the same number of cells, at least 2, and then if more
    cells are numbers.
    """
    best = (-1.0, -1.0)
    chosen = (",", ".", split_rows(lines, ","))
    for separator in SEPARATORS:
        rows = split_rows(lines, separator)
        size, count = Counter(len(row) for row in rows).most_common(1)[0]
        if size < 2:
            continue
        agreeing = count / len(rows)
        for decimal in (".", ","):
            if decimal == separator:
                continue
            score = (agreeing, _share_of_numbers(rows, decimal))
            if score > best:
                best = score
                chosen = (separator, decimal, rows)
    return chosen


def _share_of_numbers(rows: Sequence[Sequence[str]], decimal: str) -> float:
    cells = [cell for row in rows for cell in row if cell not in MISSING]
    numbers = sum(is_number(cell, decimal) for cell in cells)
    return numbers / max(1, len(cells))


# ---------------------------------------------------------------- the header


def _quoted_header(lines: Sequence[str], first: list[str], separator: str, num_columns: int) -> list[str] | None:
    """Return the cells of the first row if all of them are in quotes, and those of the next row are not."""
    if separator == " " or len(first) != num_columns:
        return None
    size = _lines_of_first_row(lines, separator)
    if len(lines) <= size:
        return None
    cell = r'\s*"(?:[^"]|"")*"\s*'
    in_quotes = re.compile(f"{cell}(?:{re.escape(separator)}{cell})*")
    first_text = "\n".join(lines[:size])
    return first if in_quotes.fullmatch(first_text) and not in_quotes.fullmatch(lines[size]) else None


def _header(rows: Sequence[Sequence[str]], num_columns: int, decimal: str) -> list[str] | None:
    """Return the names in the first row; None if it is a row of data.

    It is a header where no cell is a number, or where a column of numbers begins with a text. A
    column of labels can show it, too (`_is_name_of_labels`).
    """
    first = list(rows[0])
    others = [row for row in rows[1:] if len(row) == num_columns]
    if len(first) == num_columns - 1 and others:  # R writes no name above the names of the rows
        first = ["", *first]
    if len(first) != num_columns or not any(first):
        return None

    columns = []
    for i in range(num_columns):
        columns.append([row[i] for row in others if row[i] not in MISSING])
    numeric = [is_number(name, decimal) for name in first]
    if not any(numeric):
        return first
    for name, name_is_number, column in zip(first, numeric, columns):
        if name_is_number or not column:
            continue
        if all(is_number(cell, decimal) for cell in column):
            if name not in MISSING or _counts_rows(column):
                return first
        elif _is_name_of_labels(name, column) and _are_whole_names(first, numeric, columns):
            return first
    return None


def _is_name_of_labels(name: str, column: Sequence[str]) -> bool:
    """Tell whether a text occurs once at the top of a column whose other texts occur again."""
    repeats = len(set(column)) < len(column)
    return name not in MISSING and name not in column and repeats


def _are_whole_names(first: Sequence[str], numeric: Sequence[bool], columns: Sequence[Sequence[str]]) -> bool:
    """Tell whether the numbers of a first row are names, such as years: whole, above numbers that are not."""
    for name, name_is_number, column in zip(first, numeric, columns):
        if name_is_number and not (name.isdecimal() and not all(cell.isdecimal() for cell in column)):
            return False
    return True


def _counts_rows(column: Sequence[str]) -> bool:
    """Tell whether the cells are 0, 1, 2 ... or 1, 2, 3 ..."""
    return column in ([str(i) for i in range(len(column))], [str(i + 1) for i in range(len(column))])


def _lines_of_first_row(lines: Sequence[str], separator: str) -> int:
    """Return the number of lines of the first row, whose quoted names may hold line ends."""
    if separator == " ":
        return 1
    reader = csv.reader([f"{line}\n" for line in lines], delimiter=separator, skipinitialspace=True)
    next(reader)
    return reader.line_num


def _names_in_comment(comment: str, separator: str, num_columns: int) -> list[str] | None:
    """Return the names in the last comment above the data, if there is one for each column."""
    names = split_rows([comment], separator)[0]
    return names if len(names) == num_columns else None
