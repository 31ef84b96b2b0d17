"""Samples given an observation, as files and pictures: for points beside the exact posterior, for images inpainted."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metrics.conditioning import (
    INPAINTINGS_EACH,
    FilePosteriors,
    Inpainting,
    Posteriors,
    file_posterior_table,
    file_posteriors,
    has_exact_posterior,
    inpaint,
    posterior_table,
    posteriors,
)
from pipeline import Pipeline
from registry.posterior_rows import METHODS
from runtime.atomic_file import save_array
from viz import image_grids, stills
from viz.colours import GENERATED, hex_colour
from viz.point_clouds import cloud_axes, draw_cloud, outside_text
from viz.style import ink, literal

GREY = "#b8b8b8"
GLOSS_LETTERS = 30  # in a line of what a method does
HISTOGRAMS = 4  # in a row, of points of a file
BINS = 60


def save_posterior_samples(
    pipeline: Pipeline,
    run_folder: Path,
    count: int,
    seed: int,
    formats: list[str],
    *,
    observe: str,
    observe_noise: float | None,
    observe_method: str | None,
) -> None:
    """For points: print the table of all methods, save samples.npy given the observation `observe`, and posterior.png.

    For points of a file also save samples.csv. No exact posterior is known for them.

    Raises:
        ValueError: no observation of such points, or one that contradicts them.
    """
    if has_exact_posterior(pipeline):
        found = posteriors(pipeline, observe, observe_noise, observe_method, count, seed)
        print(posterior_table(found))
        figure = posterior_figure(found)
    else:
        found = file_posteriors(pipeline, observe, observe_noise, observe_method, count, seed)
        print(file_posterior_table(found))
        figure = file_posterior_figure(found)
    save_array(run_folder / "samples.npy", found.samples)
    print(f"samples:    {run_folder / 'samples.npy'}, by {found.method} and the network")
    if pipeline.columns is not None:
        print(f"table:      {pipeline.save_table(run_folder / 'samples.csv', found.samples)}")
    picture = stills.save(figure, run_folder / "posterior.png", formats)
    print(f"picture:    {picture}")


def save_inpaintings(
    pipeline: Pipeline,
    run_folder: Path,
    num_samples: int | None,
    seed: int,
    formats: list[str],
    *,
    observe: str,
    observe_noise: float | None,
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


def posterior_figure(found: Posteriors) -> Figure:
    """A row for the exact posterior and for every method: with the exact denoiser, with the network, and in words."""
    methods = [*found.evaluations]
    figure = Figure(figsize=(9, 1.35 * (1 + len(methods)) + 0.6), layout="constrained")
    axes = cloud_axes(figure, 1 + len(methods), 3, found.prior)
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
    figure.suptitle("\n".join(lines), size="medium")
    return figure


def file_posterior_figure(found: FilePosteriors) -> Figure:
    """A row for every method: a histogram of what is observed, with the observed value, and of the first columns."""
    observed_columns = np.flatnonzero(found.row)
    others = [i for i in range(len(found.names)) if len(observed_columns) > 1 or i not in observed_columns]
    shown = others[: HISTOGRAMS - 1]
    methods = [*found.points]
    figure = Figure(figsize=(2.4 * (1 + len(shown)) + 1.8, 1.25 * len(methods) + 1.0), layout="constrained")
    axes = figure.subplots(len(methods), 1 + len(shown), squeeze=False, sharex="col")

    prior_observed = found.observed(found.prior)
    for row, method in zip(axes, methods):
        points = found.points[method]
        _histogram(row[0], prior_observed, found.observed(points), found.value)
        row[0].axvspan(found.value - found.noise, found.value + found.noise, color=ink(), alpha=0.25, linewidth=0)
        row[0].axvline(found.value, color=ink(), linewidth=0.8)
        row[0].set_ylabel(method, rotation=0, ha="right", va="center", weight="bold")
        for ax, i in zip(row[1:], shown):
            _histogram(ax, found.prior[:, i], points[:, i])
    names = [found.text.rpartition("=")[0], *(found.names[i] for i in shown)]
    for ax, name in zip(axes[-1], names):
        ax.set_xlabel(literal(textwrap.shorten(name, GLOSS_LETTERS, placeholder="...") or name[:GLOSS_LETTERS]))
    figure.suptitle(
        f"samples given {literal(found.text)}, by every method\n"
        "black line: the observed value; its band: the noise; grey: samples without the observation\n"
        "no truth is known for points of a file",
        size="medium",
    )
    return figure


def _histogram(ax: Axes, prior: NDArray, points: NDArray, value: float | None = None) -> None:
    """Draw histograms of numbers (n,): of the prior in grey, of the samples in colour, both with height 1.

    value: a value that must lie on the axis.
    """
    marks = [*np.quantile(prior, [0.005, 0.995])]
    if value is not None:
        marks.append(value)
    width = max(marks) - min(marks) or 1.0
    edges = np.linspace(min(marks) - 0.1 * width, max(marks) + 0.1 * width, BINS + 1)
    for values, colour, opacity in ((prior, GREY, 1.0), (points, hex_colour(GENERATED), 0.65)):
        heights, _ = np.histogram(values, edges)
        share = heights / max(1, heights.max())  # a posterior may be hundreds of times narrower than the prior
        ax.stairs(share, edges, fill=True, color=colour, alpha=opacity)
    ax.set(yticks=[], xlim=(edges[0], edges[-1]))
    ax.locator_params(axis="x", nbins=4)
    ax.tick_params(labelsize="small")


def inpainting_figure(found: Inpainting) -> Figure:
    """Each row: a held-out image, what was observed of it, and samples given that."""
    observed = np.where(found.observed, found.images, 0.0)
    shown = np.concatenate([found.images[:, None], observed[:, None], found.samples], 1)
    title = f"{found.text}: the held-out image, what was observed of it (the rest is grey), samples by {found.method}"
    columns = ["image", "observed"]
    for i in range(found.samples.shape[1]):
        columns.append(str(i + 1))
    return image_grids.table(shown, title, columns=columns)
