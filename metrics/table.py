"""What every metric comes to: a value beside its floor, a p-value where there is one; and the table of them all."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import SupportsFloat

LEVEL = 0.01  # at most this share of perfect sets of samples fails the tests, all of them together


@dataclass(frozen=True)
class MetricResult:
    """A value and what real points give: median (floor) and 90 % band (low, high) at the same n.

    p: how often a perfect sample would be as far off; None for a distance, which informs and does not vote, and for
    whatever has a tolerance instead. passed: False where the samples count as distinguishable by it.
    """

    name: str
    value: float
    floor: float
    low: float
    high: float
    n: int
    passed: bool
    verdict: str
    unit: str = ""
    p: float | None = None


@dataclass(frozen=True)
class Statistic:
    """A value, its median and 90 % band among perfect samples, its p-value, and what it says if that is too small."""

    value: SupportsFloat  # NumPy's and SciPy's numbers have many types
    floor: SupportsFloat
    low: SupportsFloat
    high: SupportsFloat
    p: SupportsFloat
    fault: str
    n: int


def tested(name: str, s: Statistic, level: float) -> MetricResult:
    """A test's result: it fails where perfect samples would be as far off at most as often as `level`."""
    value, floor, low, high, p = (float(x) for x in (s.value, s.floor, s.low, s.high, s.p))
    words = f"indistinguishable at n = {s.n:,}" if p > level else s.fault
    chance = "p < 1e-12" if p < 1e-12 else f"p = {p:.2g}"
    return MetricResult(name, value, floor, low, high, s.n, p > level, f"{words} ({chance})", p=p)


def table(rows: Sequence[MetricResult], bound: str = "at most") -> str:
    """One line for each metric (value, floor with its 90 % band, verdict) and an overall verdict with its level.

    bound: "at most" where every test has an exact p-value, "about" where the level was only measured.
    """
    lines = [f"  {'metric':<24}{'value':>9}   {'floor [90 % band]':<26} verdict"]
    for r in rows:
        floor = f"{r.floor:.4f} [{r.low:.4f}, {r.high:.4f}]"
        lines.append(f"  {r.name:<24}{r.value:>9.4f}   {floor:<26} {r.verdict}")
    failed = ", ".join(r.name for r in rows if not r.passed)
    lines.append("  verdict: " + (f"distinguishable by {failed}" if failed else "indistinguishable by every metric"))
    if any(r.p is not None for r in rows):
        lines.append(f"  ({bound} {LEVEL:.0%} of perfect sets of samples would fail this table)")
    return "\n".join(lines)


def as_json(rows: Sequence[MetricResult]) -> dict[str, dict]:
    """The same results for metrics.json, by name."""
    return {r.name: {k: v for k, v in asdict(r).items() if k != "name"} for r in rows}
