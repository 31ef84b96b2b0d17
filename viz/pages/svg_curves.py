"""Curves of many runs as SVG inside a page, on two logarithmic axes."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

# Pixels: size of the drawing, and the space at its left, below it and at the other two sides.
WIDTH = 640
HEIGHT = 340
LEFT = 76
BOTTOM = 46
EDGE = 12
LETTER = 8  # the width of a digit, at most

MAX_POINTS = 80  # of a curve
MIN_TICKS = 3


def chart(
    curves: Mapping[int, tuple[NDArray, NDArray]],
    title: str,
    y_label: str,
    floors: Sequence[float] = (),
) -> str:
    """Return a <figure> with a line for each run; empty if no run has a value above 0.

    The colour of a line is a matter of the page's style (see report.css).

    Args:
        curves: steps (S,) and values (S,) by the number of the run; values above 0 are drawn.
        title: of the figure.
        y_label: of the vertical axis.
        floors: values at which to draw a dotted horizontal line.
    """
    thinned = {}
    for run, (steps, values) in curves.items():
        x, y = _thin(steps, values)
        if len(x):
            thinned[run] = (x, y)
    if not thinned:
        return ""

    xs = np.concatenate([x for x, _ in thinned.values()])
    ys = np.concatenate([*(y for _, y in thinned.values()), floors])
    across = _Axis(xs, LEFT, WIDTH - EDGE)
    up = _Axis(ys, HEIGHT - BOTTOM, EDGE)
    words = f"{title}: {len(thinned)} runs, {ys.min():.3g} to {ys.max():.3g}"
    x_middle = f"{(LEFT + WIDTH) / 2:.0f}"
    y_middle = f"{HEIGHT / 2:.0f}"
    turned = f'transform="rotate(-90 14 {y_middle})"'
    return f"""<figure><figcaption>{escape(title)}</figcaption>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">
{_grid(across, up)}
<text x="{x_middle}" y="{HEIGHT - 6}" text-anchor="middle">optimizer step</text>
<text x="14" y="{y_middle}" text-anchor="middle" {turned}>{y_label}</text>
{_floor_lines(up, floors)}
{_lines(across, up, thinned)}
</svg></figure>"""


class _Axis:
    """A logarithmic axis over `values`, from the pixel `begin` to the pixel `end`."""

    def __init__(self, values: NDArray, begin: float, end: float) -> None:
        self.low = float(values.min()) / 1.05
        self.high = float(values.max()) * 1.05
        self.begin = begin
        self.end = end

    def at(self, values: NDArray | Sequence[float]) -> NDArray:
        """Return the pixels at which values stand."""
        share = np.log(np.asarray(values, float) / self.low) / np.log(self.high / self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Return powers of ten; in a narrow range also 2 and 5 times these, or a few round values."""
        first = np.floor(np.log10(self.low))
        last = np.ceil(np.log10(self.high))
        decades = 10.0 ** np.arange(first, last + 1)
        for multiples in ([1], [1, 2, 5]):
            candidates = np.outer(decades, multiples).ravel()
            inside = (self.low <= candidates) & (candidates <= self.high)
            ticks = sorted(candidates[inside].tolist())
            if len(ticks) >= MIN_TICKS:
                return ticks
        candidates = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        return [float(tick) for tick in candidates if self.low <= tick <= self.high]


def _thin(x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """Return at most MAX_POINTS points with a logarithm, evenly spaced in the logarithm of x."""
    good = (x > 0) & (y > 0) & np.isfinite(y)
    x = x[good]
    y = y[good]
    if len(x) <= MAX_POINTS:
        return x, y
    wanted = np.geomspace(x[0], x[-1], MAX_POINTS)
    rows = np.unique(np.searchsorted(x, wanted).clip(0, len(x) - 1))
    return x[rows], y[rows]


def _lines(across: _Axis, up: _Axis, curves: Mapping[int, tuple[NDArray, NDArray]]) -> str:
    """Return a line for each run; its rank, from 0 to 1, gives the colour."""
    last = max(1, max(curves))
    lines = []
    for run, (x, y) in curves.items():
        points = [f"{a:.1f},{b:.1f}" for a, b in zip(across.at(x), up.at(y))]
        rank = f"--rank:{run / last:.4f}"
        lines.append(f'<polyline data-run="{run}" style="{rank}" points="{" ".join(points)}"/>\n')
    return "".join(lines)


def _floor_lines(up: _Axis, floors: Sequence[float]) -> str:
    """Return the horizontal lines of the floors."""
    lines = []
    for y in up.at(floors):
        ends = f'x1="{LEFT}" x2="{WIDTH - EDGE}" y1="{y:.1f}" y2="{y:.1f}"'
        lines.append(f'<line class="floor" {ends}/>')
    return "".join(lines)


def _grid(across: _Axis, up: _Axis) -> str:
    """Return the lines of the grid, with their values."""
    parts = []
    bottom = HEIGHT - BOTTOM
    for value, x in zip(across.ticks(), across.at(across.ticks())):
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{EDGE}" y2="{bottom}"/>')
        place = f'x="{x:.1f}" y="{bottom + 16}"'
        text = f"{value:,.0f}"
        cut = x + LETTER * len(text) / 2 > WIDTH
        parts.append(f'<text {place} text-anchor="{"end" if cut else "middle"}">{text}</text>')
    for value, y in zip(up.ticks(), up.at(up.ticks())):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - EDGE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        place = f'x="{LEFT - 6}" y="{y + 4:.1f}"'
        parts.append(f'<text {place} text-anchor="end">{value:.3g}</text>')
    return "".join(parts)
