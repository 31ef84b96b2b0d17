"""Points in the colours of their labels, and the legend of these colours."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from points.tables import Columns
from viz.colours import CLASSES
from viz.style import literal, shortened

MARKERS = "o^sDvP*X"  # of the labels; more labels than colours need a second one
MAX_KEYS = 24  # labels in a legend
LETTERS_PER_INCH = 12.0  # of a legend
KEY_LETTERS = 6  # that the mark of a label and the gap after it take
NAME_LETTERS = 24  # of the name of a label


def draw_points(ax, points: NDArray, colour: str, labels: NDArray | None, size: float) -> None:
    """Draw points (N, 2) or (N, 3) in one colour, or in that of their labels (N,).

    Args:
        ax: 2D or 3D axes, which show as many coordinates.
        points: the points.
        colour: of points without labels.
        labels: numbers of labels. Those beyond the number of colours get another marker.
        size: the area of a point, in square points.
    """
    look = {"s": size, "linewidths": 0, "rasterized": True}
    if labels is None:
        ax.scatter(*points.T, color=colour, **look)
        return
    colours = np.array(CLASSES)[labels % len(CLASSES)]
    turn = labels // len(CLASSES)
    for k in np.unique(turn):
        rows = turn == k
        ax.scatter(*points[rows].T, color=colours[rows], marker=_marker(k), **look)


def _marker(turn: int) -> str:
    """Return the marker of labels that are beyond `turn` times the number of colours."""
    return MARKERS[turn % len(MARKERS)]


def label_keys(labels: NDArray, classes: Sequence[str], columns: Columns | None) -> list[Line2D]:
    """Return keys of a legend for the labels that occur, at most MAX_KEYS of them.

    Args:
        labels: numbers of labels that occur.
        classes: the names of the labels.
        columns: of the table that the labels come from. Where their column has a name, `add_legend`
            writes it once, as the title.
    """
    has_title = bool(legend_title(columns))
    occurring = np.unique(labels)
    keys = []
    for label in occurring[:MAX_KEYS]:
        name = shortened(classes[int(label)], NAME_LETTERS)
        text = literal(name) if has_title else f"label {literal(name)}"
        keys.append(key(text, CLASSES[label % len(CLASSES)], _marker(label // len(CLASSES))))
    if len(occurring) > MAX_KEYS:
        keys.append(key(f"and {len(occurring) - MAX_KEYS} more", "none", ""))
    return keys


def key(text: str, colour: str, marker: str = "o") -> Line2D:
    """Return a key of a legend. matplotlib leaves out texts that begin with "_"; a space of no width keeps them."""
    if text.startswith("_"):
        text = f"\u200b{text}"
    return Line2D([], [], marker=marker, markersize=5, color=colour, linestyle="", label=text)


def legend_title(columns: Columns | None) -> str:
    """Return the name of the column of labels; "" where it has none."""
    if columns is None:
        return ""
    return literal(shortened(columns.label, 2 * NAME_LETTERS))


def add_legend(figure: Figure, keys: Sequence[Line2D], title: str = "") -> None:
    """Add a legend below a figure, in as many columns as its width has room for."""
    longest = max(len(str(each.get_label())) for each in keys) + KEY_LETTERS
    room = LETTERS_PER_INCH * figure.get_figwidth()
    columns = max(1, min(len(keys), int(room // longest)))
    figure.legend(
        handles=list(keys),
        title=title or None,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handletextpad=0.2,
    )
