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

SHOWN, MARGIN = 2000, 0.2  # points in a cell; around the data, in widths of them
ACROSS, ROWS, SIDE = 16, 2, 56  # images from left to right, and in a cell from top to bottom; pixels of each, about
CAPTION, APART = 26, 12  # pixels: room for the words below a cell, and between cells


def sheet(found: Comparison) -> Figure:
    """Rows: samplers. Columns: evaluations; for points once with the network and once with the exact denoiser."""
    return _images(found) if found.real.ndim == 4 else _points(found)


def _points(found: Comparison) -> Figure:
    columns = [(d, n) for d in found.denoisers for n in found.asked]
    figure = Figure(figsize=(1.5 * len(columns) + 0.6, 1.45 * len(found.samplers) + 1.2), layout="constrained")
    figure.suptitle(
        "blue: samples, all from the same noise; grey: real data\nW1: distance between them;"
        f" of other real data {found.floors['sliced Wasserstein-1'].median:.3f}",
        size="medium",
    )
    blocks = figure.subfigures(1, len(found.denoisers), wspace=0.03, squeeze=False)
    for block, denoiser in zip(blocks[0], found.denoisers):
        block.suptitle(f"with the {denoiser}")
        axes = _axes(block, len(found.samplers), len(found.asked), found.real)
        for row, sampler in zip(axes, found.samplers):
            row[0].set_ylabel(sampler)
            for ax, n in zip(row, found.asked):
                if sampler == found.samplers[0]:
                    ax.set_title(f"{n} evaluations", size="small")
                _cell(ax, found.real, found.of(denoiser, sampler, n))
    return figure


def _axes(block, rows: int, columns: int, data: NDArray) -> NDArray:
    """Axes (rows, columns), all of the range of the data (N, d) with a margin."""
    d = min(3, data.shape[1])
    axes = block.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "3d"} if d == 3 else {})
    low, high = data.min(0), data.max(0)
    margin = MARGIN * np.where(high > low, high - low, 1)
    for ax in axes.flat:
        for i, axis in enumerate("xyz"[:d]):
            ax.set(**{f"{axis}lim": (low[i] - margin[i], high[i] + margin[i]), f"{axis}ticks": []})
    return axes


def _cell(ax, real: NDArray, trial: Trial) -> None:
    """Samples over real data in grey; below them the first figure, and how many lie outside of the picture."""
    d = 3 if ax.name == "3d" else 2
    for points, colour in ((real, DATA), (trial.samples, GENERATED)):
        ax.scatter(*points[:SHOWN, :d].T, s=0.7, color=hex_colour(colour), linewidths=0, rasterized=True)
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    x = trial.samples[:, :2]
    outside = 1 - float(((x >= low) & (x <= high)).all(1).mean())
    words = f"W1 {trial.figures['sliced Wasserstein-1']:.3f}" + (f", {outside:.0%} outside" if outside > 0.005 else "")
    ax.set_xlabel(words, size="x-small", labelpad=2)


def _images(found: Comparison) -> Figure:
    """In each cell images of the same noise and, of a conditional model, of the same labels; at last real ones."""
    trials = [found.of(found.denoisers[0], s, n) for s in found.samplers for n in found.asked]
    columns, wide = max(2, ACROSS // len(found.asked)), len(found.asked)
    places = np.arange(ROWS * columns * wide).reshape(wide, -1) % len(found.real)
    blocks = np.array([_block(x, columns) for x in (*(t.samples for t in trials), *found.real[places])])
    ground = [round(255 * part) for part in to_rgb(paper())]
    room = np.broadcast_to(np.array(ground, np.uint8), (len(blocks), CAPTION, *blocks.shape[2:]))
    blocks = np.concatenate([blocks, room], 1)
    cells, floor = np.arange(len(blocks)).reshape(-1, wide), found.floors["Frechet distance"]
    title = (
        "images by every sampler, all from the same noise; below them real ones\n"
        f"FD: Frechet distance of {len(found.real):,} images from real ones, as a small classifier sees them (no unit):"
        "\nless is better, and the last row, of other real images, has what is left at best (median, 90 % band)"
    )
    captions = [f"FD {t.figures['Frechet distance']:.2f}" for t in trials]
    captions += [f"FD {floor.median:.2f} [{floor.low:.2f}, {floor.high:.2f}]"] + [""] * (wide - 1)
    heads = [f"{n} evaluations" for n in found.asked]
    sheet = image_grids.Sheet(
        image_grids.tiled(blocks, cells, APART, ground), title, [*found.samplers, "real images"], heads
    )
    (ax,), (_, h, w, _) = sheet.figure.axes, blocks.shape
    for (i, k), words in zip(np.ndindex(cells.shape), captions):
        x, y = APART + k * (w + APART) + w / 2, (i + 1) * (h + APART) - CAPTION + 3
        ax.text(x, y, words, ha="center", va="top", size=image_grids.NAME)
    return sheet.figure


def _block(images: NDArray, columns: int) -> NDArray[np.uint8]:
    """The first images (N, C, H, W) in ROWS rows of so many columns."""
    some = np.nan_to_num(images[: ROWS * columns], nan=-1.0)
    cells = image_grids.Grid(np.arange(ROWS * columns).reshape(ROWS, columns), [])
    return image_grids.grid_picture(some, cells, SIDE)


def flow_map(flow: FlowMap) -> Figure:
    """Errors over evaluations, log-log: with the exact denoiser the sampler's, with the network both."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    for ax, (denoiser, errors) in zip(figure.subplots(1, 2, sharey=True), flow.errors.items()):
        for i, (sampler, error) in enumerate(errors.items()):
            label, slope = sampler, flow.slopes[sampler]
            if denoiser == EXACT and not math.isnan(slope):
                label += f": slope {-slope:.1f}"
            ax.plot(flow.evaluations[sampler], error, "o-", color=hex_colour(PALETTE[i]), label=label, markersize=3.5)
        own = "the sampler's error alone" if denoiser == EXACT else "its own error comes on top"
        ax.set(xscale="log", yscale="log", xlabel="evaluations", title=f"with the {denoiser}: {own}")
        counts = max(flow.evaluations.values())  # those of two evaluations a step make none of an even number
        ax.set_xticks(counts, [str(n) for n in counts], minor=False)
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    first = figure.axes[0]
    words = "the last step alone, onto the guess of x_0" + (" (adams takes another)" if "adams" in flow.slopes else "")
    first.axhline(flow.last_step, color=ink(), linestyle=":", linewidth=1, label=words)
    figure.legend(
        *first.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize="small"
    )
    first.set_ylabel("median distance, in standard deviations of the data")
    figure.suptitle("how far samplers end from where the exact probability flow carries the same x_T")
    return figure
