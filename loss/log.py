"""loss.csv and excess.csv: written as a training goes on, read back for pictures."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAME, EXCESS_NAME = "loss.csv", "excess.csv"
COLUMNS = ("step", "loss", "lr", "seconds")


class LossLog:
    """Writes the mean loss of every `every` optimizer steps as a row: step (the last of them), loss, lr, seconds."""

    def __init__(self, folder: Path, every: int) -> None:
        self.file = (folder / NAME).open("w", newline="", encoding="utf-8")
        self.rows = csv.writer(self.file)
        self.rows.writerow(COLUMNS)
        self.every, self.pending = every, []

    def add(self, step: int, loss, lr: float, seconds: float) -> float | None:
        """Note the loss (a scalar tensor) of one step; returns the mean where a row was completed.

        Raises:
            ValueError: the mean is not finite any more.
        """
        self.pending.append(loss.detach())
        self.last = step, lr, seconds
        return self._write() if len(self.pending) == self.every else None

    def _write(self) -> float:
        step, lr, seconds = self.last
        mean = float(sum(self.pending)) / len(self.pending)  # the only moment that waits for a GPU
        self.pending.clear()
        if not math.isfinite(mean):
            raise ValueError(f"the loss is {mean} after {step} steps: lower lr")
        self.rows.writerow([step, f"{mean:.6g}", f"{lr:.4g}", f"{seconds:.3f}"])
        self.file.flush()
        return mean

    def close(self) -> None:
        """Write what is left, as a shorter row."""
        if self.pending:
            self._write()
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
    """ "step", "excess", "floor" (S,), "timesteps" (K,), "by_t" (S, K) of a run; None where its law is not known."""
    path = Path(folder) / EXCESS_NAME
    if not path.exists():
        return None
    table = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    if not len(table):
        return None
    by_t = [name for name in table.dtype.names if name[0] == "t" and name[1:].isdigit()]
    columns = {name: table[name] for name in ("step", "excess", "floor")}
    return {
        **columns,
        "timesteps": np.array([int(name[1:]) for name in by_t]),
        "by_t": np.stack([table[name] for name in by_t], 1),
    }
