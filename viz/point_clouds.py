"""Clouds of points on axes that share one range."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from points.tables import Columns
from viz.point_axes import aspect_of, point_axes, range_with_margin, set_range

MARGIN = 0.25  # around the data, in widths of the data


def cloud_axes(
    figure: Figure,
    num_rows: int,
    num_columns: int,
    data: NDArray,
    columns: Columns | None = None,
) -> NDArray:
    """Axes (num_rows, num_columns), all with the range of the data (N, d) and a margin; the first three coordinates.

    In the plane they have no ticks, because they are small.

    Args:
        columns: the names of the coordinates, for points of a table. They may have unlike units.
    """
    d = min(3, data.shape[1])
    shown = data[:, :d]
    axes = point_axes(figure, num_rows, num_columns, d)
    low, high = range_with_margin(shown, MARGIN)
    aspect = aspect_of(shown, columns) if d == 2 else "auto"
    for ax in axes.flat:
        set_range(ax, low, high)
        ax.set_aspect(aspect)
        if d == 2:
            ax.set(xticks=[], yticks=[])
    return axes


def draw_cloud(ax: Axes, points: NDArray, colour: str | NDArray) -> int:
    """Draw points (n, d) on axes whose range is fixed. Returns how many lie outside of it."""
    shown = points.T[: 3 if ax.name == "3d" else 2]
    ax.scatter(*shown, s=2, c=colour, linewidths=0, rasterized=True)
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    x = points[:, 0]
    y = points[:, 1]
    inside = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    return int((~inside).sum())


def outside_text(count: int) -> str:
    """'; 3 outside', or '' for none."""
    return f"; {count} outside" if count else ""
