"""Samples given an observation, as files and pictures: for points beside the exact posterior, for images inpainted."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from metrics.conditioning import INPAINTINGS_EACH, Inpainting, Posteriors, inpaint, posterior_table, posteriors
from pipeline import Pipeline
from points.tables import Columns
from registry.posterior_rows import METHODS
from runtime.atomic_file import save_array
from viz import image_grids, stills
from viz.colours import GENERATED, hex_colour
from viz.point_axes import axes_in_words, axis_names
from viz.point_clouds import cloud_axes, draw_cloud, outside_text
from viz.style import ink, literal

GREY = "#b8b8b8"
GLOSS_LETTERS = 30  # in a line of what a method does


def save_posterior_samples(
    pipeline: Pipeline,
    run_folder: Path,
    count: int,
    seed: int,
    formats: list[str],
    *,
    observe: str,
    observe_noise: float,
    observe_method: str | None,
) -> None:
    """For points: print the table of all methods, save samples.npy given the observation `observe`, and posterior.png.

    Raises:
        ValueError: no observation of such points, or one that contradicts them.
    """
    found = posteriors(pipeline, observe, observe_noise, observe_method, count, seed)
    save_array(run_folder / "samples.npy", found.samples)
    print(posterior_table(found))
    print(f"samples:    {run_folder / 'samples.npy'}, by {found.method} and the network")
    picture = stills.save(posterior_figure(found, pipeline.columns), run_folder / "posterior.png", formats)
    print(f"picture:    {picture}")


def save_inpaintings(
    pipeline: Pipeline,
    run_folder: Path,
    num_samples: int | None,
    seed: int,
    formats: list[str],
    *,
    observe: str,
    observe_noise: float,
    observe_method: str | None,
    observe_image: int,
) -> None:
    """For images: save samples.npy given the mask `observe` of eight held-out images, and inpainting.png.

    Raises:
        ValueError: an unknown mask, no such image, or a number of samples: it is fixed.
    """
    if num_samples:
        raise ValueError(f"observe draws {INPAINTINGS_EACH} samples of each image: leave out num_samples")
    inpainting = inpaint(pipeline, observe, observe_noise, observe_method, observe_image, seed)
    save_array(run_folder / "samples.npy", inpainting.samples)
    print(f"samples:    {run_folder / 'samples.npy'}")
    picture = stills.save(inpainting_figure(inpainting), run_folder / "inpainting.png", formats)
    print(f"picture:    {picture}")


def posterior_figure(found: Posteriors, columns: Columns | None = None) -> Figure:
    """A row for the exact posterior and for every method: with the exact denoiser, with the network, and in words."""
    methods = [*found.evaluations]
    figure = Figure(figsize=(9, 1.35 * (1 + len(methods)) + 0.6), layout="constrained")
    axes = cloud_axes(figure, 1 + len(methods), 3, found.prior, columns)
    for column, (denoiser, points) in zip(axes.T[1:], found.points.items()):
        column[0].set_title(f"with the {denoiser}")
        for ax in column:
            draw_cloud(ax, found.prior, GREY)
        draw_cloud(column[0], found.truth, ink())
        column[0].set_xlabel(f"W1 of other exact samples {found.floor[1]:.3f}", size="small")
        for ax, method in zip(column[1:], methods):
            outside = draw_cloud(ax, points[method], hex_colour(GENERATED))
            ax.set_xlabel(f"W1 {found.distance[denoiser][method]:.3f}{outside_text(outside)}", size="small")

    rows = [("exact posterior", "what every method should give")]
    rows += [(method, METHODS[method].help) for method in methods]
    for ax, (name, gloss) in zip(axes[:, 0], rows):
        ax.axis("off")
        write = ax.text2D if ax.name == "3d" else ax.text
        write(0, 0.8, name, va="center", weight="bold", transform=ax.transAxes)
        write(0, 0.62, textwrap.fill(gloss, GLOSS_LETTERS), va="top", transform=ax.transAxes)
    lines = [
        f"samples given {literal(found.text)}, observed with noise {found.noise:g}",
        "grey: the data; W1: sliced Wasserstein-1 distance to the exact posterior",
    ]
    names = axis_names(columns, found.prior.shape[1])
    if names:
        lines.append(axes_in_words(names))
    figure.suptitle("\n".join(lines), size="medium")
    return figure


def inpainting_figure(found: Inpainting) -> Figure:
    """Each row: a held-out image, what was observed of it, and samples given that."""
    observed = np.where(found.observed, found.images, 0.0)
    shown = np.concatenate([found.images[:, None], observed[:, None], found.samples], 1)
    title = f"{found.text}: the held-out image, what was observed of it (the rest is grey), samples by {found.method}"
    columns = ["image", "observed"]
    for i in range(found.samples.shape[1]):
        columns.append(str(i + 1))
    return image_grids.table(shown, title, columns=columns)
