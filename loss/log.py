"""loss.csv and excess.csv: written as a training goes on, read back for pictures."""

import csv
import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from loss.moments import Moment

NAME, EXCESS_NAME = "loss.csv", "excess.csv"
COLUMNS = ("step", "loss", "lr", "seconds", "stable_loss")


def opened(path: Path, header: Sequence[str], start: int) -> TextIO:
    """A table to write rows into. One that is there goes on behind step `start`: later rows will be written again.

    Raises:
        ValueError: a row of it lacks its step.
    """
    if path.exists():
        first, *lines = path.read_bytes().splitlines(keepends=True) or [b""]
        whole = takewhile(lambda line: line.endswith(b"\n"), lines)
        try:
            kept = [*takewhile(lambda line: int(line.split(b",")[0]) <= start, whole)]
        except ValueError as error:
            raise ValueError(
                f"{path} is not a {path.name} of moonwalk: a row of it does not begin with a step"
            ) from error
        os.truncate(path, sum(map(len, [first, *kept])) if start else 0)
    file = path.open("a", newline="", encoding="utf-8")
    if not file.tell():
        csv.writer(file).writerow(header)
        file.flush()
    return file


def secure(folder: Path) -> None:
    """Force the rows of both tables to the disk."""
    for path in filter(Path.exists, (folder / NAME, folder / EXCESS_NAME)):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def read_whole(path: Path, columns: Sequence[str]) -> dict[str, NDArray]:
    """The columns of a table by name. A last row that a crash has torn is left out, which a line on stderr says.

    Raises:
        ValueError: one of `columns` is missing, or something is no number.
    """
    try:
        *lines, torn = path.read_text(encoding="utf-8").split("\n")
        names, *rows = [line.split(",") for line in lines or [",".join(columns)]]
        table = dict(zip(names, np.array(rows, dtype=float).reshape(-1, len(names)).T))
    except ValueError as error:
        raise ValueError(f"{path} is not a {path.name} of moonwalk") from error
    if not table.keys() >= set(columns):
        raise ValueError(f"{path} is not a {path.name} of moonwalk")
    if torn:
        print(f"{path}: the last row is torn and left out", file=sys.stderr)
    return table


class LossLog:
    """Writes each mean loss as a row: step (the last of those it is the mean of), loss, lr, seconds, and the loss that
    is learnt from (diffusion.Loss).

    start: the steps done before; rows up to there are kept.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self.file = opened(folder / NAME, COLUMNS, start)
        self.rows = csv.writer(self.file)

    def after(self, moment: Moment) -> None:
        if moment.loss is not None:
            loss, stable = f"{moment.loss:.6g}", f"{moment.stable_loss:.6g}"
            self.rows.writerow([moment.done, loss, f"{moment.lr:.4g}", f"{moment.seconds:.3f}", stable])
            self.file.flush()

    def close(self) -> None:
        self.file.close()


def read_losses(folder: str | Path) -> dict[str, NDArray]:
    """The columns of a run's loss.csv. Raises FileNotFoundError or ValueError, each with a sentence."""
    path = Path(folder)
    path = path / NAME if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"there is no loss to plot at {path}")
    table = read_whole(path, COLUMNS)
    if not len(table["step"]):
        raise ValueError(f"{path} holds no row yet")
    return {name: table[name] for name in COLUMNS}


def last_mean(folder: Path) -> float:
    """The mean loss over the last 5 % of a run's steps. Raises as read_losses."""
    losses = read_losses(folder)["loss"]
    return float(losses[-max(1, len(losses) // 20) :].mean())


class ExcessLog:
    """Writes the excess over the Bayes floor: step, mean excess, floor, and the excess at each of the probes' steps."""

    def __init__(self, folder: Path, timesteps: Sequence[int], floor: float, start: int) -> None:
        header = ["step", "excess", "floor", *(f"t{t}" for t in timesteps)]
        self.file = opened(folder / EXCESS_NAME, header, start)
        self.rows, self.floor = csv.writer(self.file), floor

    def add(self, step: int, by_t: Sequence[float]) -> None:
        self.rows.writerow([step, f"{sum(by_t) / len(by_t):.6g}", f"{self.floor:.6g}", *(f"{e:.4g}" for e in by_t)])
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def read_excess(folder: str | Path) -> dict[str, NDArray] | None:
    """ "step", "excess", "floor" (S,), "timesteps" (K,), "by_t" (S, K) of a run; None where it has no excess.csv."""
    path = Path(folder) / EXCESS_NAME
    if not path.exists():
        return None
    table = read_whole(path, columns := ("step", "excess", "floor"))
    if not len(table["step"]):
        return None
    by_t = [name for name in table if name[0] == "t" and name[1:].isdigit()]
    return {
        **{name: table[name] for name in columns},
        "timesteps": np.array([int(name[1:]) for name in by_t]),
        "by_t": np.stack([table[name] for name in by_t], 1),
    }
