"""Pictures of a comparison of samplers: what each makes of the same noise, and its error against the exact flow map."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metrics.flow_map import FlowMap
from metrics.sampler_comparison import EXACT, Comparison, Planned, Trial
from points.tables import Columns
from viz import image_grids
from viz.colours import DATA, GENERATED, PALETTE, hex_colour
from viz.point_axes import axes_in_words, axis_names
from viz.style import ink, paper

POINTS_SHOWN = 2000  # in a cell
SMALLEST_POINT = 0.7  # area of a point, in square points, where POINTS_SHOWN are drawn
LARGEST_POINT = 6.0
MIN_WIDTH = 6.6  # inches: of the lines of the title
MARGIN = 0.2  # around the data, in widths of the data
IMAGES_ACROSS = 16  # from left to right, in all cells of a row
ROWS_PER_CELL = 2
IMAGE_SIDE = 56  # pixels, about
CAPTION_HEIGHT = 26  # pixels below a cell
CELL_GAP = 12  # pixels between cells
# Of the curves of samplers, which nobody needs to tell apart by their colours alone.
MARKERS = "osD^vPX*<"
LINES = ("-", "--", "-.")
LEGEND_COLUMNS = 3


def sheet(found: Comparison, columns: Columns | None = None) -> Figure:
    """Rows: samplers. Columns: evaluations; for points once with the network and once with the exact denoiser.

    columns: the names of the coordinates, for points of a table.
    """
    if found.real.ndim == 4:
        return _image_sheet(found)
    return _point_sheet(found, axis_names(columns, found.real.shape[1]))


# ---------------------------------------------------------------- points


def _point_sheet(found: Comparison, names: Sequence[str]) -> Figure:
    columns = len(found.denoisers) * len(found.asked)
    figure = Figure(
        figsize=(max(MIN_WIDTH, 1.5 * columns + 0.6), 1.45 * len(found.samplers) + 1.2), layout="constrained"
    )
    lines = [
        "blue: samples, all from the same noise; grey: real data",
        "W1: sliced Wasserstein-1 distance between them;"
        f" other real data have {found.floors['sliced Wasserstein-1'].median:.3f}",
    ]
    if names:
        lines.append(axes_in_words(names))
    figure.suptitle("\n".join(lines), size="medium")
    blocks = figure.subfigures(1, len(found.denoisers), wspace=0.03, squeeze=False)
    for block, denoiser in zip(blocks[0], found.denoisers):
        block.suptitle(f"with the {denoiser}")
        axes = _data_axes(block, len(found.samplers), len(found.asked), found.real)
        for row, sampler in zip(axes, found.samplers):
            _write_left_of(row[0], sampler)
            for ax, n in zip(row, found.asked):
                planned = found.planned(sampler, n)
                if planned.steps is None:
                    _draw_empty_cell(ax, planned)
                    continue
                ax.set_title(evaluations_text(planned), size="small", pad=3)
                _draw_cell(ax, found.real, found.trial(denoiser, sampler, n))
    return figure


def evaluations_text(planned: Planned) -> str:
    """The evaluations that a sampler makes and, where they are fewer, those that it may make."""
    if planned.steps is None:
        return f"makes {planned.evaluations} or more"
    if planned.evaluations == planned.asked:
        return f"{planned.evaluations} evaluations"
    return f"{planned.evaluations} evaluations (of {planned.asked})"


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


def _draw_empty_cell(ax, planned: Planned) -> None:
    """Say why there are no samples: the sampler cannot keep to so few evaluations."""
    ax.set_title(f"at most {planned.asked} evaluations", size="small", pad=3)
    flat = {"z": 0} if ax.name == "3d" else {}
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    x, y = (low + high) / 2
    ax.text(x, y, *flat.values(), f"left out:\n{evaluations_text(planned)}", ha="center", va="center", size="x-small")


def _draw_cell(ax, real: NDArray, trial: Trial) -> None:
    """Samples over real data in grey; below them the first figure, and the share that lies outside of the picture."""
    d = 3 if ax.name == "3d" else 2
    for points, colour in ((real, DATA), (trial.samples, GENERATED)):
        shown = points[:POINTS_SHOWN, :d].T
        ax.scatter(*shown, s=_point_size(len(points)), color=hex_colour(colour), linewidths=0, rasterized=True)
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    x = trial.samples[:, :2]
    inside = ((x >= low) & (x <= high)).all(1)
    outside = 1 - float(inside.mean())
    text = f"W1 {trial.figures['sliced Wasserstein-1']:.3f}"
    if outside > 0.005:
        text += f", {outside:.0%} outside"
    _write_below(ax, text)


def _point_size(count: int) -> float:
    """The area of each of `count` points, in square points: few points are drawn larger."""
    return min(LARGEST_POINT, max(SMALLEST_POINT, SMALLEST_POINT * POINTS_SHOWN / count))


def _write_left_of(ax, text: str) -> None:
    """The name of a row. The label of a 3D axis would follow the axis, and lie on other cells."""
    if ax.name == "3d":
        ax.text2D(-0.02, 0.5, text, rotation=90, ha="center", va="center", transform=ax.transAxes)
    else:
        ax.set_ylabel(text)


def _write_below(ax, text: str) -> None:
    """The caption of a cell, in one place for 2D and for 3D axes."""
    if ax.name == "3d":
        ax.text2D(0.5, 0.0, text, size="x-small", ha="center", va="top", transform=ax.transAxes)
    else:
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
        [f"at most {n} evaluations" for n in found.asked],
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
            samples = np.full_like(found.real, np.nan)
            if found.planned(sampler, n).steps is not None:
                samples = found.trial(found.denoisers[0], sampler, n).samples
            blocks.append(_image_block(samples, columns))
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
            planned = found.planned(sampler, n)
            caption = evaluations_text(planned)
            if planned.steps is None:
                captions.append(f"left out: {caption}")
                continue
            trial = found.trial(found.denoisers[0], sampler, n)
            captions.append(f"{caption}, FD {trial.figures['Frechet distance']:.2f}")
    captions.append(f"FD {floor.median:.2f} [{floor.low:.2f}, {floor.high:.2f}]")
    return captions + [""] * (len(found.asked) - 1)


# ---------------------------------------------------------------- the flow map


def flow_map(flow: FlowMap) -> Figure:
    """Errors over evaluations, log-log: with the exact denoiser the sampler's, with the network both."""
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    for ax, (denoiser, errors) in zip(figure.subplots(1, 2, sharey=True), flow.errors.items()):
        for i, (sampler, error) in enumerate(errors.items()):
            ax.plot(
                flow.evaluations[sampler],
                error,
                color=hex_colour(PALETTE[i % len(PALETTE)]),
                marker=MARKERS[i % len(MARKERS)],
                linestyle=LINES[i % len(LINES)],
                markersize=4.5,
                linewidth=1.3,
                label=_named_with_slope(sampler, flow.slopes[sampler]),
            )
        own = "the sampler's error alone" if denoiser == EXACT else "the network's error added"
        ax.set(xscale="log", yscale="log", xlabel="evaluations", title=f"with the {denoiser}: {own}")
        ax.title.set_fontsize("medium")
        counts = max(flow.evaluations.values())  # samplers of two evaluations a step make no even number of them
        ax.set_xticks(counts, [str(n) for n in counts], minor=False)
        ax.minorticks_off()
        ax.grid(alpha=0.3)

    first = figure.axes[0]
    first.set_ylabel("median distance, in standard deviations of the data")
    first.axhline(flow.last_step, color=ink(), linestyle=":", linewidth=1.3)
    text = "dotted: error of the last\ntransition alone"
    if "adams" in flow.slopes:
        text += ", onto\nwhich all but adams end"
    first.annotate(
        text, (0.02, flow.last_step), (0, -4), first.get_yaxis_transform(), "offset points", va="top", size="small"
    )
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False)
    figure.suptitle("distance of a sampler's ends from those of the exact probability flow, from the same noise")
    return figure


def _named_with_slope(sampler: str, slope: float) -> str:
    """The name of a sampler and, where it is known, the slope of its error."""
    if math.isnan(slope):
        return sampler
    return f"{sampler}: error ~ evaluations$^{{-{slope:.1f}}}$"
