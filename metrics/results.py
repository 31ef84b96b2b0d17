"""The output of an evaluation: metrics.json, the table in the terminal, score fields to draw."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset import DataSet, PointSet
from metrics.by_label import LabelEnergy
from metrics.columns import column_lines, compare_columns
from metrics.evaluation import Evaluation
from metrics.significance import TESTS
from metrics.table import format_table, results_by_name
from pipeline import Pipeline
from points.mixture import GaussianMixture
from runtime.atomic_file import atomic_file
from schedule import step_from_t

FIELD_SHARES = (0.02, 0.1, 0.3, 0.6)  # of T: the steps at which the score field is drawn
FIELD_POINTS = 46  # grid points along each side
FIELD_EDGE = 2.6  # the grid covers -2.6 .. 2.6 in normalised units


# ---------------------------------------------------------------- the report


def write_report(
    folder: Path,
    evaluation: Evaluation | None,
    unseen: DataSet,
    **facts: Any,
) -> dict[str, Any]:
    """Write metrics.json into `folder`, print the table, and return what metrics.json contains.

    Args:
        folder: the run folder.
        evaluation: None if there was none. Then metrics.json contains the facts only.
        unseen: the data that the samples were compared with.
        facts: other entries of metrics.json.
    """
    result = dict(facts)
    columns = None
    if evaluation:
        result["figures"] = results_by_name(evaluation.rows)
        result["labels"] = {unseen.classes[each.label]: _without_label(each) for each in evaluation.by_label}
        result["notes"] = list(evaluation.notes)
        if isinstance(unseen, PointSet) and unseen.columns is not None:
            columns = compare_columns(evaluation.samples, unseen.points, unseen.columns)
    if columns:
        result["columns"] = columns.as_plain()
    with atomic_file(folder / "metrics.json") as file:
        file.write(f"{json.dumps(result, indent=2)}\n".encode())
    if evaluation:
        _print_table(evaluation, unseen)
    if columns:
        for line in column_lines(columns):
            print(f"  {line}")
    return result


def read_report(folder: Path) -> dict[str, Any]:
    """Return what metrics.json in a run folder contains; {} where it is missing or damaged."""
    try:
        found = json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _print_table(evaluation: Evaluation, unseen: DataSet) -> None:
    is_points = isinstance(unseen, PointSet)
    bound = "at most" if is_points else "about"  # the level for images was measured
    print(format_table(evaluation.rows, bound))
    for note in [*_notes_on_labels(evaluation, unseen), *evaluation.notes]:
        print(f"  {note}")

    if is_points and unseen.mixture is None:
        found = {row.name for row in evaluation.rows}
        missing = [test.name for test in TESTS if test.needs_truth and test.name not in found]
        reason = f"these points have no exact density ({unseen.inexact_reason})"
        print(f"  {reason}: floors come from other real points, and")
        print(f"  these metrics are missing: {', '.join(missing)}, error of epsilon, KL")


def _notes_on_labels(evaluation: Evaluation, unseen: DataSet) -> list[str]:
    """Return a line that names the label whose samples differ most from its real points."""
    if not evaluation.by_label:
        return []
    worst = min(evaluation.by_label, key=lambda each: (each.p, each.floor - each.value))
    name = unseen.classes[worst.label]
    values = f"{worst.value:.4f} where real points give {worst.floor:.4f} (n = {worst.n:,}, p = {worst.p:.2g})"
    return [f"energy distance by label, the worst of {len(evaluation.by_label)}: {name}, {values}"]


def _without_label(each: LabelEnergy) -> dict[str, Any]:
    fields = asdict(each)
    del fields["label"]
    return fields


# ---------------------------------------------------------------- the score fields


def score_fields(pipeline: Pipeline, unseen: DataSet) -> list[dict[str, Any]]:
    """Return the network's and the exact score on a grid, at a few steps, in normalised units.

    The list is empty where the exact distribution is not known, or does not have two dimensions.
    Each entry has the step, sigma, and the axes "x" and "y" of shape (46,). It also has the exact
    "log_density" (46, 46) and the scores "network" and "exact" (46, 46, 2).
    """
    if unseen.mixture is None or unseen.mixture.dim != 2:
        return []
    mixture = pipeline.normaliser.normalise_mixture(unseen.mixture)
    last = pipeline.scheduler.num_timesteps - 1
    return [_score_field(pipeline, mixture, round(share * last)) for share in FIELD_SHARES]


@torch.no_grad()
def _score_field(pipeline: Pipeline, mixture: GaussianMixture, t: int) -> dict[str, Any]:
    axis = np.linspace(-FIELD_EDGE, FIELD_EDGE, FIELD_POINTS)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    grid = torch.from_numpy(points).float()

    alpha, sigma = pipeline.scheduler.alpha_sigma_at(t)
    noised = mixture.noised(alpha, sigma)
    device = pipeline.device
    prediction = pipeline.denoiser()(grid.to(device), torch.tensor(t, device=device))
    network = -prediction.eps.cpu() / sigma  # score = -eps / sigma

    side = (FIELD_POINTS, FIELD_POINTS)
    return {
        "step": step_from_t(t),
        "sigma": sigma,
        "x": axis,
        "y": axis,
        "log_density": noised.log_density(grid).reshape(side).numpy(),
        "network": network.double().reshape(*side, 2).numpy(),
        "exact": noised.score(grid).reshape(*side, 2).numpy(),
    }
