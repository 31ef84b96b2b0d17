"""The tables loss.csv and excess.csv: a training appends rows, and pictures read them back."""

import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from loss.moments import Moment

LOSS_FILE = "loss.csv"
EXCESS_FILE = "excess.csv"
LOSS_COLUMNS = ("step", "loss", "lr", "seconds", "stable_loss")  # of loss.csv
EXCESS_COLUMNS = ("step", "excess", "floor")  # of excess.csv, before those of the probed steps


# ---------------------------------------------------------------- tables in general


def open_table(path: Path, header: Sequence[str], start: int) -> TextIO:
    """Open a table for appending rows, and create it with its header if it does not exist.

    An existing table is cut off after step `start`, because a resumed training writes later rows
    again. Start 0 empties the table.

    Raises:
        ValueError: a row does not begin with a step.
    """
    if path.exists():
        kept_bytes = _bytes_up_to(path, start)
        os.truncate(path, kept_bytes if start else 0)
    file = path.open("a", newline="", encoding="utf-8")
    is_empty = file.tell() == 0
    if is_empty:
        csv.writer(file).writerow(header)
        file.flush()
    return file


def _bytes_up_to(path: Path, start: int) -> int:
    """Return the size of the header and of the complete rows up to step `start`, in bytes.

    Raises:
        ValueError: one of these rows does not begin with a step.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    if not lines:
        return 0
    size = len(lines[0])
    for row in lines[1:]:
        is_torn = not row.endswith(b"\n")
        if is_torn:
            break
        try:
            step = int(row.split(b",")[0])
        except ValueError as error:
            reason = "a row of it does not begin with a step"
            raise ValueError(f"{path} is not a {path.name} of moonwalk: {reason}") from error
        if step > start:
            break
        size += len(row)
    return size


def read_table(path: Path, columns: Sequence[str]) -> dict[str, NDArray]:
    """Return the columns of a table by name, each of shape (rows,).

    A crash may have torn the last row. Such a row is left out, and a line on stderr says so.

    Raises:
        ValueError: one of `columns` is missing, or an entry is not a number.
    """
    refusal = f"{path} is not a {path.name} of moonwalk"
    try:
        *lines, torn_row = path.read_text(encoding="utf-8").split("\n")
        header = lines[0].split(",") if lines else list(columns)
        rows = [line.split(",") for line in lines[1:]]
        values = np.array(rows, dtype=float).reshape(-1, len(header))
    except ValueError as error:
        raise ValueError(refusal) from error

    table = dict(zip(header, values.T))
    if not table.keys() >= set(columns):
        raise ValueError(refusal)
    if torn_row:
        print(f"{path}: the last row is torn and left out", file=sys.stderr)
    return table


def sync_tables(folder: Path) -> None:
    """Force the rows of both tables in `folder` to the disk."""
    for name in (LOSS_FILE, EXCESS_FILE):
        path = folder / name
        if path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())


# ---------------------------------------------------------------- loss.csv


class LossLog:
    """A callback that writes each mean loss as a row of loss.csv.

    A row holds five numbers: the last optimizer step of the mean, the loss, the learning rate, the
    seconds of the training so far, and the stable loss, from which the network learns (see
    `objective.Loss`).

    Args:
        folder: the run folder.
        start: the number of optimizer steps done before. Rows up to it are kept.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self.file = open_table(folder / LOSS_FILE, LOSS_COLUMNS, start)
        self.rows = csv.writer(self.file)

    def after(self, moment: Moment) -> None:
        if moment.loss is None:
            return
        row = [
            moment.done,
            f"{moment.loss:.6g}",
            f"{moment.lr:.4g}",
            f"{moment.seconds:.3f}",
            f"{moment.stable_loss:.6g}",
        ]
        self.rows.writerow(row)
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def read_losses(folder: str | Path) -> dict[str, NDArray]:
    """Return the columns of loss.csv by name, each of shape (rows,).

    Args:
        folder: a run folder, or the path of its loss.csv.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a loss.csv, or it has no row yet.
    """
    path = Path(folder)
    if path.is_dir():
        path = path / LOSS_FILE
    if not path.exists():
        raise FileNotFoundError(f"there is no loss to plot at {path}")
    table = read_table(path, LOSS_COLUMNS)
    if not len(table["step"]):
        raise ValueError(f"{path} holds no row yet")
    return {name: table[name] for name in LOSS_COLUMNS}


def final_loss(folder: Path) -> float:
    """Return the mean loss over the last 5 % of the rows of loss.csv. Raises as `read_losses`."""
    losses = read_losses(folder)["loss"]
    count = max(1, len(losses) // 20)
    return float(losses[-count:].mean())


# ---------------------------------------------------------------- excess.csv


class ExcessLog:
    """Writes the excess over the Bayes floor as rows of excess.csv.

    A row holds the optimizer step, the mean excess, the Bayes floor, and the excess at each probed
    step t.

    Args:
        folder: the run folder.
        timesteps: the probed steps t.
        floor: the Bayes floor of the training loss.
        start: the number of optimizer steps done before. Rows up to it are kept.
    """

    def __init__(self, folder: Path, timesteps: Sequence[int], floor: float, start: int) -> None:
        header = [*EXCESS_COLUMNS, *(f"t{t}" for t in timesteps)]
        self.file = open_table(folder / EXCESS_FILE, header, start)
        self.rows = csv.writer(self.file)
        self.floor = floor

    def add(self, step: int, by_t: Sequence[float]) -> None:
        """Append the row of one optimizer step. by_t: the excess at each probed step t."""
        mean_excess = sum(by_t) / len(by_t)
        row = [step, f"{mean_excess:.6g}", f"{self.floor:.6g}"]
        row += [f"{excess:.4g}" for excess in by_t]
        self.rows.writerow(row)
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def read_excess(folder: str | Path) -> dict[str, NDArray] | None:
    """Return the columns of excess.csv, or None where a run has no such file or no row in it.

    For S rows and K probed steps, the result holds "step", "excess" and "floor" of shape (S,). It
    also holds the probed steps "timesteps" of shape (K,) and the excess "by_t" of shape (S, K).

    Raises:
        ValueError: the file is not an excess.csv.
    """
    path = Path(folder) / EXCESS_FILE
    if not path.exists():
        return None
    table = read_table(path, EXCESS_COLUMNS)
    if not len(table["step"]):
        return None

    result = {name: table[name] for name in EXCESS_COLUMNS}
    step_columns = [name for name in table if name[0] == "t" and name[1:].isdigit()]
    result["timesteps"] = np.array([int(name[1:]) for name in step_columns])
    result["by_t"] = np.stack([table[name] for name in step_columns], 1)
    return result
