"""The columns of a file, real beside generated: quantiles against quantiles, and correlations."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from dataset import DataSet, PointSet
from metrics.columns import ColumnReport, compare_columns
from metrics.evaluation import Evaluation
from viz import stills
from viz.colours import DATA, GENERATED, hex_colour
from viz.style import literal

SHOWN = 8  # columns whose quantiles are drawn: those with the largest gaps
ACROSS = 4  # panels of quantiles in a row
DRAWN_LEVELS = np.linspace(0.005, 0.995, 100)
MAX_WRITTEN = 8  # columns: with more, the correlations are colours without numbers
MAX_NAMED = 30  # columns: with more, the matrices have no names
NAME_LETTERS = 18
CLIPPED = 0.05  # margin around the real quantiles, in widths of them


def save_columns(folder: Path, evaluation: Evaluation, unseen: DataSet, formats: list[str]) -> Path | None:
    """Write columns.png for points with named or typed columns; None where there is nothing to draw."""
    if not isinstance(unseen, PointSet) or unseen.columns is None:
        return None
    report = compare_columns(evaluation.samples, unseen.points, unseen.columns)
    if report is None:
        return None
    figure = columns_figure(report, evaluation.samples, unseen.points)
    return stills.save(figure, folder / "columns.png", formats)


def columns_figure(report: ColumnReport, generated: NDArray, real: NDArray) -> Figure:
    """Draw quantiles of the worst columns, and below them both matrices of correlations.

    Args:
        report: the comparison of all d columns.
        generated, real: the points (N, d) and (M, d).
    """
    worst = sorted(range(len(report.columns)), key=lambda i: -report.columns[i].gap)[:SHOWN]
    across = min(ACROSS, len(worst))
    rows = -(-len(worst) // across)
    matrix_height = 3.2 + 0.09 * min(len(report.columns), MAX_NAMED)
    heights = [2.5 * rows + 0.5, matrix_height]
    figure = Figure(figsize=(10.5, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=heights)
    top = figure.add_subfigure(grid[0])
    bottom = figure.add_subfigure(grid[1])

    finite = generated[np.isfinite(generated).all(1)]
    axes = top.subplots(rows, across, squeeze=False)
    for ax in axes.flat[len(worst) :]:
        ax.set_visible(False)
    for ax, i in zip(axes.flat, worst):
        _quantiles(ax, report, i, finite[:, i], real[:, i])
    which = "all columns" if len(worst) == len(report.columns) else f"the {len(worst)} worst columns"
    top.suptitle(f"quantiles of {which}: generated against real; perfect samples follow the line", size="medium")
    _correlations(bottom, report)
    return figure


def _quantiles(ax: Axes, report: ColumnReport, i: int, generated: NDArray, real: NDArray) -> None:
    """Draw the quantiles of a column of the samples against those of the real one."""
    x = np.quantile(real, DRAWN_LEVELS)
    y = np.quantile(generated, DRAWN_LEVELS)
    margin = CLIPPED * (x[-1] - x[0]) or 1.0
    low = x[0] - margin
    high = x[-1] + margin
    ax.plot([low, high], [low, high], color=hex_colour(DATA), linewidth=1)
    ax.plot(x, np.clip(y, low, high), ".", color=hex_colour(GENERATED), markersize=3)
    ax.set(xlim=(low, high), ylim=(low, high), box_aspect=1)
    ax.locator_params(nbins=4)
    ax.tick_params(labelsize="x-small")
    gap = report.columns[i].gap
    ax.set_title(f"{_short(report.columns[i].name)}: off by {gap:.3f}", size="small")


def _correlations(figure: SubFigure, report: ColumnReport) -> None:
    """Draw both matrices of correlations side by side, with one scale of colours."""
    axes = figure.subplots(1, 2)
    names = [_short(column.name) for column in report.columns]
    for ax, matrix, title in zip(axes, (report.real, report.generated), ("real", "generated")):
        ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_title(f"correlations, {title}", size="medium")
        ax.set(xticks=[], yticks=[])
        if len(names) <= MAX_NAMED:
            size = "small" if len(names) <= MAX_WRITTEN else "xx-small"
            ax.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0, size=size)
            ax.set_yticks(range(len(names)), names, size=size)
        if len(names) <= MAX_WRITTEN:
            for (row, column), value in np.ndenumerate(matrix):
                colour = "white" if abs(value) > 0.6 else "black"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", size="small", color=colour)
    figure.colorbar(axes[0].images[0], ax=axes, shrink=0.8)


def _short(name: str) -> str:
    """A name in one line of at most NAME_LETTERS letters, in which no $ begins mathematics."""
    line = " ".join(name.split())
    if len(line) > NAME_LETTERS:
        half = NAME_LETTERS // 2
        line = f"{line[:half]}…{line[1 - half :]}"  # long names often differ at their ends only
    return literal(line)
