"""Samples of each label against the real points of that label.

A model may reproduce all points together and still give them the wrong labels. Tests of the points
alone cannot see that.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.table import Statistic
from metrics.two_sample import (
    ENERGY_POINTS,
    PERMUTATIONS,
    permutation_p,
    permutation_statistic,
    squared_energies,
)
from runtime.randomness import integer_seed

MIN_PAIRS = 2  # of a label, to be compared


@dataclass(frozen=True)
class LabelEnergy:
    """The energy distance of the samples of one label from the real points of that label.

    label: its index. n: the number of samples, and of real points, that were compared.
    value: the distance; floor: its median over permutations; p: its p-value, for this label alone.
    """

    label: int
    n: int
    value: float
    floor: float
    p: float


def energies_by_label(
    samples: NDArray,
    labels: NDArray,
    real: NDArray,
    real_labels: NDArray,
    seed: int,
) -> tuple[Statistic, list[LabelEnergy]]:
    """Test the energy distance within each label, for all labels together.

    The value is the root mean square of the labels' energy distances, weighted by their numbers of
    points. Within each label, random permutations exchange samples with real points, as in
    `two_sample.energy`. So the p-value is exact, and one test serves any number of labels.

    Seen: labels that are permuted among the samples, where the points of the labels differ.
    Not seen: faults that `two_sample.energy` does not see, in every label.

    Args:
        samples, real: points (n, d) and (m, d).
        labels, real_labels: their labels (n,) and (m,).

    Returns:
        The test, and the energy distance of each label that has at least 2 samples and real points.

    Raises:
        ValueError: no label has so many.
    """
    rng = np.random.default_rng(integer_seed(seed, "permutations by label"))
    share = min(1.0, ENERGY_POINTS / min(len(samples), len(real)))
    total = np.zeros(PERMUTATIONS + 1)
    found = []
    for label in np.unique(real_labels):
        n, squares = _squares_of_label(samples[labels == label], real[real_labels == label], share, rng)
        if n < MIN_PAIRS:
            continue
        found.append(_label_energy(int(label), n, squares))
        total += n * squares

    if not found:
        raise ValueError("no label has two samples and two real points")
    pairs = sum(each.n for each in found)
    value, *others = np.sqrt(total / pairs)
    return permutation_statistic(value, np.array(others), pairs), found


def _squares_of_label(
    samples: NDArray,
    real: NDArray,
    share: float,
    rng: np.random.Generator,
) -> tuple[int, NDArray]:
    """Return the number of pairs of one label, and their squared energy distances (R,) after exchanges.

    The first distance is that of the true assignment.

    share: of the points that is compared.
    """
    a = rng.permutation(samples)
    b = rng.permutation(real)
    n = int(np.ceil(share * min(len(a), len(b))))
    if n < MIN_PAIRS:
        return n, np.zeros(PERMUTATIONS + 1)
    signs = 2 * rng.integers(0, 2, (n, PERMUTATIONS + 1)) - 1
    signs[:, 0] = 1
    return n, squared_energies(a[:n], b[:n], signs)


def _label_energy(label: int, n: int, squares: NDArray) -> LabelEnergy:
    """Return the result of one label; squares: squared distances, the true assignment first."""
    value, *others = np.sqrt(squares)
    p = permutation_p(value, np.array(others))
    return LabelEnergy(label, n, float(value), float(np.median(others)), p)
