"""How far a training has come, and the steps at which its network is worth measuring."""

from typing import NamedTuple, Protocol

import numpy as np

LOG_EVERY = 10  # optimizer steps for each row of loss.csv
NUM_LOG_SPACED_STEPS = 40


class Moment(NamedTuple):
    """The progress of a training after an optimizer step. The defaults stand for its beginning.

    done: optimizer steps taken so far.
    loss, stable_loss: means since they were last given (see loss.objective.Loss). They are given
        every LOG_EVERY steps and otherwise None.
    lr: the learning rate of this step.
    seconds, cpu_seconds: time of the whole training; a resumed one includes its earlier parts.
    last: the training ends after this step, because it is finished or was interrupted.
    """

    done: int = 0
    loss: float | None = None
    lr: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    last: bool = False
    stable_loss: float | None = None


class Callback(Protocol):
    """A small object that follows a training: it logs, draws, measures or saves."""

    def after(self, moment: Moment) -> None:
        """Called after every optimizer step."""

    def close(self) -> None:
        """Called once, when the last step is done or an error has ended the training."""


def log_spaced_steps(start: int, total: int) -> list[int]:
    """Optimizer steps from `start` to `total`, evenly spaced in their logarithm.

    There are at most NUM_LOG_SPACED_STEPS + 1 of them, and `start` is the first. A network learns
    most in its first steps.
    """
    spaced = np.geomspace(1, total, NUM_LOG_SPACED_STEPS).round().astype(int).tolist()
    later = {step for step in spaced if step > start}
    return sorted({start, *later})
