"""Figures of a network's parts (time embedding, attention, feature maps) and of image sets; stills.save writes them."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from viz.colours import TRACKED, hex_colour
from viz.image_grids import pixels, tiled
from viz.stills import BLUE, GREY
from viz.style import paper

# dark at 0, blue below and orange above, and brighter with the absolute value
SIGNED = LinearSegmentedColormap.from_list("signed", ["#bfe1ff", "#2f6db5", "#15171c", "#d65831", "#ffe2b8"])
PROBABILITY = "attention probability (every row sums to 1)"
CYAN, OUTLINED = hex_colour(TRACKED), [withStroke(linewidth=2, foreground="black")]
GIVEN = "noisy input image"

# ---------------------------------------------------------------- time embedding


def time_embedding_heatmap(embedding: NDArray, timesteps: Sequence[int], every: NDArray) -> Figure:
    """Embeddings (K, dim) of K timesteps, one row each; below, those of all timesteps (T, dim)."""
    dim = embedding.shape[1]
    figure = Figure(figsize=(10, 7), layout="constrained")
    some, whole = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.4])
    for ax, values in ((some, embedding), (whole, every)):
        cells = ax.imshow(values, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        ax.axvline(dim / 2 - 0.5, color="white", linewidth=1.5)
    some.set_yticks(range(len(timesteps)), [f"t = {t}" for t in timesteps])
    whole.set(
        xlabel="dimension; in each half the frequency falls from left to right", ylabel=f"all t, 0 .. {len(every) - 1}"
    )
    figure.suptitle(f"sinusoidal time embedding, {dim} dimensions: brighter means larger in absolute value")
    for at, half in ((0.25, "sin half"), (0.75, "cos half")):
        some.text(at, 1.02, half, transform=some.transAxes, ha="center", va="bottom")
    figure.colorbar(cells, ax=[some, whole], label="value", ticks=[-1, -0.5, 0, 0.5, 1])
    return figure


def time_embedding_lines(embedding: NDArray, timesteps: Sequence[int], frequencies: NDArray) -> Figure:
    """The first dimensions of the same embeddings (K, n), all sines, of these frequencies (n,) in radians per step."""
    periods = 2 * np.pi / frequencies
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    ax = figure.subplots()
    for i, (values, t) in enumerate(zip(embedding, timesteps)):
        ax.plot(values, ".-", color=f"C{i}", linewidth=1.2, markersize=4, label=f"t = {t}")
    ax.set(xlabel="dimension (all in the sin half)", ylabel="value", ylim=(-1.1, 1.1), xlim=(-1, len(periods)))
    ax.set_title(
        f"time embedding, first {len(periods)} dimensions: changing fast with t on the left, slowly on the right"
    )
    at = np.arange(0, len(periods), 9)
    above = ax.secondary_xaxis("top")
    above.set_xticks(at, [f"{periods[i]:.0f}" for i in at])
    above.set_xlabel("period of that dimension, in timesteps")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    ax.grid(alpha=0.3)
    return figure


# ---------------------------------------------------------------- attention


def self_attention(
    weights: NDArray, causal: NDArray, title: str, image: NDArray | None = None, grid: Sequence[int] = ()
) -> Figure:
    """One head's attention weights (N, N), without a mask and with the causal one.

    If the tokens are the pixels of a map of size `grid` (h, w), a second row has the image (C, H, W) in [-1, 1] that
    the network was given, and what a few of the pixels attend to.
    """
    figure = Figure(figsize=(15, 11) if grid else (10, 4.9), layout="constrained")
    rows = ["AAAABBBB", "00112233"] if grid else ["AAAABBBB"]
    axes = figure.subplot_mosaic([list(row) for row in rows], height_ratios=[1.4, 1][: len(rows)])
    future = np.triu(np.ones_like(causal, dtype=bool), 1)
    highest = max(weights.max(), np.quantile(causal[~future], 0.95))  # the first token has only itself: always 1
    _matrix(axes["A"], weights, highest, "without a mask: each token attends to all")
    cells = _matrix(axes["B"], np.where(future, np.nan, causal), highest, "causal mask: itself and those before")
    axes["B"].text(0.96, 0.95, "masked:\nexactly 0", transform=axes["B"].transAxes, ha="right", va="top", color="0.3")
    for name in "AB":
        axes[name].set(xlabel="key (attended to)", ylabel=f"query: {_tokens(grid)}")
    figure.colorbar(cells, ax=[axes["A"], axes["B"]], label=PROBABILITY, extend="max", fraction=0.04)
    figure.suptitle(title)
    if grid and image is not None:
        _attended([axes[i] for i in "0123"], weights, image, grid)
    return figure


def cross_attention(
    weights: NDArray, context: Sequence[str], title: str, image: NDArray | None = None, grid: Sequence[int] = ()
) -> Figure:
    """One head's attention weights (N, M) from N query tokens to M context tokens, called `context`.

    If the queries are the pixels of a map of size `grid` (h, w), further panels have the image (C, H, W) in [-1, 1]
    that the network was given, and how much each pixel attends to each context token.
    """
    figure = Figure(figsize=(12 if grid else 6.4, 6), layout="constrained")
    width, panels = -(-(len(context) + 1) // 2), ["input", *context]
    names = [*panels, *["."] * width][: 2 * width]
    axes = figure.subplot_mosaic(
        [["all", "all", *names[:width]], ["all", "all", *names[width:]]] if grid else [["all"]], empty_sentinel="."
    )
    cells = _matrix(axes["all"], weights, weights.max(), "from query tokens to context tokens", aspect="auto")
    axes["all"].set(xlabel="key: context token", ylabel=f"query: {_tokens(grid)}")
    axes["all"].set_xticks(range(len(context)), context, rotation=25)
    figure.colorbar(cells, ax=list(axes.values()), label=PROBABILITY)
    figure.suptitle(title)
    if grid and image is not None:
        _picture(axes["input"], image, GIVEN)
        for i, name in enumerate(context):
            _matrix(axes[name], weights[:, i].reshape(grid), weights.max(), f"attention to {name}")
            axes[name].set(xlabel="column of the map", ylabel="row of the map")
    return figure


def _attended(axes: Sequence[Axes], weights: NDArray, image: NDArray, grid: Sequence[int]) -> None:
    """The image with three pixels of the map marked on it, and for each of them a map of what it attends to."""
    h, w = grid
    _picture(axes[0], image, GIVEN)
    chosen = [(h // 4, w // 2), (h // 2, w // 2), (3 * h // 4, w // 2)]
    maps = [weights[row * w + column].reshape(grid) for row, column in chosen]
    shared = Normalize(0, np.max(maps))
    for i, (ax, at, probabilities) in enumerate(zip(axes[1:], chosen, maps), 1):
        _matrix(ax, probabilities, shared.vmax, f"what pixel {i} attends to, in per cent")
        _percentages(ax, probabilities, float(np.max(maps)))
        ax.set(xlabel="column of the map", ylabel="row of the map")
        for place, size in ((ax, np.ones(2)), (axes[0], np.array(image.shape[1:]) / grid)):
            (top, left), (height, width) = np.array(at) * size - 0.5, size
            place.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=CYAN, linewidth=2))
            x, y = left + width / 2, top + height / 2
            place.text(x, y, str(i), color=CYAN, ha="center", va="center", fontweight="bold", path_effects=OUTLINED)
    axes[0].figure.colorbar(ScalarMappable(shared, "magma"), ax=axes, label="the same, no mask", fraction=0.04)


def _percentages(ax: Axes, probabilities: NDArray, highest: float) -> None:
    """Each of a few probabilities as a number in its cell, light on a dark one and dark on a light one."""
    for (row, column), value in np.ndenumerate(probabilities):
        colour = "white" if value < 0.6 * highest else "black"
        ax.text(column, row, f"{100 * value:.0f}", color=colour, ha="center", va="center", fontsize="small")


def _tokens(grid: Sequence[int]) -> str:
    return f"pixel of the {grid[0]}x{grid[1]} map, row by row" if grid else "position"


def _matrix(
    ax: Axes, weights: NDArray, highest: float | None, title: str, aspect: Literal["equal", "auto"] = "equal"
) -> AxesImage:
    """Probabilities from 0 (dark) to `highest`; NaN is grey."""
    ax.set_facecolor("0.85")
    ax.set_title(title, fontsize="medium")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    return ax.imshow(weights, cmap="magma", vmin=0, vmax=highest, aspect=aspect, interpolation="nearest")


# ---------------------------------------------------------------- maps and images


def feature_maps(rows: Sequence[Sequence[tuple[str, NDArray]]], title: str) -> Figure:
    """Maps (H, W) in rows, each with its name and its own scale; images (C, H, W) are drawn as such."""
    columns = max(map(len, rows))
    figure = Figure(figsize=(4.3 * columns, 3.7 * len(rows) + 0.5), layout="constrained")
    for line, named in zip(figure.subplots(len(rows), columns, squeeze=False), rows):
        for ax in line[len(named) :]:
            ax.set_axis_off()
        for ax, (name, values) in zip(line, named):
            if values.ndim == 3:
                _picture(ax, values, name)
                continue
            cells = ax.imshow(values, cmap="viridis", interpolation="nearest")
            _pixels(ax, name)
            figure.colorbar(cells, ax=ax, label="activation", fraction=0.046)
    figure.suptitle(title)
    return figure


def images(rows: Sequence[Sequence[tuple[str, NDArray]]], title: str) -> Figure:
    """Images (C, H, W) in [-1, 1] in rows, each with its name."""
    figure = Figure(figsize=(3 * len(rows[0]) + 1, 2.9 * len(rows) + 0.7), layout="constrained")
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for ax, (name, image) in zip(axes.ravel(), [named for row in rows for named in row]):
        _picture(ax, image, name)
        ax.set(xlabel="", ylabel="")
    figure.supxlabel("column of pixels", fontsize="medium")
    figure.supylabel("row of pixels", fontsize="medium")
    if len(rows[0][0][1]) == 1:  # a colour bar makes no sense for colour images
        figure.colorbar(ScalarMappable(Normalize(-1, 1), "gray"), ax=axes, label="value", fraction=0.04)
    figure.suptitle(title)
    return figure


def image_grid(images: NDArray, names: Sequence[str], title: str, columns: int = 10) -> Figure:
    """Images (N, C, H, W) in [-1, 1], each under the name of its label."""
    cells = np.arange(-(-len(images) // columns) * columns).reshape(-1, columns)
    (rows, _), (height, width) = cells.shape, images.shape[2:]
    gap = max(2, height // 3)
    whole = tiled(pixels(images), np.where(cells < len(images), cells, -1), gap, [round(255 * to_rgb(paper())[0])])
    figure = Figure(figsize=(columns + 1.6, 0.95 * rows + 1.4), layout="constrained")
    ax = figure.subplots()
    drawn = ax.imshow(whole / 255, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for i, name in enumerate(names):
        row, column = divmod(i, columns)
        x, y = gap + column * (width + gap) + width / 2, row * (height + gap) + gap - 1
        ax.text(x, y, f"label {name}", ha="center", va="bottom", fontsize="small")
    for axis, count, side in ((ax.xaxis, columns, width), (ax.yaxis, rows, height)):
        ends = [gap + i * (side + gap) + end for i in range(count) for end in (0, side - 1)]
        axis.set_ticks(ends, ["0", str(side - 1)] * count, fontsize="x-small")
    ax.set(xlabel="column of pixels", ylabel="row of pixels", title=title)
    ax.spines[:].set_visible(False)
    if images.shape[1] == 1:
        figure.colorbar(drawn, ax=ax, label="brightness (in the data set -1 .. 1)", shrink=0.8)
    return figure


def label_histogram(counts: Mapping[str, int], title: str) -> Figure:
    """How many images each label has."""
    figure = Figure(figsize=(max(6, 0.9 * len(counts)), 4.2), layout="constrained")
    ax = figure.subplots()
    bars = ax.bar(list(counts), list(counts.values()), color=BLUE)
    on_paper = {"facecolor": paper(), "edgecolor": "none", "pad": 1}
    ax.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize="small", bbox=on_paper)
    even = sum(counts.values()) / len(counts)
    ax.axhline(even, color=GREY, linestyle=":", zorder=0, label=f"equally many of each: {even:,.0f}")
    ax.set(xlabel="label (name of the folder)", ylabel="number of images", title=title)
    ax.set_ylim(0, 1.2 * max(counts.values()))
    ax.legend(frameon=False, loc="upper right")
    return figure


def _picture(ax: Axes, image: NDArray, title: str) -> None:
    """An image (C, H, W) in [-1, 1], grey or in colour."""
    ax.imshow((image.transpose(1, 2, 0).clip(-1, 1) + 1) / 2, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _pixels(ax, title)


def _pixels(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize="medium")
    ax.set(xlabel="column of pixels", ylabel="row of pixels")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
