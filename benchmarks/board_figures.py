"""The figures of an entry: of each cell beside its floor, and of a task with the test against real points.

The main figure is the divergence of metrics/binned_kl.py in nats, the mean over the cells of a task. An entry ties with
real points if two tests pass that keep LEVEL together: the main figure, and the number of strays in all cells.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.board_tasks import TASKS, VERSION, Cell, columns_of
from metrics.binned_kl import REGIONS, Divergence, highest_mean, mean_p
from metrics.exact_truth import DISTANCE
from metrics.significance import STRAY_SHARE, Evidence, strays
from metrics.table import LEVEL
from runtime.atomic_file import atomic_file

DIGITS = 5  # of the numbers in a row


@dataclass(frozen=True)
class Figures:
    """The figures of one cell.

    samples: how many. nats, error: see metrics.binned_kl.Divergence. distance: sliced Wasserstein-1 to real points, in
    units of the median between real points. density_gap: how much lower the mean of log p is than that of real points,
    in nats. strays: how many samples lie farther off than all but 1 in 10,000 real points; None where the truth is no
    mixture. coverage: the share of samples in each of REGIONS. weight_error: the largest error of a mode's weight; None
    without modes. evaluations: of the denoiser for each sample, counted; None for samples from files.
    """

    samples: int
    nats: float
    error: float
    distance: float
    density_gap: float
    strays: int | None
    coverage: Sequence[float]
    weight_error: float | None
    evaluations: float | None


def measure(cell: Cell, samples: NDArray, evaluations: float | None = None) -> Figures:
    """The figures of samples (n, d) of a cell, in data units."""
    truth = cell.truth
    divergence, log_density = _divergence(cell, samples)
    distance = DISTANCE.compute(samples, truth.draw(cell.n, 0)) / truth.distance_floor(cell.n)
    is_posterior = cell.task == "posterior"
    return Figures(
        samples=cell.n,
        nats=divergence.nats,
        error=divergence.error,
        distance=distance,
        density_gap=truth.mean_log_density - float(log_density.mean()),
        strays=count_strays(cell, samples),
        coverage=truth.partition.covered(log_density).tolist(),
        weight_error=truth.largest_weight_error(samples) if is_posterior else None,
        evaluations=evaluations,
    )


def _divergence(cell: Cell, samples: NDArray) -> tuple[Divergence, NDArray]:
    """The divergence of samples, and their log p (n,) up to a constant."""
    truth = cell.truth
    log_density = truth.log_density(samples)
    counts = truth.partition.counts(torch.from_numpy(samples), log_density)
    return truth.partition.divergence(counts, truth.floor(cell.n)), log_density


def count_strays(cell: Cell, samples: NDArray) -> int | None:
    """The strays among samples (n, d), see metrics.significance; None where the truth is no mixture."""
    truth = cell.truth
    if truth.mixture is None:
        return None
    whitened = truth.whitened(samples)
    statistic = strays(Evidence(whitened, whitened, truth.mixture))
    return round(float(statistic.value) * len(samples))


@dataclass(frozen=True)
class Verdict:
    """A task as a whole.

    nats, error: the mean over its cells. highest: what real points exceed with the probability of the test's level.
    p: by test. level: of each test. ties: whether the entry ties with real points.
    """

    nats: float
    error: float
    highest: float
    p: Mapping[str, float]
    level: float
    ties: bool


def judge(
    cells: Sequence[Cell], nats: Sequence[float], errors: Sequence[float], strays: Sequence[int | None]
) -> Verdict:
    """The verdict on the figures of these cells, those of one task or a part of them."""
    floors = [cell.truth.floor(cell.n) for cell in cells]
    p = {"nats": mean_p(sum(nats), floors)}
    counted = [(cell.n, count) for cell, count in zip(cells, strays) if count is not None]
    if counted:
        samples = sum(n for n, _ in counted)
        found = sum(count for _, count in counted)
        p["strays"] = float(stats.binom.sf(found - 1, samples, STRAY_SHARE))
    level = LEVEL / len(p)
    return Verdict(
        nats=float(np.mean(nats)),
        error=float(np.linalg.norm(errors)) / len(errors),
        highest=highest_mean(level, floors),
        p=p,
        level=level,
        ties=min(p.values()) > level,
    )


def judge_samples(cells: Sequence[Cell], samples: Sequence[NDArray]) -> Verdict:
    """The verdict on samples of these cells, without the figures that it does not need."""
    divergences = [_divergence(cell, each)[0] for cell, each in zip(cells, samples)]
    counts = [count_strays(cell, each) for cell, each in zip(cells, samples)]
    return judge(cells, [d.nats for d in divergences], [d.error for d in divergences], counts)


# ---------------------------------------------------------------- an entry


def judge_figures(cells: Sequence[Cell], figures: Mapping[str, Figures]) -> Verdict:
    """The verdict on the figures of these cells, by the names of the cells."""
    found = [figures[cell.name] for cell in cells]
    return judge(cells, [f.nats for f in found], [f.error for f in found], [f.strays for f in found])


def task_row(task: str, figures: Mapping[str, Figures], **facts: object) -> dict[str, Any]:
    """What a row of the board says about one task: facts, the verdict, and the figures of each cell."""
    cells = TASKS[task].cells
    columns = {}
    for column in columns_of(cells):
        verdict = judge_figures([cell for cell in cells if cell.column == column], figures)
        columns[column] = {"nats": verdict.nats, "error": verdict.error, "ties": verdict.ties}
    by_cell = {name: asdict(each) for name, each in figures.items()}
    verdict = judge_figures(cells, figures)
    return {**facts, **asdict(verdict), "columns": columns, "regions": REGIONS, "cells": by_cell}


# ---------------------------------------------------------------- rows as files


def row_path(folder: Path, name: str) -> Path:
    """The file of the entry of that name."""
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return folder / f"{slug or 'entry'}.json"


def save_row(folder: Path, name: str, tasks: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write the row of an entry. Tasks that it has already, and that are not given, stay.

    Raises:
        ValueError: the file there is no row of this version, or that of another entry.
        OSError: the file cannot be written.
    """
    path = row_path(folder, name)
    known = {}
    if path.exists():
        row = read_row(path)
        if row["name"] != name:
            raise ValueError(f"{path} is the row of {row['name']!r}: choose another name than {name!r}")
        known = row["tasks"]
    in_order = {task: tasks.get(task, known.get(task)) for task in TASKS if task in tasks or task in known}
    row = {"benchmark": VERSION, "name": name, "tasks": in_order}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(_text(row).encode())
    return path


