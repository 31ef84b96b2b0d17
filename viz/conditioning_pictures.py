"""Pictures of guidance and of posterior samplers, each beside the exact truth."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metrics.conditioning import GuidanceSheet, Inpainting, Posteriors
from viz import image_grids
from viz.colours import CLASSES, GENERATED, hex_colour
from viz.style import ink

GREY = "#b8b8b8"
MARGIN = 0.25  # around the data, in widths of them


def guidance(sheet: GuidanceSheet) -> Figure:
    """Rows: claimed, sampled with the exact denoiser, with the network. Columns: weights. Colours: labels."""
    names = {
        "claimed": "claimed\np(x|c) p(c|x)^w",
        "exact denoiser": "sampled\nexact denoiser",
        "network": "sampled\nnetwork",
    }
    figure = Figure(figsize=(2.5 * len(sheet.weights), 5.8), layout="constrained")
    axes = _axes(figure, 3, len(sheet.weights), sheet.points["claimed"][0])
    for row, (name, title) in zip(axes, names.items()):
        row[0].set_ylabel(title)
        for i, ax in enumerate(row):
            colours = np.array(CLASSES)[sheet.labels % len(CLASSES)]
            outside = _cloud(ax, sheet.points[name][i], colours)
            figures = f"floor {sheet.floor[i]:.3f}" if name == "claimed" else f"W1 {sheet.distance[name][i]:.3f}"
            ax.set_xlabel(figures + (f"; {outside} outside" if outside else ""))
            if name == "claimed":
                ax.set_title(f"w = {sheet.weights[i]:g}")
    figure.suptitle(
        "guidance: what it claims to sample, and what it samples; colours: the label asked for;"
        " W1: sliced Wasserstein-1 to what is claimed"
    )
    return figure


def posterior(found: Posteriors) -> Figure:
    """The exact posterior, then every method; above with the exact denoiser, below with the network."""
    figure = Figure(figsize=(2.7 * (1 + len(found.evaluations)), 4.4), layout="constrained")
    axes = _axes(figure, 2, 1 + len(found.evaluations), found.prior)
    for row, (name, points) in zip(axes, found.points.items()):
        clouds = {"exact posterior": found.truth, **points}
        for ax, (method, cloud) in zip(row, clouds.items()):
            ax.scatter(*_shown(ax, found.prior), s=2, color=GREY, linewidths=0, rasterized=True)
            outside = _cloud(ax, cloud, ink() if cloud is found.truth else hex_colour(GENERATED))
            if cloud is found.truth:
                ax.set_xlabel(f"floor {found.floor[1]:.3f}")
            else:
                ax.set_xlabel(f"W1 {found.distance[name][method]:.3f}" + (f"; {outside} outside" if outside else ""))
            ax.set_title(method)
        row[0].set_ylabel(f"with the {name}")
    figure.suptitle(
        f"samples given {found.text} with noise {found.noise:g}; grey: the data; W1: to the exact posterior"
    )
    return figure


def inpainting(found: Inpainting) -> Figure:
    """Each row: a held-out image, what was observed of it, and samples given that."""
    hidden = np.where(found.observed, found.images, 0.0)
    shown = np.concatenate([found.images[:, None], hidden[:, None], found.samples], 1)
    title = f"{found.text}: the held-out image, what was observed of it (the rest is grey), samples by {found.method}"
    columns = ["image", "observed", *(str(i + 1) for i in range(found.samples.shape[1]))]
    return image_grids.table(shown, title, columns=columns)


def _axes(figure: Figure, rows: int, columns: int, data: NDArray) -> NDArray:
    """Axes (rows, columns), all of the range of the data (N, d) with a margin."""
    d = min(3, data.shape[1])
    options = {"projection": "3d"} if d == 3 else {"aspect": "equal"}
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw=options)
    low, high = data.min(0), data.max(0)
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
    for ax in axes.flat:
        for i, axis in enumerate("xyz"[:d]):
            getattr(ax, f"set_{axis}lim")(low[i], high[i])
        if d == 2:
            ax.set(xticks=[], yticks=[])
    return axes


def _shown(ax, points: NDArray) -> NDArray:
    return points.T[: 3 if ax.name == "3d" else 2]


def _cloud(ax, points: NDArray, colour: str | NDArray) -> int:
    """Points (n, d) on axes whose range is fixed; returns how many lie outside."""
    ax.scatter(*_shown(ax, points), s=2, c=colour, linewidths=0, rasterized=True)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x, y = points[:, 0], points[:, 1]
    return int((~((x >= left) & (x <= right) & (y >= bottom) & (y <= top))).sum())
