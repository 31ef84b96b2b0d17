"""Axes of points: one unit for all coordinates or a scale for each, readable ticks, and the names of the columns."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from points.tables import Columns, coordinate_names
from viz.style import literal, shortened

LIKE_UNITS = 3.0  # coordinates whose widths differ by at most this factor are drawn in one unit
TICKS = 6  # on an axis, at most
TICKS_3D = 4
POWERS = (-4, 6)  # numbers of 1e-4 and less, or of 1e6 and more, have their power of ten in the name of the axis
NAME_LETTERS = 28  # of the name of a column


def point_axes(figure: Figure | SubFigure, rows: int, columns: int, d: int) -> NDArray:
    """Return axes (rows, columns) for points of d dimensions: 3D axes where d is 3."""
    options = {"projection": "3d"} if d == 3 else {}
    return figure.subplots(rows, columns, squeeze=False, subplot_kw=options)


def are_units_alike(points: NDArray, columns: Columns | None) -> bool:
    """Tell whether a picture of points (N, d) can have one unit on all of its axes.

    The columns of a table may have unlike units. Then a common unit would leave a line of dots.

    Args:
        points: the real points.
        columns: of the table that they come from; None for a synthetic set, which has one unit.
    """
    if columns is None:
        return True
    widths = np.ptp(points.astype(float), 0)
    if not widths.any():
        return True
    return bool(widths.max() <= LIKE_UNITS * widths.min())


def aspect_of(points: NDArray, columns: Columns | None) -> str:
    """Return the aspect of axes on which points (N, d) are drawn, as matplotlib takes it."""
    return "equal" if are_units_alike(points, columns) else "auto"


def range_with_margin(points: NDArray, share: float, least: float | None = None) -> tuple[NDArray, NDArray]:
    """Return the lowest and highest coordinates of points (N, d), both (d,), with a margin.

    share: the margin, in widths of the points. A constant coordinate has a margin of 1, or of a
        tenth of its value where that is more.
    least: if given, the margin of every side is that of the narrowest one, but at least this share
        of its own.
    """
    low = points.min(0).astype(float)
    high = points.max(0).astype(float)
    width = high - low
    margin = share * width
    if least is not None and (width > 0).any():
        margin = np.minimum(margin, np.maximum(share * width[width > 0].min(), least * width))
    margin = np.where(width > 0, margin, np.maximum(1, np.abs(high) / 10))
    return low - margin, high + margin


def set_range(ax, low: NDArray, high: NDArray) -> None:
    """Set the range of 2D or 3D axes to that from `low` to `high`, both (d,)."""
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    if ax.name == "3d":
        ax.set_zlim(low[2], high[2])


# ---------------------------------------------------------------- names and ticks


def axis_names(columns: Columns | None, d: int) -> list[str]:
    """Return the names of the coordinates of a table, short enough for an axis; [] for a synthetic set."""
    if columns is None:
        return []
    return [shortened(name, NAME_LETTERS) for name in coordinate_names(columns, d)]


def name_axes(ax, names: Sequence[str]) -> None:
    """Write the names of the coordinates at the axes, whose range must be set, with ticks that can be read.

    Axes of three dimensions get readable ticks also without names.
    """
    axes = [ax.xaxis, ax.yaxis]
    if ax.name == "3d":
        axes.append(ax.zaxis)
        ax.tick_params(labelsize="x-small", pad=-2)
        ax.zaxis.set_tick_params(pad=3)
    for i, axis in enumerate(axes):
        count = TICKS_3D if ax.name == "3d" else TICKS
        if names:
            axis.set_label_text(name_with_unit(axis, names[i], count))
            axis.label.set_size("small")
        elif ax.name == "3d":
            axis.set_major_locator(MaxNLocator(count))


def name_with_unit(axis: Axis, name: str, count: int = TICKS, powers: tuple[int, int] = POWERS) -> str:
    """Give an axis at most `count` intervals of ticks, and return its name with what its numbers leave out.

    Large numbers that hardly differ, such as time stamps, are written from a common offset. Very
    large and very small ones are written as multiples of a power of ten. matplotlib writes both at
    the end of the axis, where they are easily overlooked. Here they belong to the name:
    `(time - 1.7e9) / 1e6`.
    """
    locator = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])
    formatter = ScalarFormatter(useMathText=False)
    formatter.set_powerlimits(powers)
    axis.set_major_locator(locator)
    axis.set_major_formatter(formatter)
    axis.set_minor_formatter(NullFormatter())
    axis.offsetText.set_visible(False)
    formatter.set_locs(list(locator()))

    left_out = re.fullmatch(r"(1e[-−]?\d+)?(.*)", formatter.get_offset())
    assert left_out is not None
    unit, offset = left_out.groups()
    text = literal(name)
    if offset:
        text = f"{text} {'−' if offset[0] == '+' else '+'} {offset[1:]}"
    if unit:
        text = f"({text}) / {unit}" if offset else f"{text} / {unit}"
    return text


def axes_in_words(names: Sequence[str]) -> str:
    """Return which coordinate each axis shows, for pictures with room for one line only; "" without names."""
    if not names:
        return ""
    shown = [literal(name) for name in names[:3]]
    if len(names) < 3:
        directions = ("to the right", "upwards")
        return ", ".join(f"{name} {direction}" for name, direction in zip(shown, directions))
    text = "axes x, y, z: " + ", ".join(shown)
    return text if len(names) == 3 else f"{text}, the first 3 of {len(names)}"
