"""Figures of a network's parts (time embedding, attention, feature maps) and of image sets."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
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
from viz.style import literal, paper

# Dark at 0, blue below and orange above; brighter where the absolute value is larger.
SIGNED = LinearSegmentedColormap.from_list("signed", ["#bfe1ff", "#2f6db5", "#15171c", "#d65831", "#ffe2b8"])
PROBABILITIES = "magma"
PROBABILITY = "attention probability (every row sums to 1)"
CYAN = hex_colour(TRACKED)
OUTLINED = [withStroke(linewidth=2, foreground="black")]
GIVEN = "noisy input image"

# ---------------------------------------------------------------- time embedding


def time_embedding_heatmap(embedding: NDArray, timesteps: Sequence[int], every: NDArray) -> Figure:
    """Draw embeddings of a few timesteps, one in each row, above those of all timesteps.

    Args:
        embedding: (K, dim), of the K `timesteps`.
        timesteps: their numbers.
        every: (T, dim), of all timesteps.
    """
    dim = embedding.shape[1]
    figure = Figure(figsize=(10, 7), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.4])
    _embedding_cells(top, embedding)
    cells = _embedding_cells(bottom, every)
    top.set_yticks(range(len(timesteps)), [f"t = {t}" for t in timesteps])
    for at, half in ((0.25, "sin half"), (0.75, "cos half")):
        top.text(at, 1.02, half, transform=top.transAxes, ha="center", va="bottom")
    bottom.set(
        xlabel="dimension; in each half the frequency falls from left to right",
        ylabel=f"all t, 0 .. {len(every) - 1}",
    )
    figure.suptitle(
        f"sinusoidal time embedding, {dim} dimensions: brighter means larger in absolute value",
    )
    figure.colorbar(cells, ax=[top, bottom], label="value", ticks=[-1, -0.5, 0, 0.5, 1])
    return figure


def _embedding_cells(ax: Axes, embedding: NDArray) -> AxesImage:
    """Draw embeddings (K, dim) as rows of cells, with a line between the sin and the cos half."""
    cells = ax.imshow(
        embedding,
        cmap=SIGNED,
        vmin=-1,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
    )
    ax.axvline(embedding.shape[1] / 2 - 0.5, color="white", linewidth=1.5)
    return cells


def time_embedding_lines(
    embedding: NDArray,
    timesteps: Sequence[int],
    frequencies: NDArray,
) -> Figure:
    """Draw the first dimensions of the same embeddings, all of them sines, as lines.

    Args:
        embedding: (K, n), of the K `timesteps`.
        timesteps: their numbers.
        frequencies: (n,), in radians per timestep.
    """
    periods = 2 * np.pi / frequencies
    count = len(periods)
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    ax = figure.subplots()
    for i, (values, t) in enumerate(zip(embedding, timesteps)):
        ax.plot(values, ".-", color=f"C{i}", linewidth=1.2, markersize=4, label=f"t = {t}")
    ax.set(
        xlabel="dimension (all in the sin half)",
        ylabel="value",
        ylim=(-1.1, 1.1),
        xlim=(-1, count),
    )
    ax.set_title(
        f"time embedding, first {count} dimensions: changing fast with t on the left, slowly on the right",
    )
    marked = np.arange(0, count, 9)
    above = ax.secondary_xaxis("top")
    above.set_xticks(marked, [f"{periods[i]:.0f}" for i in marked])
    above.set_xlabel("period of that dimension, in timesteps")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    ax.grid(alpha=0.3)
    return figure


# ---------------------------------------------------------------- attention


def self_attention(
    weights: NDArray,
    causal: NDArray,
    title: str,
    image: NDArray | None = None,
    grid: Sequence[int] = (),
) -> Figure:
    """Draw the self-attention of one head, without a mask and with the causal mask.

    Args:
        weights, causal: attention weights (N, N), without and with that mask.
        title: of the figure.
        image: (C, H, W) in [-1, 1], the input of the network. Where `grid` is given as well, a
            second row shows it, and what a few of the pixels attend to.
        grid: (h, w), if the tokens are the pixels of a map of that size.
    """
    figure = Figure(figsize=(15, 11) if grid else (10, 4.9), layout="constrained")
    if grid:
        axes = figure.subplot_mosaic([[*"AAAABBBB"], [*"00112233"]], height_ratios=[1.4, 1])
    else:
        axes = figure.subplot_mosaic([[*"AAAABBBB"]])
    left = axes["A"]
    right = axes["B"]

    # The first token attends only to itself, so the largest causal weight is always 1. A quantile
    # is a better upper end of the scale.
    future = np.triu(np.ones_like(causal, dtype=bool), 1)
    highest = max(weights.max(), np.quantile(causal[~future], 0.95))
    _matrix(left, weights, highest, "without a mask: each token attends to all")
    visible = np.where(future, np.nan, causal)
    cells = _matrix(right, visible, highest, "causal mask: itself and those before")
    masked = "masked:\nexactly 0"
    right.text(0.96, 0.95, masked, transform=right.transAxes, ha="right", va="top", color="0.3")
    for ax in (left, right):
        ax.set(xlabel="key (attended to)", ylabel=f"query: {_token_name(grid)}")
    figure.colorbar(cells, ax=[left, right], label=PROBABILITY, extend="max", fraction=0.04)
    figure.suptitle(literal(title))
    if grid and image is not None:
        _attention_of_pixels([axes[name] for name in "0123"], weights, image, grid)
    return figure


def cross_attention(
    weights: NDArray,
    context: Sequence[str],
    title: str,
    image: NDArray | None = None,
    grid: Sequence[int] = (),
) -> Figure:
    """Draw the cross-attention of one head.

    Args:
        weights: attention weights (N, M) from N query tokens to M context tokens.
        context: the names of the context tokens.
        title: of the figure.
        image: (C, H, W) in [-1, 1], the input of the network. Where `grid` is given as well, more
            panels show it, and how much each pixel attends to each context token.
        grid: (h, w), if the queries are the pixels of a map of that size.
    """
    figure = Figure(figsize=(12 if grid else 6.4, 6), layout="constrained")
    axes = figure.subplot_mosaic(_cross_layout(context, grid), empty_sentinel=".")
    ax = axes["all"]
    highest = weights.max()
    cells = _matrix(ax, weights, highest, "from query tokens to context tokens", aspect="auto")
    ax.set(xlabel="key: context token", ylabel=f"query: {_token_name(grid)}")
    ax.set_xticks(range(len(context)), context, rotation=25)
    figure.colorbar(cells, ax=list(axes.values()), label=PROBABILITY)
    figure.suptitle(literal(title))
    if grid and image is not None:
        _picture(axes["input"], image, GIVEN)
        for i, name in enumerate(context):
            _matrix(axes[name], weights[:, i].reshape(grid), highest, f"attention to {name}")
            _name_map_axes(axes[name])
    return figure


def _cross_layout(context: Sequence[str], grid: Sequence[int]) -> list[Any]:
    """Return the rows of panels: a large one, and for pixels two rows of small ones beside it."""
    if not grid:
        return [["all"]]
    panels = ["input", *context]
    width = math.ceil(len(panels) / 2)
    panels += ["."] * (2 * width - len(panels))
    return [["all", "all", *panels[:width]], ["all", "all", *panels[width:]]]


def _attention_of_pixels(
    axes: Sequence[Axes],
    weights: NDArray,
    image: NDArray,
    grid: Sequence[int],
) -> None:
    """Mark three pixels of a map on the image, and draw for each a map of what it attends to.

    Args:
        axes: one for the image, then one for each of the three maps.
        weights: attention weights (h w, h w).
        image: (C, H, W).
        grid: (h, w), the size of the maps.
    """
    h, w = grid
    _picture(axes[0], image, GIVEN)
    image_pixels = np.array(image.shape[1:]) / grid  # of the image, for each pixel of the map
    chosen = [(h // 4, w // 2), (h // 2, w // 2), (3 * h // 4, w // 2)]
    maps = [weights[row * w + column].reshape(grid) for row, column in chosen]
    highest = float(np.max(maps))
    for i, (ax, pixel, probabilities) in enumerate(zip(axes[1:], chosen, maps), 1):
        _matrix(ax, probabilities, highest, f"what pixel {i} attends to, in per cent")
        _percentages(ax, probabilities, highest)
        _name_map_axes(ax)
        _mark_pixel(ax, pixel, np.ones(2), str(i))
        _mark_pixel(axes[0], pixel, image_pixels, str(i))
    scale = ScalarMappable(Normalize(0, highest), PROBABILITIES)
    axes[0].figure.colorbar(scale, ax=axes, label="the same, no mask", fraction=0.04)


def _mark_pixel(ax: Axes, pixel: tuple[int, int], size: NDArray, name: str) -> None:
    """Draw a frame around a pixel (row, column) of a map, with its name in the middle.

    Args:
        ax: of the map itself, or of a larger image.
        pixel: its place on the map.
        size: (height, width) of a pixel of the map, in pixels of what `ax` shows.
        name: what to write.
    """
    top, left = np.array(pixel) * size - 0.5
    height, width = size
    frame = Rectangle((left, top), width, height, fill=False, edgecolor=CYAN, linewidth=2)
    ax.add_patch(frame)
    ax.text(
        left + width / 2,
        top + height / 2,
        name,
        color=CYAN,
        ha="center",
        va="center",
        fontweight="bold",
        path_effects=OUTLINED,
    )


def _percentages(ax: Axes, probabilities: NDArray, highest: float) -> None:
    """Write each probability into its cell: light on dark cells and dark on light ones."""
    for (row, column), value in np.ndenumerate(probabilities):
        colour = "white" if value < 0.6 * highest else "black"
        text = f"{100 * value:.0f}"
        ax.text(column, row, text, color=colour, ha="center", va="center", fontsize="small")


def _token_name(grid: Sequence[int]) -> str:
    """Return what a token is: a pixel of a map, or a position in a sequence."""
    if not grid:
        return "position"
    height, width = grid
    return f"pixel of the {height}x{width} map, row by row"


def _name_map_axes(ax: Axes) -> None:
    ax.set(xlabel="column of the map", ylabel="row of the map")


def _matrix(
    ax: Axes,
    weights: NDArray,
    highest: float,
    title: str,
    aspect: Literal["equal", "auto"] = "equal",
) -> AxesImage:
    """Draw probabilities from 0 (dark) to `highest` (light); NaN is grey."""
    ax.set_facecolor("0.85")
    ax.set_title(literal(title), fontsize="medium")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    return ax.imshow(
        weights,
        cmap=PROBABILITIES,
        vmin=0,
        vmax=highest,
        aspect=aspect,
        interpolation="nearest",
    )


# ---------------------------------------------------------------- maps and images


def feature_maps(rows: Sequence[Sequence[tuple[str, NDArray]]], title: str) -> Figure:
    """Draw maps in rows, each with its name and its own scale.

    Args:
        rows: (name, values) of each panel. Values (H, W) are a map, values (C, H, W) an image.
        title: of the figure.
    """
    columns = max(len(panels) for panels in rows)
    figure = Figure(figsize=(4.3 * columns, 3.7 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axes_of_row, panels in zip(axes, rows):
        for ax in axes_of_row[len(panels) :]:
            ax.set_axis_off()
        for ax, (name, values) in zip(axes_of_row, panels):
            if values.ndim == 3:
                _picture(ax, values, name)
            else:
                cells = ax.imshow(values, cmap="viridis", interpolation="nearest")
                _name_pixel_axes(ax, name)
                figure.colorbar(cells, ax=ax, label="activation", fraction=0.046)
    figure.suptitle(literal(title))
    return figure


def images(rows: Sequence[Sequence[tuple[str, NDArray]]], title: str) -> Figure:
    """Draw images (C, H, W) in [-1, 1] in rows of equal length, each with its name."""
    height = len(rows)
    width = len(rows[0])
    figure = Figure(figsize=(3 * width + 1, 2.9 * height + 0.7), layout="constrained")
    axes = figure.subplots(height, width, squeeze=False)
    for axes_of_row, panels in zip(axes, rows):
        for ax, (name, image) in zip(axes_of_row, panels):
            _picture(ax, image, name)
            ax.set(xlabel="", ylabel="")
    figure.supxlabel("column of pixels", fontsize="medium")
    figure.supylabel("row of pixels", fontsize="medium")
    _, first_image = rows[0][0]
    if len(first_image) == 1:  # a colour bar makes no sense for colour images
        scale = ScalarMappable(Normalize(-1, 1), "gray")
        figure.colorbar(scale, ax=axes, label="value", fraction=0.04)
    figure.suptitle(literal(title))
    return figure


def image_grid(images: NDArray, names: Sequence[str], title: str, columns: int = 10) -> Figure:
    """Draw images in a grid, each under the name of its label.

    Args:
        images: (N, C, H, W) in [-1, 1].
        names: the name of each image's label, N of them.
        title: of the figure.
        columns: images in a row.
    """
    _, channels, height, width = images.shape
    rows = math.ceil(len(images) / columns)
    gap = max(2, height // 3)
    figure = Figure(figsize=(columns + 1.6, 0.95 * rows + 1.4), layout="constrained")
    ax = figure.subplots()
    drawn = ax.imshow(
        _grid_pixels(images, rows, columns, gap) / 255,
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    for i, name in enumerate(names):
        row, column = divmod(i, columns)
        middle = gap + column * (width + gap) + width / 2
        above = row * (height + gap) + gap - 1
        ax.text(middle, above, f"label {literal(name)}", ha="center", va="bottom", fontsize="small")
    _tick_image_ends(ax.xaxis, columns, width, gap)
    _tick_image_ends(ax.yaxis, rows, height, gap)
    ax.set(xlabel="column of pixels", ylabel="row of pixels", title=literal(title))
    ax.spines[:].set_visible(False)
    if channels == 1:
        label = "brightness (in the data set -1 .. 1)"
        figure.colorbar(drawn, ax=ax, label=label, shrink=0.8)
    return figure


def _grid_pixels(images: NDArray, rows: int, columns: int, gap: int) -> NDArray[np.uint8]:
    """Return the pixels of images (N, C, H, W) in a grid; gaps have the colour of the figure."""
    indices = np.arange(rows * columns).reshape(rows, columns)
    cells = np.where(indices < len(images), indices, -1)
    background = round(255 * to_rgb(paper())[0])
    return tiled(pixels(images), cells, gap, [background])


def _tick_image_ends(axis: Axis, count: int, side: int, gap: int) -> None:
    """Mark the first and the last pixel of each of `count` images along an axis."""
    places = []
    names = []
    for i in range(count):
        first = gap + i * (side + gap)
        places += [first, first + side - 1]
        names += ["0", str(side - 1)]
    axis.set_ticks(places, names, fontsize="x-small")


def label_histogram(counts: Mapping[str, int], title: str) -> Figure:
    """Draw how many images each label has."""
    figure = Figure(figsize=(max(6, 0.9 * len(counts)), 4.2), layout="constrained")
    ax = figure.subplots()
    bars = ax.bar([literal(name) for name in counts], list(counts.values()), color=BLUE)
    box = {"facecolor": paper(), "edgecolor": "none", "pad": 1}
    ax.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize="small", bbox=box)
    mean = sum(counts.values()) / len(counts)
    ax.axhline(
        mean,
        color=GREY,
        linestyle=":",
        zorder=0,
        label=f"equally many of each: {mean:,.0f}",
    )
    ax.set(xlabel="label (name of the folder)", ylabel="number of images", title=literal(title))
    ax.set_ylim(0, 1.2 * max(counts.values()))
    ax.legend(frameon=False, loc="upper right")
    return figure


def _picture(ax: Axes, image: NDArray, title: str) -> None:
    """Draw an image (C, H, W) in [-1, 1], grey or in colour."""
    shown = (image.transpose(1, 2, 0).clip(-1, 1) + 1) / 2
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _name_pixel_axes(ax, title)


def _name_pixel_axes(ax: Axes, title: str) -> None:
    ax.set_title(literal(title), fontsize="medium")
    ax.set(xlabel="column of pixels", ylabel="row of pixels")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
