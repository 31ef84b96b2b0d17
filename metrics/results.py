"""What an evaluation leaves behind in numbers: metrics.json, and the table that people read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dataset import DataSet, PointSet
from metrics.evaluation import Evaluation
from metrics.significance import TESTS
from metrics.table import as_json, table
from pipeline import Pipeline
from points.mixture import GaussianMixture
from runtime.atomic_file import atomic_file
from schedule import step_of

FIELD_SHARES = (0.02, 0.1, 0.3, 0.6)  # of T: the moments at which the score field is drawn
FIELD_POINTS = 46  # grid points a side


def write_report(folder: Path, evaluation: Evaluation | None, unseen: DataSet, **facts: Any) -> dict[str, Any]:
    """metrics.json, with the `facts`, into `folder`; the table to the terminal. Returns what metrics.json holds.

    unseen: the images or the points (with or without their exact distribution) that the evaluation compared with.
    """
    result = {**facts, "figures": as_json(evaluation.rows)} if evaluation else facts
    with atomic_file(folder / "metrics.json") as file:
        file.write(f"{json.dumps(result, indent=2)}\n".encode())
    if evaluation:
        print(table(evaluation.rows, "at most" if isinstance(unseen, PointSet) else "about"))
        if isinstance(unseen, PointSet) and unseen.mixture is None:
            missing = [test.name for test in TESTS if test.name not in result["figures"]]
            print(f"  these points have no exact density ({unseen.inexact}): floors come from other real points, and")
            print(f"  there is no {', '.join(missing)}, error of epsilon or KL")
    return result


def score_fields(pipeline: Pipeline, unseen: DataSet) -> list[dict[str, Any]]:
    """The network's and the exact score on a grid, in normalised units, at a few moments; [] where it is not known."""
    if unseen.mixture is None or unseen.mixture.dim != 2:
        return []
    mixture = pipeline.normaliser.distribution(unseen.mixture)
    last = pipeline.scheduler.num_timesteps - 1
    return [_field(pipeline, mixture, round(share * last)) for share in FIELD_SHARES]


@torch.no_grad()
def _field(pipeline: Pipeline, mixture: GaussianMixture, t: int) -> dict[str, NDArray | float]:
    alpha, sigma = pipeline.scheduler.alpha_sigma_at(t)
    noised, axis, side = mixture.noised(alpha, sigma), np.linspace(-2.6, 2.6, FIELD_POINTS), (FIELD_POINTS,) * 2
    grid = torch.from_numpy(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)).float()
    at = torch.tensor(t, device=pipeline.device)
    network = -pipeline.denoiser()(grid.to(pipeline.device), at).eps.cpu() / sigma
    return {
        "step": step_of(t),
        "sigma": sigma,
        "x": axis,
        "y": axis,
        "log_density": noised.log_density(grid).reshape(side).numpy(),
        "network": network.double().reshape(*side, 2).numpy(),
        "exact": noised.score(grid).reshape(*side, 2).numpy(),
    }
