"""Clouds of points on axes that share one range."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

MARGIN = 0.25  # around the data, in widths of the data


def cloud_axes(figure: Figure, rows: int, columns: int, data: NDArray) -> NDArray:
    """Axes (rows, columns), all with the range of the data (N, d) and a margin; the first three coordinates."""
    d = min(3, data.shape[1])
    options = {"projection": "3d"} if d == 3 else {"aspect": "equal"}
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw=options)
    width = data.max(0) - data.min(0)
    low = data.min(0) - MARGIN * width
    high = data.max(0) + MARGIN * width
    for ax in axes.flat:
        for i, axis in enumerate("xyz"[:d]):
            getattr(ax, f"set_{axis}lim")(low[i], high[i])
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
