"""Where a training stands, and at which of its steps it is worth a look."""

from typing import NamedTuple

import numpy as np

LOG_EVERY = 10  # optimizer steps in a row of loss.csv
LOOKS = 40


class Moment(NamedTuple):
    """Where a training stands after an optimizer step; by default before the first.

    done: optimizer steps. loss, stable_loss: the means since those that were given last (see diffusion.Loss), every
    LOG_EVERY steps, else None. lr: the learning rate. seconds, cpu_seconds: of the whole training, earlier parts of a
    resumed one included. last: the training ends here, because all is done or because it was interrupted.
    """

    done: int = 0
    loss: float | None = None
    lr: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    last: bool = False
    stable_loss: float | None = None


def moments(start: int, total: int) -> list[int]:
    """start, 1, 2, ... total: at most LOOKS + 1 optimizer steps, evenly spaced in their logarithm.

    A network learns most in its first steps.
    """
    even = np.geomspace(1, total, LOOKS).round().astype(int).tolist()
    return sorted({start, *(m for m in even if m > start)})
