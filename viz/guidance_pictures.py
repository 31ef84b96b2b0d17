"""The picture of the guidance sheet: what guidance claims to sample, and what it samples."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from metrics.guidance_sheet import GuidanceSheet, guidance_sheet, guidance_table
from pipeline import Pipeline
from viz import stills
from viz.colours import CLASSES
from viz.point_clouds import cloud_axes, draw_cloud, outside_text

ROW_TITLES = {
    "claimed": "claimed\np(x|c) p(c|x)^w",
    "exact denoiser": "sampled\nexact denoiser",
    "network": "sampled\nnetwork",
}


def save_guidance_sheet(
    pipeline: Pipeline,
    run_folder: Path,
    count: int,
    seed: int,
    formats: list[str],
    interval: Sequence[float] | None = None,
) -> None:
    """Print the table of the guidance sheet and save guidance.png.

    Raises:
        ValueError: an unconditional model, or a set whose distribution is not known.
    """
    sheet = guidance_sheet(pipeline, count, seed, interval)
    picture = guidance_figure(sheet)
    print(guidance_table(sheet))
    print(f"picture:    {stills.save(picture, run_folder / 'guidance.png', formats)}")


def guidance_figure(sheet: GuidanceSheet) -> Figure:
    """Rows: claimed, sampled with the exact denoiser, with the network. Columns: weights. Colours: labels."""
    figure = Figure(figsize=(2.5 * len(sheet.weights), 5.8), layout="constrained")
    axes = cloud_axes(figure, len(ROW_TITLES), len(sheet.weights), sheet.points["claimed"][0])
    colours = np.array(CLASSES)[sheet.labels % len(CLASSES)]
    for row, (name, title) in zip(axes, ROW_TITLES.items()):
        row[0].set_ylabel(title)
        for i, ax in enumerate(row):
            outside = draw_cloud(ax, sheet.points[name][i], colours)
            if name == "claimed":
                ax.set_title(f"w = {sheet.weights[i]:g}")
                text = f"floor {sheet.floor[i]:.3f}"
            else:
                text = f"W1 {sheet.distance[name][i]:.3f}"
            ax.set_xlabel(text + outside_text(outside))
    figure.suptitle(
        "guidance: what it claims to sample, and what it samples; colours: the label asked for;"
        " W1: sliced Wasserstein-1 to what is claimed\n"
        "floor: the same distance between two sets of claimed points"
    )
    return figure
