"""Curves as SVG that stands inside a page: many runs on two logarithmic axes."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, LEFT, BOTTOM, EDGE = 640, 340, 76, 46, 12
MOST = 80  # points of a curve


def chart(curves: Mapping[int, tuple[NDArray, NDArray]], title: str, y_label: str, floors: Sequence[float] = ()) -> str:
    """A <figure> with a line for each run, by its number: steps (S,) and values (S,), of which those above 0 count.

    floors: horizontal lines, dotted. The colour of a line is a matter of the page's style (see report.css).
    """
    thinned = {run: _thin(*xy) for run, xy in curves.items()}
    thinned = {run: xy for run, xy in thinned.items() if len(xy[0])}
    if not thinned:
        return ""
    xs = np.concatenate([x for x, _ in thinned.values()])
    ys = np.concatenate([*(y for _, y in thinned.values()), floors])
    along, up = _Axis(xs, LEFT, WIDTH - EDGE), _Axis(ys, HEIGHT - BOTTOM, EDGE)
    last = max(1, max(thinned))
    lines = [_line(i, i / last, along.at(x), up.at(y)) for i, (x, y) in thinned.items()]
    rules = [f'<line class="floor" x1="{LEFT}" x2="{WIDTH - EDGE}" y1="{y:.1f}" y2="{y:.1f}"/>' for y in up.at(floors)]
    words = f"{title}: {len(lines)} runs, {ys.min():.3g} to {ys.max():.3g}"
    return f"""<figure><figcaption>{escape(title)}</figcaption>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">
{_grid(along, up)}
<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">optimizer step</text>
<text x="14" y="{HEIGHT / 2:.0f}" text-anchor="middle" transform="rotate(-90 14 {HEIGHT / 2:.0f})">{y_label}</text>
{"".join(rules)}
{"".join(lines)}
</svg></figure>"""


class _Axis:
    """A logarithmic axis over `values`, from the pixel `begin` to `end`."""

    def __init__(self, values: NDArray, begin: float, end: float) -> None:
        self.low, self.high = float(values.min()) / 1.05, float(values.max()) * 1.05
        self.begin, self.end = begin, end

    def at(self, values: NDArray | Sequence[float]) -> NDArray:
        share = np.log(np.asarray(values, float) / self.low) / np.log(self.high / self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Powers of ten; in a narrow range 2 and 5 times these, or five even ones."""
        decades = 10.0 ** np.arange(np.floor(np.log10(self.low)), np.ceil(np.log10(self.high)) + 1)
        for multiples in ([1], [1, 2, 5]):
            found = sorted(float(m * ten) for ten in decades for m in multiples if self.low <= m * ten <= self.high)
            if len(found) >= 3:
                return found
        return np.geomspace(self.low * 1.02, self.high / 1.02, 5).tolist()


def _thin(x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """At most MOST points, even in the logarithm of x, of those that a logarithm has."""
    good = (x > 0) & (y > 0) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) <= MOST:
        return x, y
    rows = np.unique(np.searchsorted(x, np.geomspace(x[0], x[-1], MOST)).clip(0, len(x) - 1))
    return x[rows], y[rows]


def _line(run: int, rank: float, x: NDArray, y: NDArray) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
    return f'<polyline data-run="{run}" style="--rank:{rank:.4f}" points="{points}"/>\n'


def _grid(along: _Axis, up: _Axis) -> str:
    parts = []
    for value, x in zip(along.ticks(), along.at(along.ticks())):
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{EDGE}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:,.0f}</text>')
    for value, y in zip(up.ticks(), up.at(up.ticks())):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - EDGE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    return "".join(parts)
