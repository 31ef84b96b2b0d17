"""loss.csv and excess.csv: written as a training goes on, read back for pictures."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.moments import Moment

NAME, EXCESS_NAME = "loss.csv", "excess.csv"
COLUMNS = ("step", "loss", "lr", "seconds")


class LossLog:
    """Writes each mean loss as a row: step (the last of those it is the mean of), loss, lr, seconds."""

    def __init__(self, folder: Path) -> None:
        self.file = (folder / NAME).open("w", newline="", encoding="utf-8")
        self.rows = csv.writer(self.file)
        self.rows.writerow(COLUMNS)

    def after(self, moment: Moment) -> None:
        if moment.loss is not None:
            self.rows.writerow([moment.done, f"{moment.loss:.6g}", f"{moment.lr:.4g}", f"{moment.seconds:.3f}"])
            self.file.flush()

    def close(self) -> None:
        self.file.close()


def read_losses(folder: str | Path) -> dict[str, NDArray]:
    """The columns of a run's loss.csv. Raises FileNotFoundError or ValueError, each with a sentence."""
    path = Path(folder)
    path = path / NAME if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"there is no loss to plot at {path}")
    try:
        table = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
        columns = {name: table[name] for name in COLUMNS}
    except ValueError as error:
        raise ValueError(f"{path} is not a loss.csv of moonwalk") from error
    if not len(table):
        raise ValueError(f"{path} holds no row yet")
    return columns


class ExcessLog:
    """Writes the excess over the Bayes floor: step, mean excess, floor, and the excess at each of the probes' steps."""

    def __init__(self, folder: Path, timesteps: Sequence[int], floor: float) -> None:
        self.file = (folder / EXCESS_NAME).open("w", newline="", encoding="utf-8")
        self.rows, self.floor = csv.writer(self.file), floor
        self.rows.writerow(["step", "excess", "floor", *(f"t{t}" for t in timesteps)])

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
    table = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    if not len(table):
        return None
    by_t = [name for name in table.dtype.names or () if name[0] == "t" and name[1:].isdigit()]
    columns = {name: table[name] for name in ("step", "excess", "floor")}
    return {
        **columns,
        "timesteps": np.array([int(name[1:]) for name in by_t]),
        "by_t": np.stack([table[name] for name in by_t], 1),
    }
