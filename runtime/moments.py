"""Where a training stands, and at which of its steps it is worth a look."""

from typing import NamedTuple

import numpy as np

LOOKS = 40


class Moment(NamedTuple):
    """Optimizer steps done, the mean loss since the last one that was given (else None), learning rate, seconds."""

    done: int
    loss: float | None
    lr: float
    seconds: float


def moments(start: int, total: int) -> list[int]:
    """start, 1, 2, ... total: at most LOOKS + 1 optimizer steps, evenly spaced in their logarithm.

    A network learns most in its first steps.
    """
    even = np.geomspace(1, total, LOOKS).round().astype(int).tolist()
    return sorted({start, *(m for m in even if m > start)})
