"""Pictures of a comparison of samplers: what each makes of the same noise, and its error against the exact flow map."""

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metrics.compare import EXACT, Comparison, Trial
from metrics.flow_map import FlowMap
from viz import image_grids
from viz.colours import DATA, GENERATED, PALETTE, hex_colour
from viz.style import ink

SHOWN, ROWS, COLUMNS = 2000, 2, 3  # points in a cell; images in a cell
MARGIN = 0.2  # around the data, in widths of them


def sheet(found: Comparison) -> Figure:
    """Rows: samplers. Columns: evaluations; for points once with the network and once with the exact denoiser."""
    return _images(found) if found.real.ndim == 4 else _points(found)


def _points(found: Comparison) -> Figure:
    columns = [(d, n) for d in found.denoisers for n in found.asked]
    figure = Figure(figsize=(1.5 * len(columns) + 0.6, 1.45 * len(found.samplers) + 1.2), layout="constrained")
    figure.suptitle("blue: samples, all from the same noise; grey: real data; W1: distance between them", size="medium")
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
    """In each cell images of the same noise and, of a conditional model, of the same labels."""
    cells = np.array([
        [_block(found.of(found.denoisers[0], s, n).samples) for n in found.asked] for s in found.samplers
    ])  # fmt: skip
    figures = [[found.of(found.denoisers[0], s, n).figures for n in found.asked] for s in found.samplers]
    rows = [
        f"{s}\nFD " + "  ".join(_digits(f["Frechet distance"]) for f in row) for s, row in zip(found.samplers, figures)
    ]
    floor = _digits(found.floors["Frechet distance"].median)
    title = f"images of the same noise by every sampler; FD: Frechet distance, left to right (real images: {floor})"
    return image_grids.table(cells, title, rows, [f"{n} evaluations" for n in found.asked], side=150)


def _digits(value: float) -> str:
    """Two of them that count, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _block(images: NDArray) -> NDArray:
    """The first images (N, C, H, W) as one, a pixel apart: (C, ROWS (H + 1), COLUMNS (W + 1))."""
    some = np.pad(images[: ROWS * COLUMNS], ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.0)
    some = np.nan_to_num(some, nan=-1.0)
    _, c, h, w = some.shape
    return some.reshape(ROWS, COLUMNS, c, h, w).transpose(2, 0, 3, 1, 4).reshape(c, ROWS * h, COLUMNS * w)


def flow_map(flow: FlowMap) -> Figure:
    """Errors over evaluations, log-log: with the exact denoiser the sampler's, with the network both."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for ax, (denoiser, errors) in zip(figure.subplots(1, 2, sharey=True), flow.errors.items()):
        for i, (sampler, error) in enumerate(errors.items()):
            label, slope = sampler, flow.slopes[sampler]
            if denoiser == EXACT and not math.isnan(slope):
                label += f": slope {-slope:.1f}"
            ax.plot(flow.evaluations[sampler], error, "o-", color=hex_colour(PALETTE[i]), label=label, markersize=3.5)
        ax.axhline(flow.last_step, color=ink(), linestyle=":", linewidth=1)
        ax.annotate("what the last step alone costs", (5, flow.last_step), (0, 3), textcoords="offset points", size=8)
        ax.set(xscale="log", yscale="log", xlabel="evaluations", title=f"with the {denoiser}")
        counts = max(flow.evaluations.values())  # those of two evaluations a step make none of an even number
        ax.set_xticks(counts, [str(n) for n in counts], minor=False)
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize="small")
    figure.axes[0].set_ylabel("distance from the exact flow's end")
    figure.suptitle("where samplers end, against where the exact probability flow carries the same x_T")
    return figure
