"""What a recording or a film shows: plain arrays, computed in viz/replay.py and drawn elsewhere.

All arrays are in one coordinate system. For a trained model it is the normalised one, in which the
model was trained and in which x_T is N(0, I). schedule.py explains forward steps, rerun_viz.py the
clocks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from runtime.arrays import numbers
from samplers.spacing import clock

LASTS_S = 10.0  # seconds that a process takes, in films and recordings
HELD_S = 2.0  # seconds that its last state remains
TRACKED_ROWS = 6  # rows that are tracked by default


class Process(NamedTuple):
    """A forward or reverse process.

    Attributes:
        side: "forward" or "reverse".
        states: (S, N, d) for points, (S, N, C, H, W) for images.
        steps: (S,), the number of forward steps of each state: rising from 0 for a forward process,
            falling to 0 for a reverse one.
    """

    side: str
    states: NDArray
    steps: NDArray

    @property
    def elapsed_steps(self) -> NDArray:
        """How many steps the process has made at each state, (S,)."""
        return np.abs(self.steps - self.steps[0])


class Field(NamedTuple):
    """Arrows along a score.

    Attributes:
        name: "network" or "exact".
        origins: (G, d), where the arrows begin.
        vectors: (S, G, d), the arrows after steps[i] forward steps.
        steps: (S,), numbers of forward steps.
        label: the condition, an index into Scene.classes.
    """

    name: str
    origins: NDArray
    vectors: NDArray
    steps: NDArray
    label: int | None = None


class Loss(NamedTuple):
    """A training loss.

    Attributes:
        step: (K,), optimizer steps, evenly spaced.
        loss: (K,), the mean of the loss over the steps up to each of these.
        floor: the lowest possible loss, if it is known.
    """

    step: NDArray
    loss: NDArray
    floor: float | None


class Distance(NamedTuple):
    """Distances to the data.

    Attributes:
        by_side: for each side of a process its distance at each state, (S,).
        floors: (K,), distances between pairs of sets of real data.
    """

    by_side: dict[str, NDArray]
    floors: NDArray


class Scene(NamedTuple):
    """One or two processes, and what is known about them.

    Attributes:
        processes: the forward process, the reverse one, or both.
        data: clean data (N, d).
        alpha_bar: (T + 1,), beginning with 1 for clean data.
        fields: scores to draw.
        predictions: of tracked samples the places and the predicted x_0, both (S, K, *dims).
        distance: how far the processes are from the data.
        loss: the training loss of the network.
        normalised: whether coordinates have mean 0 and standard deviation 1 over the data.
        names: of the coordinates, for points of a table, which are always normalised.
        aspect: length of a unit of y in a picture of the plane, in units of x. It is 1 but for
            normalised sets that are much wider or higher than the other way, such as a text.
        labels: (N,), the condition of each sample, an index into `classes`.
        classes: the names of the labels.
        row_words: what the rows of a grid of images with labels mean.
        guidance_text: how the reverse process was guided, in words.
        tracked: rows of points that are drawn in cyan.
    """

    processes: list[Process]
    data: NDArray | None = None
    alpha_bar: NDArray | None = None
    fields: Sequence[Field] = ()
    predictions: tuple[NDArray, NDArray] | None = None
    distance: Distance | None = None
    loss: Loss | None = None
    normalised: bool = False
    names: Sequence[str] = ()
    aspect: float = 1.0
    labels: NDArray | None = None
    classes: Sequence[str] = ()
    row_words: str = "Each row was conditioned on the label at its left"
    guidance_text: str = ""
    tracked: Sequence[int] | NDArray[np.int64] = ()

    def noise(self, steps: NDArray) -> NDArray:
        """Return the amplitude of the noise, sigma = sqrt(1 - alpha_bar), 0 .. 1.

        Without a schedule it is the share of all forward steps.

        Args:
            steps: numbers of forward steps, of any shape.
        """
        if self.alpha_bar is not None:
            return np.sqrt(1 - self.alpha_bar[steps])
        most = max(int(process.steps.max()) for process in self.processes)
        return steps / max(1, most)

    def seconds(self, process: Process, steps: NDArray | None = None) -> NDArray:
        """Return when the states of a process are shown, from 0 to LASTS_S.

        A process moves evenly on `samplers.spacing.clock`; without a schedule, evenly in steps.

        Args:
            process: the process.
            steps: numbers of forward steps; by default those of its states.
        """
        if steps is None:
            steps = process.steps
        first, last = self._log_snr_grid(process.steps[[0, -1]])
        elapsed = np.abs(self._log_snr_grid(steps) - first)
        whole = max(float(np.abs(last - first)), 1e-12)
        return LASTS_S * elapsed / whole

    def _log_snr_grid(self, steps: NDArray) -> NDArray:
        """Return the place of forward steps on the clock, which falls with the noise."""
        if self.alpha_bar is None:
            return -steps
        return clock(self.alpha_bar)[steps]

    @property
    def of_images(self) -> bool:
        """Whether the states are images; otherwise they are points."""
        return self.processes[0].states.ndim == 5

    @property
    def dim(self) -> int:
        """The number of coordinates of a point."""
        return self.processes[0].states.shape[-1]


def checked_points(points: NDArray) -> NDArray[np.float32]:
    """Return points (..., 2) or (..., 3) as contiguous float32.

    Raises:
        ValueError: another shape, no points, NaN or infinity. Rerun itself would accept NaN
            silently.
    """
    points = numbers(points, "points").float().contiguous().numpy()
    if points.ndim < 2 or points.shape[-1] not in (2, 3):
        raise ValueError(f"points must have 2 or 3 coordinates, got shape {points.shape}")
    if 0 in points.shape:
        raise ValueError(f"there are no points to show: the shape is {points.shape}")
    # NaN and infinity pass through min or max, so that no copy of the points is needed.
    if not np.isfinite([points.min(), points.max()]).all():
        raise ValueError("the points hold NaN or infinity: nothing was recorded")
    return points


def checked_rows(rows: ArrayLike | None, count: int) -> NDArray[np.int64]:
    """Return the rows to track.

    Args:
        rows: indices of rows; by default the first TRACKED_ROWS.
        count: how many rows there are.

    Raises:
        ValueError: `rows` is no list of whole numbers from 0 to count - 1.
    """
    if rows is None:
        rows = np.arange(min(TRACKED_ROWS, count))
    given = numbers(rows, "track_samples")
    whole_numbers = not given.is_floating_point() and given.dtype != torch.bool
    if given.ndim != 1 or (given.numel() and not whole_numbers):
        raise ValueError(f"track_samples must be a list of rows such as [0,10,20], got {rows}")
    chosen = given.long().numpy()
    if chosen.size and (chosen.min() < 0 or chosen.max() >= count):
        raise ValueError(f"track_samples must lie in 0..{count - 1}, got {chosen.tolist()}")
    return chosen
