"""Whether the board keeps its promises: real points tie with the floor, and planted faults rank below it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.board_entries import by_real_points
from benchmarks.board_figures import Verdict, judge_samples
from benchmarks.board_tasks import TASKS, VERSION, Cell
from runtime.atomic_file import atomic_file
from runtime.progress import steady_bar
from runtime.randomness import integer_seed

FAULT_SEEDS = 5  # sets of samples with each fault, at most
CHECK_FILE = "check.txt"  # beside the rows; JSON
SCALE = 1.03
SHIFT = 0.05  # standard deviations of each coordinate
LEFT_SHARE = 0.4  # of the samples on one side of the first halving, where half of the real points lie
STRAYS = 0.01  # of the samples, in a box twice as wide as the real points

Fault = Callable[[Cell, NDArray, np.random.Generator], NDArray]


# ---------------------------------------------------------------- planted faults: (cell, 4 n real points) -> (n, d)


def too_wide(cell: Cell, points: NDArray, rng: np.random.Generator) -> NDArray:
    """All points are 1.03 times as far from their mean."""
    x = points[: cell.n]
    mean = x.mean(0)
    return mean + np.float32(SCALE) * (x - mean)


def shifted(cell: Cell, points: NDArray, rng: np.random.Generator) -> NDArray:
    """The mean is wrong by 5 % of a standard deviation in each coordinate."""
    x = points[: cell.n]
    return x + np.float32(SHIFT) * x.std(0)


def missing_mode(cell: Cell, points: NDArray, rng: np.random.Generator) -> NDArray:
    """One of 32 places of equal mass is empty."""
    place = cell.truth.partition.places(torch.from_numpy(points)).numpy()
    return points[place != 0][: cell.n]


def wrong_weights(cell: Cell, points: NDArray, rng: np.random.Generator) -> NDArray:
    """One half of the data holds 40 % of the samples."""
    place = cell.truth.partition.places(torch.from_numpy(points)).numpy()
    is_left = place < 16
    left = round(LEFT_SHARE * cell.n)
    return np.concatenate([points[is_left][:left], points[~is_left][: cell.n - left]])


def astray(cell: Cell, points: NDArray, rng: np.random.Generator) -> NDArray:
    """1 % of the samples are uniform in a box twice as wide as the data."""
    x = points[: cell.n].copy()
    count = round(STRAYS * cell.n)
    middle = (x.max(0) + x.min(0)) / 2
    width = x.max(0) - x.min(0)
    x[:count] = middle + width * rng.uniform(-1, 1, (count, x.shape[1]))
    return x


FAULTS: dict[str, Fault] = {
    "scale 1.03": too_wide,
    "mean shifted by 5 % of the spread": shifted,
    "one of 32 places empty": missing_mode,
    "weights 40 : 60": wrong_weights,
    "1 % of strays": astray,
}


# ---------------------------------------------------------------- verdicts


def verdict_on_real(task: str, seed: int) -> Verdict:
    """The verdict on one set of real points for a task."""
    cells = TASKS[task].cells
    source = by_real_points(seed)
    return judge_samples(cells, [source(cell)[0] for cell in cells])


def verdict_on_fault(task: str, fault: str, seed: int) -> Verdict:
    """The verdict on real points into which a fault was planted."""
    rng = np.random.default_rng(integer_seed(seed, fault))
    faulty = []
    for i, cell in enumerate(TASKS[task].cells):
        points = cell.truth.draw(4 * cell.n, 10_000_000 + 1000 * seed + i)
        faulty.append(FAULTS[fault](cell, points, rng))
    return judge_samples(TASKS[task].cells, faulty)


def check_board(tasks: Sequence[str], seeds: int) -> dict[str, Any]:
    """For each task, how many of `seeds` sets of real points tie, and how often each planted fault ranks below.

    Prints a line for each.
    """
    found: dict[str, Any] = {}
    fault_seeds = min(seeds, FAULT_SEEDS)
    for task in tasks:
        ties = 0
        below = dict.fromkeys(FAULTS, 0)
        total = seeds + fault_seeds * len(FAULTS)
        with steady_bar(total=total, desc=f"check of {task}", leave=False) as shown:
            for seed in range(1, seeds + 1):
                ties += verdict_on_real(task, seed).ties
                shown.update()
            for fault in FAULTS:
                for seed in range(fault_seeds):
                    below[fault] += not verdict_on_fault(task, fault, seed).ties
                    shown.update()
        found[task] = {"real": seeds, "ties": ties, "faulty": fault_seeds, "below": below}
        print(f"{task}: {ties} of {seeds} sets of real points tie", flush=True)
        for fault, count in below.items():
            print(f"  {fault}: {count} of {fault_seeds} rank below real points", flush=True)
    return found


def save_check(folder: Path, found: Mapping[str, Any], commit: str) -> None:
    """Write what `check_board` found beside the rows; tasks that were not checked now stay."""
    known = read_check(folder)
    tasks = {**known, **{task: {**each, "commit": commit} for task, each in found.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / CHECK_FILE) as file:
        file.write(f"{json.dumps({'benchmark': VERSION, 'tasks': tasks}, indent=1)}\n".encode())


def read_check(folder: Path) -> dict[str, Any]:
    """What was found by task; {} where nothing was, or for another version."""
    path = folder / CHECK_FILE
    if not path.exists():
        return {}
    known = json.loads(path.read_text())
    return known["tasks"] if known["benchmark"] == VERSION else {}
