"""Pictures of a comparison of samplers: what each makes of the same noise, and its error against the exact flow map."""

import math

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metrics.flow_map import FlowMap
from metrics.sampler_comparison import EXACT, Comparison, Trial
from viz import image_grids
from viz.colours import DATA, GENERATED, PALETTE, hex_colour
from viz.style import ink, paper

POINTS_SHOWN = 2000  # in a cell
MARGIN = 0.2  # around the data, in widths of the data
IMAGES_ACROSS = 16  # from left to right, in all cells of a row
ROWS_PER_CELL = 2
IMAGE_SIDE = 56  # pixels, about
CAPTION_HEIGHT = 26  # pixels below a cell
CELL_GAP = 12  # pixels between cells


def sheet(found: Comparison) -> Figure:
    """Rows: samplers. Columns: evaluations; for points once with the network and once with the exact denoiser."""
    return _image_sheet(found) if found.real.ndim == 4 else _point_sheet(found)


# ---------------------------------------------------------------- points


def _point_sheet(found: Comparison) -> Figure:
    columns = len(found.denoisers) * len(found.asked)
    figure = Figure(figsize=(1.5 * columns + 0.6, 1.45 * len(found.samplers) + 1.2), layout="constrained")
    figure.suptitle(
        "blue: samples, all from the same noise; grey: real data\nW1: distance between them;"
        f" of other real data {found.floors['sliced Wasserstein-1'].median:.3f}",
        size="medium",
    )
    blocks = figure.subfigures(1, len(found.denoisers), wspace=0.03, squeeze=False)
    for block, denoiser in zip(blocks[0], found.denoisers):
        block.suptitle(f"with the {denoiser}")
        axes = _data_axes(block, len(found.samplers), len(found.asked), found.real)
        for row, sampler in zip(axes, found.samplers):
            row[0].set_ylabel(sampler)
            for ax, n in zip(row, found.asked):
                if sampler == found.samplers[0]:
                    ax.set_title(f"{n} evaluations", size="small")
                _draw_cell(ax, found.real, found.trial(denoiser, sampler, n))
    return figure


def _data_axes(block, rows: int, columns: int, data: NDArray) -> NDArray:
    """Axes (rows, columns), all with the range of the data (N, d) and a margin."""
    d = min(3, data.shape[1])
    axes = block.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "3d"} if d == 3 else {})
    low = data.min(0)
    high = data.max(0)
    margin = MARGIN * np.where(high > low, high - low, 1)
    for ax in axes.flat:
        for i, axis in enumerate("xyz"[:d]):
            ax.set(**{f"{axis}lim": (low[i] - margin[i], high[i] + margin[i]), f"{axis}ticks": []})
    return axes


def _draw_cell(ax, real: NDArray, trial: Trial) -> None:
    """Samples over real data in grey; below them the first figure, and the share that lies outside of the picture."""
    d = 3 if ax.name == "3d" else 2
    for points, colour in ((real, DATA), (trial.samples, GENERATED)):
        shown = points[:POINTS_SHOWN, :d].T
        ax.scatter(*shown, s=0.7, color=hex_colour(colour), linewidths=0, rasterized=True)
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    x = trial.samples[:, :2]
    inside = ((x >= low) & (x <= high)).all(1)
    outside = 1 - float(inside.mean())
    text = f"W1 {trial.figures['sliced Wasserstein-1']:.3f}"
    if outside > 0.005:
        text += f", {outside:.0%} outside"
    ax.set_xlabel(text, size="x-small", labelpad=2)


# ---------------------------------------------------------------- images


