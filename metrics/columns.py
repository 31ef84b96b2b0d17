"""The columns of a file: quantiles and correlations of real and generated points, and the worst column.

Everything here is reported and not used in the verdict.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import kolmogi

from points.tables import Columns, DiscreteColumn, coordinate_names, discrete_columns

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the quantiles
MIN_ROWS = 10  # real or generated: with fewer a column says nothing
LEVEL_OF_ALL = 0.01  # probability that the gap of any column exceeds its limit if all samples are perfect
NEAR_WHOLE = 0.1  # a number farther than that from a whole one is off
NEAR_CONSTANT = 0.01  # share of the constant, by which a number may differ
NEAR_ZERO = 0.01  # standard deviations
MAX_VALUES = 10  # of a column of whole numbers, for which unknown values are counted


@dataclass(frozen=True)
class ColumnResult:
    """How one column of the samples compares with the real one.

    Attributes:
        name: of the column.
        real, generated: its quantiles at LEVELS.
        gap: the largest difference between the two distribution functions, 0 to 1. Columns of whole numbers are
            rounded for it.
        floor: the median of the gap where real points take the place of the samples.
        limit: what that gap exceeds in one of 100 evaluations, in any column.
        off: the share of samples with a value that cannot be real; None for a continuous column.
        off_text: what these values are, in words.
    """

    name: str
    real: list[float]
    generated: list[float]
    gap: float
    floor: float
    limit: float
    off: float | None = None
    off_text: str = ""


@dataclass(frozen=True)
class ColumnReport:
    """All columns, and their correlations.

    Attributes:
        columns: one result for each of d columns.
        real, generated: the matrices of correlations (d, d); 0 where a column is constant.
        num_real, num_generated: the numbers of rows that were compared.
    """

    columns: list[ColumnResult]
    real: NDArray
    generated: NDArray
    num_real: int
    num_generated: int

    @property
    def worst(self) -> ColumnResult:
        """The column with the largest gap."""
        return max(self.columns, key=lambda column: column.gap)

    @property
    def worst_pair(self) -> tuple[int, int]:
        """The two columns whose correlation differs most."""
        difference = np.abs(self.real - self.generated)
        row, column = np.unravel_index(difference.argmax(), difference.shape)
        return int(min(row, column)), int(max(row, column))

    def as_plain(self) -> dict[str, Any]:
        """Return what metrics.json holds of it."""
        return {
            "worst": self.worst.name,
            "levels": list(LEVELS),
            "columns": [vars(column) for column in self.columns],
            "correlations": {"real": self.real.tolist(), "generated": self.generated.tolist()},
        }


def compare_columns(generated: NDArray, real: NDArray, columns: Columns) -> ColumnReport | None:
    """Compare the columns of samples with those of real points.

    Args:
        generated, real: shapes (N, d) and (M, d), in data units. Samples that are not finite are left out.
        columns: their names and types.

    Returns:
        None where there are fewer than MIN_ROWS rows on either side.
    """
    generated = np.asarray(generated, np.float64)
    generated = generated[np.isfinite(generated).all(1)]
    real = np.asarray(real, np.float64)
    if min(len(generated), len(real)) < MIN_ROWS:
        return None

    dim = real.shape[1]
    discrete = {column.index: column for column in discrete_columns(real, columns)}
    results = []
    for i, name in enumerate(coordinate_names(columns, dim)):
        results.append(_compare_column(name, generated[:, i], real[:, i], discrete.get(i), dim))
    return ColumnReport(results, correlations(real), correlations(generated), len(real), len(generated))


def correlations(points: NDArray) -> NDArray:
    """Return the correlations (d, d) of the columns of points (N, d); those of a constant column are 0."""
    centred = points - points.mean(0)
    varies = np.ptp(points, 0) > 0
    scale = np.where(varies, points.std(0), 1)
    standardised = np.where(varies, centred / np.where(scale > 0, scale, 1), 0)
    return standardised.T @ standardised / len(points)


def distribution_gap(one: NDArray, other: NDArray) -> float:
    """Return the largest difference between the distribution functions of two sets of numbers, 0 to 1."""
    values = np.concatenate([one, other])
    share_of_one = np.searchsorted(np.sort(one), values, side="right") / len(one)
    share_of_other = np.searchsorted(np.sort(other), values, side="right") / len(other)
    return float(np.abs(share_of_one - share_of_other).max())


def _compare_column(
    name: str,
    generated: NDArray,
    real: NDArray,
    discrete: DiscreteColumn | None,
    num_columns: int,
) -> ColumnResult:
    """Compare one column, of shapes (N,) and (M,)."""
    is_whole = discrete is not None and discrete.kind == "whole"
    compared = np.round(generated) if is_whole else generated
    off, off_text = (None, "") if discrete is None else _off(generated, real, discrete)
    gap = 0.0
    if discrete is None or discrete.kind != "constant":
        gap = distribution_gap(compared, real)

    # The asymptotic distribution of the gap between two samples of one distribution (Kolmogorov and Smirnov).
    scale = np.sqrt(1 / len(generated) + 1 / len(real))
    return ColumnResult(
        name=name,
        real=np.quantile(real, LEVELS).tolist(),
        generated=np.quantile(generated, LEVELS).tolist(),
        gap=gap,
        floor=float(kolmogi(0.5) * scale),
        limit=float(min(1.0, kolmogi(LEVEL_OF_ALL / num_columns) * scale)),
        off=off,
        off_text=off_text,
    )


def _off(generated: NDArray, real: NDArray, discrete: DiscreteColumn) -> tuple[float, str]:
    """Return the share of samples (N,) with a value that no real row (M,) can have, and these values in words."""
    if discrete.kind == "constant":
        constant = float(real[0])
        tolerance = NEAR_CONSTANT * (abs(constant) or 1.0)
        share = float((np.abs(generated - constant) > tolerance).mean())
        return share, f"more than {tolerance:.2g} from {constant:.4g}, the only value"
    if discrete.kind == "zeros":
        near = float((np.abs(generated) <= NEAR_ZERO * real.std()).mean())
        fact = f"exactly 0 in {discrete.share:.0%} of the real rows, and {near:.0%} of the samples are near 0"
        if real.min() < 0:
            return abs(discrete.share - near), fact
        return float((generated < 0).mean()), f"below 0 ({fact})"

    rounded = np.round(generated)
    share = float((np.abs(generated - rounded) > NEAR_WHOLE).mean())
    text = f"farther than {NEAR_WHOLE} from a whole number (samples.csv rounds them)"
    values = np.unique(real)
    if len(values) <= MAX_VALUES:
        unknown = float((~np.isin(rounded, values)).mean())
        text += f"; rounded, {unknown:.1%} have a value that no real row has"
    return share, text


# ---------------------------------------------------------------- in words


def column_lines(report: ColumnReport) -> list[str]:
    """Return lines that follow the table of an evaluation."""
    worst = report.worst
    beyond = "more than chance allows" if worst.gap > worst.limit else "within chance"
    middle = LEVELS.index(0.5)
    lines = [
        f"worst column: {worst.name}: its distribution function is off by {worst.gap:.3f}, {beyond}"
        f" (floor {worst.floor:.3f}, up to {worst.limit:.3f});"
        f" median {worst.generated[middle]:.4g}, real {worst.real[middle]:.4g}"
    ]
    if len(report.columns) > 1:
        i, j = report.worst_pair
        pair = f"{report.columns[i].name} and {report.columns[j].name}"
        values = f"{report.generated[i, j]:.2f}, real {report.real[i, j]:.2f}"
        lines.append(f"worst correlation: {pair}: {values}")
    for column in report.columns:
        if column.off:
            lines.append(f"{column.name}: {column.off:.1%} of the samples are off: {column.off_text}")
    return lines
