"""The result of a metric, and the table of all results.

Every value stands beside its *floor*: what perfect samples give at the same number of samples n.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import SupportsFloat

LEVEL = 0.01  # perfect samples fail any of the tests with at most this probability
SMALLEST_SHOWN_P = 1e-12
SMALL_N = 1000  # below, a table that passes says little
Bounds = tuple[float | None, float | None]  # the lowest and the highest value that passes; None: no bound


@dataclass(frozen=True)
class MetricResult:
    """One line of the table.

    value: the metric of the samples.
    floor, low, high: median and central 90 % band of the metric for perfect samples at the same n.
    n: the number of samples that the metric used.
    passed: False where the metric distinguishes the samples from real data.
    verdict: the same in words.
    unit: the unit of the value; empty for a pure number.
    p: the p-value of a test: the probability that perfect samples give so extreme a value. None for
        a metric with a tolerance, and for a distance, which is reported but not used in the
        verdict.
    level: the test fails if its p-value is at most this. None where p is None.
    bounds: the lowest and the highest value that passes. A distance has none.
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
    level: float | None = None
    bounds: Bounds = (None, None)


@dataclass(frozen=True)
class Statistic:
    """The outcome of a test.

    The null distribution of a test is the distribution of its value for perfect samples.

    value: the statistic of the samples.
    floor, low, high: median and central 90 % band of the null distribution.
    p: the p-value.
    fault: what the table says if the test fails.
    n: the number of samples that the test used.
    bounds: the lowest and the highest value that passes, as a function of the level of the test.
    closest: the number of points that the test looks at, if those are only the ones closest to a
        training point.
    """

    value: SupportsFloat  # NumPy's and SciPy's numbers have many types
    floor: SupportsFloat
    low: SupportsFloat
    high: SupportsFloat
    p: SupportsFloat
    fault: str
    n: int
    bounds: Callable[[float], Bounds]
    closest: int | None = None


def to_result(name: str, s: Statistic, level: float) -> MetricResult:
    """Return the line of a test. It fails if its p-value is at most `level`."""
    p = float(s.p)
    passed = p > level
    outcome = f"indistinguishable at n = {s.n:,}" if passed else s.fault
    if passed and s.closest:
        outcome += f", by the closest {s.closest:,}"
    shown_p = "p < 1e-12" if p < SMALLEST_SHOWN_P else f"p = {p:.2g}"
    return MetricResult(
        name,
        value=float(s.value),
        floor=float(s.floor),
        low=float(s.low),
        high=float(s.high),
        n=s.n,
        passed=passed,
        verdict=f"{outcome} ({shown_p}, fails at {level:.2g})",
        p=p,
        level=level,
        bounds=s.bounds(level),
    )


def format_table(rows: Sequence[MetricResult], bound: str = "at most") -> str:
    """Return the table as text: one line for each metric, then the overall verdict and its level.

    bound: "at most" where every test has an exact p-value, "about" where the level was measured.
    """
    lines = [f"  {'metric':<22}{'value':>9}{'floor':>9}   {'passes':<19} verdict"]
    for row in rows:
        passes = bounds_text(row.bounds)
        lines.append(f"  {row.name:<22}{row.value:>9.4f}{row.floor:>9.4f}   {passes:<19} {row.verdict}")

    failed = [row.name for row in rows if not row.passed]
    if failed:
        lines.append(f"  verdict: distinguishable by {', '.join(failed)}")
    else:
        lines.append(f"  verdict: indistinguishable by every test{small_n_note(rows)}")

    has_tests = any(row.p is not None for row in rows)
    if has_tests:
        lines.append(f"  (perfect samples fail any of the tests with a probability of {bound} {LEVEL:.0%})")
    return "\n".join(lines)


def small_n_note(rows: Sequence[MetricResult]) -> str:
    """Return a warning for tests of few samples, ' (n = 300: only large faults would show)'; else ''."""
    numbers = [row.n for row in rows if row.p is not None]
    if not numbers or max(numbers) >= SMALL_N:
        return ""
    return f" (n = {max(numbers):,}: only large faults would show)"


def bounds_text(bounds: Bounds) -> str:
    """Return which values pass, such as '0.4918 .. 0.5082' or 'up to 0.5083'; '' where there is no bound."""
    low, high = bounds
    if low is not None and high is not None:
        return f"{low:.4f} .. {high:.4f}"
    if high is not None:
        return f"up to {high:.4f}"
    return "" if low is None else f"from {low:.4f}"


def results_by_name(rows: Sequence[MetricResult]) -> dict[str, dict]:
    """Return the results for metrics.json: the fields of each metric, by its name."""
    results = {}
    for row in rows:
        fields = asdict(row)
        name = fields.pop("name")
        results[name] = fields
    return results
