"""Pair plots: points of many coordinates as a grid of pictures, one for each pair of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from points.tables import Columns, coordinate_names
from viz.colours import DATA, GENERATED, hex_colour
from viz.labelled_points import add_legend, draw_points, key, label_keys, legend_title
from viz.point_axes import name_with_unit, range_with_margin
from viz.style import literal, shortened

MAX_COLUMNS = 6  # coordinates that are drawn
PANEL = 1.55  # inches: the side of a panel
MIN_SIDE = 4.6  # inches: of all panels
MARGIN = 0.1  # around the real points, in widths of them
BINS = 30  # of a marginal
MIN_BINS = 8
FINEST_GRID = 0.05  # of rounded values, in widths of a bin, that bins are fitted to
NAME_LETTERS = 19
TICKS = 3
POWERS = (-3, 5)  # as viz.point_axes.POWERS, for narrow panels


def pair_grid(
    generated: NDArray,
    real: NDArray,
    labels: NDArray | None = None,
    real_labels: NDArray | None = None,
    classes: Sequence[str] = (),
    columns: Columns | None = None,
    title: str = "",
) -> Figure:
    """Draw the first MAX_COLUMNS coordinates of points (N, d) against each other.

    Generated points stand below the diagonal, real ones above it. On the diagonal are the
    marginals of both. All panels of a coordinate share the range of the real points.

    Args:
        generated, real: points (N, d).
        labels, real_labels: indices (N,) into `classes`. Labelled points get the colour of their
            label.
        classes: the names of the labels.
        columns: the names of the coordinates.
        title: how many points there are, and how they were sampled.
    """
    d = real.shape[1]
    shown = min(d, MAX_COLUMNS)
    low, high = range_with_margin(real[:, :shown], MARGIN)
    side = max(MIN_SIDE, PANEL * shown)
    figure = Figure(figsize=(side + 0.5, side + 1.5), layout="constrained")
    axes = figure.subplots(shown, shown, squeeze=False)
    for i in range(shown):
        for j in range(shown):
            if i == j:
                edges = _bin_edges(real[:, i], low[i], high[i])
                _marginals(axes[i, i], generated[:, i], real[:, i], edges)
            elif i > j:
                _pair(axes[i, j], generated[:, [j, i]], hex_colour(GENERATED), labels)
            else:
                _pair(axes[i, j], real[:, [j, i]], hex_colour(DATA), real_labels)
    _frame(axes, coordinate_names(columns, d)[:shown], low, high)

    lines = [
        title,
        "below the diagonal: generated; above it: real",
        "on the diagonal: histograms, generated as a blue line, real in grey",
    ]
    if d > shown:
        lines.append(f"the first {shown} of {d} columns")
    outside = count_outside(generated[:, :shown], low, high)
    if outside:
        lines.append(f"{outside:,} generated points lie outside of a panel")
    figure.suptitle("\n".join(lines), size="medium")
    if labels is not None:
        add_legend(figure, label_keys(labels, classes, columns), legend_title(columns))
    else:
        sides = {"generated": GENERATED, "real": DATA}
        add_legend(figure, [key(side, hex_colour(colour), "s") for side, colour in sides.items()])
    return figure


def count_outside(points: NDArray, low: NDArray, high: NDArray) -> int:
    """Return how many points (N, d) lie outside of the range from `low` to `high`, both (d,)."""
    return int(((points < low) | (points > high)).any(1).sum())


def _pair(ax: Axes, points: NDArray, colour: str, labels: NDArray | None) -> None:
    """Draw two coordinates (N, 2) of points."""
    size = float(np.clip(1500 / max(1, len(points)), 0.7, 9))
    draw_points(ax, points, colour, labels, size)


def _marginals(ax: Axes, generated: NDArray, real: NDArray, edges: NDArray) -> None:
    """Draw the histograms of one coordinate (N,) of both sets, as shares of all of their points."""
    real_shares = np.histogram(real, edges)[0] / len(real)
    generated_shares = np.histogram(generated, edges)[0] / len(generated)
    ax.stairs(real_shares, edges, color=hex_colour(DATA), fill=True, alpha=0.6)
    ax.stairs(generated_shares, edges, color=hex_colour(GENERATED), linewidth=1.3)
    ax.set_ylim(0, None)


def _bin_edges(real: NDArray, low: float, high: float) -> NDArray:
    """Return the edges of a histogram from `low` to `high`.

    Rounded values, such as whole numbers, lie on a grid. Each bin then holds equally many places of
    the grid; otherwise some bins would look empty.
    """
    count = int(np.clip(2 * np.sqrt(len(real)), MIN_BINS, BINS))
    width = (high - low) / count
    values = np.unique(real.astype(float))
    if len(values) < 2:
        return np.linspace(low, high, count + 1)
    spacing = np.diff(values).min()
    places = (values - values[0]) / spacing
    if spacing < FINEST_GRID * width or np.abs(places - np.round(places)).max() > 0.1:
        return np.linspace(low, high, count + 1)

    width = spacing * np.ceil(width / spacing)
    begin = values[0] - spacing / 2
    begin -= width * np.ceil((begin - low) / width)
    return np.arange(begin, high + width, width)


def _frame(axes: NDArray, names: Sequence[str], low: NDArray, high: NDArray) -> None:
    """Set the ranges of all panels; names and ticks stand at the left and at the bottom."""
    last = len(names) - 1
    short = [shortened(name, NAME_LETTERS) for name in names]
    for i, row in enumerate(axes):
        for j, ax in enumerate(row):
            ax.set_xlim(low[j], high[j])
            x_name = name_with_unit(ax.xaxis, short[j], TICKS, POWERS)
            y_name = literal(short[i])
            if i == j:
                ax.set_yticks([])
            else:
                ax.set_ylim(low[i], high[i])
                y_name = name_with_unit(ax.yaxis, short[i], TICKS, POWERS)
            ax.tick_params(labelsize="x-small", labelbottom=i == last, labelleft=j == 0)
            ax.grid(alpha=0.2)
            if i == last:
                ax.set_xlabel(x_name, size="small")
            if j == 0:
                ax.set_ylabel(y_name, size="small")
    if last:  # the first row begins with a histogram, so that its ticks stand at its end
        axes[0, last].tick_params(labelright=True, right=True)
    axes[0, 0].figure.align_labels(axes)
