"""An order of the rows in which neighbours in the order are neighbours in space.

Equal pieces of such an order are strata. A batch that takes one row from each stratum covers the
data more evenly than random rows do (see loader.EvenBatches).
"""

import numpy as np
from numpy.typing import NDArray

LEAF_ROWS = 64  # rows whose order no longer matters: smaller than the strata of a usual batch


def even_order(points: NDArray, labels: NDArray | None = None) -> NDArray[np.int64]:
    """Return all row numbers, first by label and then in the order of a k-d tree: (N,), int64.

    The tree halves the rows at the median of the coordinate that varies most (Bentley 1975,
    doi 10.1145/361002.361007), until LEAF_ROWS rows are left.

    Args:
        points: shape (N, d).
        labels: shape (N,), or None.
    """
    if labels is None:
        return _tree_order(points, np.arange(len(points)))
    by_label = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    groups = np.split(by_label, np.cumsum(counts)[:-1])
    return np.concatenate([_tree_order(points, rows) for rows in groups])


def _tree_order(points: NDArray, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The given rows in the order of a k-d tree."""
    if len(rows) <= LEAF_ROWS:
        return rows
    chosen = points[rows]
    widest = int(np.argmax(np.ptp(chosen, axis=0)))
    smaller = _smaller_half(chosen[:, widest])
    return np.concatenate([_tree_order(points, rows[smaller]), _tree_order(points, rows[~smaller])])


def _smaller_half(values: NDArray) -> NDArray[np.bool_]:
    """Mark the smaller half of the values, and of equal ones the first: the same on every machine."""
    half = len(values) // 2
    median = np.partition(values, half)[half]
    smaller = values < median
    equal = np.flatnonzero(values == median)
    smaller[equal[: half - np.count_nonzero(smaller)]] = True
    return smaller
