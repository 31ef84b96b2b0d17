"""loss.csv: written as a training goes on, read back for pictures."""

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAME = "loss.csv"
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
