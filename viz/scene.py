"""What a recording or an animation is about: plain arrays, computed in replay.py, drawn elsewhere.

Everything is in one coordinate system: for a trained model the normalised one, in which it was trained and in which
x_T is N(0, I). Forward steps are explained in schedule.py, the two clocks in rerun_viz.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from runtime.arrays import numbers
from samplers.spacing import clock

LASTS_S, HELD_S = 10.0, 2.0  # seconds that a process takes wherever it is played, and its last picture stays


class Process(NamedTuple):
    """One process, side "forward" or "reverse": states (S, N, d), of images (S, N, C, H, W).

    states[i] is as noisy as after steps[i] forward steps; steps (S,) rise from 0, in reverse they fall to 0.
    """

    side: str
    states: NDArray
    steps: NDArray

    @property
    def story(self) -> NDArray:
        """(S,): how many steps the process has gone."""
        return np.abs(self.steps - self.steps[0])


class Field(NamedTuple):
    """Arrows along a score: origins (G, d), vectors (S, G, d), vectors[i] after steps[i] forward steps.

    name: "network" or "exact"; label: the condition, an index into Scene.classes.
    """

    name: str
    origins: NDArray
    vectors: NDArray
    steps: NDArray
    label: int | None = None


class Loss(NamedTuple):
    """A training loss (K,), means up to optimizer steps (K,), and the least that is possible, where it is known."""

    step: NDArray
    loss: NDArray
    floor: float | None


class Distance(NamedTuple):
    """Distance to the data at each state of each process, by side, and its floors: of pairs of real sets (K,)."""

    by_side: dict[str, NDArray]
    floors: NDArray


class Scene(NamedTuple):
    """One or two processes and whatever is known around them."""

    processes: list[Process]
    data: NDArray | None = None  # (N, d), clean
    alpha_bar: NDArray | None = None  # (T + 1,), 1 for the clean data
    fields: Sequence[Field] = ()
    guesses: tuple[NDArray, NDArray] | None = None  # of tracked samples: where they are, their x_0; both (S, K, *dims)
    distance: Distance | None = None
    loss: Loss | None = None
    normalised: bool = False
    labels: NDArray | None = None  # the condition of each sample, an index into `classes`
    classes: Sequence[str] = ()
    row_words: str = "Each row was conditioned on the label at its left"
    steered: str = ""  # how the reverse process was guided, in words
    tracked: Sequence[int] | NDArray[np.int64] = ()  # rows of points that are drawn in cyan

    def noise(self, steps: NDArray) -> NDArray:
        """sigma = sqrt(1 - alpha-bar), the amplitude of the noise after so many forward steps: 0 .. 1, as `steps`.

        Where the schedule is not known: the share of the way.
        """
        if self.alpha_bar is None:
            return steps / max(1, max(int(p.steps.max()) for p in self.processes))
        return np.sqrt(1 - self.alpha_bar[steps])

    def seconds(self, process: Process, steps: NDArray | None = None) -> NDArray:
        """When each state of a process is played, from 0 to LASTS_S; or its states after other numbers of `steps`.

        Even on `clock`; where the schedule is not known, even in steps.
        """
        hands = self._hands(process.steps)
        gone = np.abs((hands if steps is None else self._hands(steps)) - hands[0])
        return LASTS_S * gone / max(float(np.abs(hands[-1] - hands[0])), 1e-12)

    def _hands(self, steps: NDArray) -> NDArray:
        return -steps if self.alpha_bar is None else clock(self.alpha_bar)[steps]

    @property
    def of_images(self) -> bool:
        return self.processes[0].states.ndim == 5

    @property
    def dim(self) -> int:
        return self.processes[0].states.shape[-1]


def checked_points(points: NDArray) -> NDArray[np.float32]:
    """Points (..., 2 or 3) as contiguous float32, finite: rerun itself accepts NaN without a word."""
    points = numbers(points, "points").float().contiguous().numpy()
    if points.ndim < 2 or points.shape[-1] not in (2, 3):
        raise ValueError(f"points must have 2 or 3 coordinates, got shape {points.shape}")
    if 0 in points.shape:
        raise ValueError(f"there are no points to show: the shape is {points.shape}")
    if not np.isfinite([points.min(), points.max()]).all():  # NaN, too, comes through both; no copy is made
        raise ValueError("the points hold NaN or infinity: nothing was recorded")
    return points


def checked_rows(rows: ArrayLike | None, count: int) -> NDArray[np.int64]:
    """Tracked rows of `count`; by default the first six."""
    given = numbers(np.arange(min(6, count)) if rows is None else rows, "track_samples")
    if given.ndim != 1 or (given.numel() and (given.is_floating_point() or given.dtype == torch.bool)):
        raise ValueError(f"track_samples must be a list of rows such as [0,10,20], got {rows}")
    chosen = given.long().numpy()
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < count):
        raise ValueError(f"track_samples must lie in 0..{count - 1}, got {chosen.tolist()}")
    return chosen
