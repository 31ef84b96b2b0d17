"""What a judged model leaves behind: pictures, metrics.json and the table that a person reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dataset import DataSet, PointSet
from loss.log import read_excess
from metrics.distances import as_json, table
from metrics.evaluation import Evaluation, real_draws
from mixture import GaussianMixture
from runtime.trained import Trained
from viz import image_grids as image_figures
from viz import stills as figures

FIELD_SHARES = (0.02, 0.1, 0.3, 0.6)  # of T: the moments at which the score field is drawn
FIELD_POINTS = 46  # grid points a side
REAL_IMAGES = 100  # drawn beside as many generated ones


def write_report(
    folder: Path, evaluation: Evaluation, data: DataSet, *, seed: int, trained: Trained | None = None,
    history_from: Path | None = None, **figures_so_far: Any,
) -> dict[str, Any]:  # fmt: skip
    """samples.png, timesteps.png, field.png and metrics.json into `folder`; the table to the terminal.

    data: the unseen images or the points (with or without their law) that the judgement was made with.
    `history_from` is the run folder whose excess.csv shows how the excess fell; `figures_so_far` go into
    metrics.json as well. Returns what metrics.json holds.
    """
    if isinstance(data, PointSet):
        _pictures_of_points(folder, evaluation, data, seed, trained, history_from)
    else:
        figures.save(
            image_figures.beside_real(evaluation.samples, data[:REAL_IMAGES][0].numpy()), folder / "samples.png"
        )
    result = {**figures_so_far, "figures": as_json(evaluation.rows)}
    (folder / "metrics.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(evaluation.rows))
    if isinstance(data, PointSet) and data.mixture is None:
        print("  the law of these points is not known: floors come from held-out points, and neither the density")
        print("  nor the best possible epsilon can be told")
    return result


def _pictures_of_points(
    folder: Path, evaluation: Evaluation, data: PointSet, seed: int, trained: Trained | None, history_from: Path | None
) -> None:
    shown = evaluation.samples[:5000]
    figures.save(figures.samples(shown, real_draws(data, seed)(len(shown), 0)), folder / "samples.png")
    if evaluation.probes:
        steps = evaluation.probes.timesteps.numpy() + 1
        history = read_excess(history_from) if history_from else None
        sheet = figures.timesteps(steps, evaluation.probes.floor.numpy(), evaluation.excess, history)
        figures.save(sheet, folder / "timesteps.png")
    if trained and data.mixture and data.mixture.dim == 2:
        figures.save(figures.score_fields(_fields(trained, data.mixture)), folder / "field.png")


def _fields(trained: Trained, data_mixture: GaussianMixture) -> list[dict[str, NDArray]]:
    """The network's and the exact score on a grid, in normalised units, at a few moments (figures.score_fields)."""
    mixture = data_mixture.scaled(trained.normaliser.mean, trained.normaliser.std)
    return [_field(trained, mixture, round(share * (trained.scheduler.num_timesteps - 1))) for share in FIELD_SHARES]


@torch.no_grad()
def _field(trained: Trained, mixture: GaussianMixture, t: int) -> dict[str, Any]:
    alpha, sigma = trained.scheduler.alpha_sigma_at(t)
    noised = mixture.noised(alpha, sigma)
    axis = np.linspace(-2.6, 2.6, FIELD_POINTS)
    grid = torch.from_numpy(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)).float()
    device = next(trained.net.parameters()).device
    network = -trained.denoise()(grid.to(device), torch.tensor(t, device=device)).cpu() / sigma
    side = (FIELD_POINTS, FIELD_POINTS)
    return {
        "step": t + 1,
        "x": axis,
        "y": axis,
        "log_density": noised.log_density(grid).reshape(side).numpy(),
        "network": network.double().reshape(*side, 2).numpy(),
        "exact": noised.score(grid).reshape(*side, 2).numpy(),
    }