def _image_sheet(found: Comparison) -> Figure:
    """Each cell: images from the same noise and, for a conditional model, of the same labels; last row: real images."""
    ground = [round(255 * part) for part in to_rgb(paper())]
    blocks = _captioned_blocks(found, ground)
    width = len(found.asked)
    cells = np.arange(len(blocks)).reshape(-1, width)
    title = (
        "images by every sampler, all from the same noise; below them real ones\n"
        f"FD: Frechet distance of {len(found.real):,} images from real ones, as a small classifier sees them (no unit):"
        "\nless is better, and the last row, of other real images, has what is left at best (median, 90 % band)"
    )
    picture = image_grids.Sheet(
        image_grids.tiled(blocks, cells, CELL_GAP, ground),
        title,
        [*found.samplers, "real images"],
        [f"{n} evaluations" for n in found.asked],
    )

    (ax,) = picture.figure.axes
    _, block_height, block_width, _ = blocks.shape
    for (i, k), caption in zip(np.ndindex(cells.shape), _captions(found)):
        x = CELL_GAP + k * (block_width + CELL_GAP) + block_width / 2
        y = (i + 1) * (block_height + CELL_GAP) - CAPTION_HEIGHT + 3
        ax.text(x, y, caption, ha="center", va="top", size=image_grids.NAME)
    return picture.figure


def _captioned_blocks(found: Comparison, ground: list[int]) -> NDArray[np.uint8]:
    """The pixels of all cells, row by row, each with room for its caption: (cells, H, W, 3)."""
    width = len(found.asked)
    columns = max(2, IMAGES_ACROSS // width)
    blocks = []
    for sampler in found.samplers:
        for n in found.asked:
            blocks.append(_image_block(found.trial(found.denoisers[0], sampler, n).samples, columns))
    places = np.arange(ROWS_PER_CELL * columns * width).reshape(width, -1) % len(found.real)
    for real in found.real[places]:
        blocks.append(_image_block(real, columns))

    pixels = np.array(blocks)
    room = np.broadcast_to(np.array(ground, np.uint8), (len(pixels), CAPTION_HEIGHT, *pixels.shape[2:]))
    return np.concatenate([pixels, room], 1)


def _image_block(images: NDArray, columns: int) -> NDArray[np.uint8]:
    """The first images (N, C, H, W) in ROWS_PER_CELL rows of so many columns."""
    count = ROWS_PER_CELL * columns
    some = np.nan_to_num(images[:count], nan=-1.0)
    cells = image_grids.Grid(np.arange(count).reshape(ROWS_PER_CELL, columns), [])
    return image_grids.grid_picture(some, cells, IMAGE_SIDE)


def _captions(found: Comparison) -> list[str]:
    """The caption of each cell; in the row of real images only the first has one."""
    floor = found.floors["Frechet distance"]
    captions = []
    for sampler in found.samplers:
        for n in found.asked:
            trial = found.trial(found.denoisers[0], sampler, n)
            captions.append(f"FD {trial.figures['Frechet distance']:.2f}")
    captions.append(f"FD {floor.median:.2f} [{floor.low:.2f}, {floor.high:.2f}]")
    return captions + [""] * (len(found.asked) - 1)


# ---------------------------------------------------------------- the flow map


def flow_map(flow: FlowMap) -> Figure:
    """Errors over evaluations, log-log: with the exact denoiser the sampler's, with the network both."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    for ax, (denoiser, errors) in zip(figure.subplots(1, 2, sharey=True), flow.errors.items()):
        for i, (sampler, error) in enumerate(errors.items()):
            label = sampler
            slope = flow.slopes[sampler]
            if denoiser == EXACT and not math.isnan(slope):
                label += f": slope {-slope:.1f}"
            ax.plot(flow.evaluations[sampler], error, "o-", color=hex_colour(PALETTE[i]), label=label, markersize=3.5)
        own = "the sampler's error alone" if denoiser == EXACT else "its own error comes on top"
        ax.set(xscale="log", yscale="log", xlabel="evaluations", title=f"with the {denoiser}: {own}")
        counts = max(flow.evaluations.values())  # samplers of two evaluations a step make no even number of them
        ax.set_xticks(counts, [str(n) for n in counts], minor=False)
        ax.minorticks_off()
        ax.grid(alpha=0.3)

    first = figure.axes[0]
    label = "the last step alone, onto the prediction of x_0"
    if "adams" in flow.slopes:
        label += " (adams takes another)"
    first.axhline(flow.last_step, color=ink(), linestyle=":", linewidth=1, label=label)
    figure.legend(
        *first.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize="small"
    )
    first.set_ylabel("median distance, in standard deviations of the data")
    figure.suptitle("how far samplers end from where the exact probability flow carries the same x_T")
    return figure