def _text(row: Mapping[str, Any]) -> str:
    """JSON with one line for each cell."""
    text = json.dumps(_rounded(row), indent=1, allow_nan=False)
    return re.sub(r'(": )(\{[^{}]*\}|\[[^\[\]{}]*\])', lambda found: found[1] + " ".join(found[2].split()), text) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value


def read_row(path: Path) -> dict[str, Any]:
    """One row. Raises ValueError where the file is none, or of another version."""
    try:
        row = json.loads(path.read_text())
        version = row["benchmark"]
        known = {"name": str(row["name"]), "tasks": dict(row["tasks"])}
        if version == VERSION:
            for task, found in known["tasks"].items():
                _check_task_row(task, found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no row of the board: remove it, or write it again") from error
    if version != VERSION:
        raise ValueError(f"{path} is a row of benchmark {version}, and this board is {VERSION}: remove it")
    return known


def _check_task_row(task: str, row: Mapping[str, Any]) -> None:
    """Raises KeyError or ValueError where the row of a task lacks anything that the page shows."""
    cells = TASKS[task].cells
    needed = {"command", "commit", "versions", "p", "level"}
    if not needed <= row.keys():
        raise ValueError("a fact is missing")
    for figure in (row, *(row["columns"][column] for column in columns_of(cells))):
        Divergence(float(figure["nats"]), float(figure["error"]))
        bool(figure["ties"])
    for cell in cells:
        Figures(**row["cells"][cell.name])


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder, by the names of their files. Raises ValueError as `read_row`."""
    return [read_row(path) for path in sorted(folder.glob("*.json"))]
