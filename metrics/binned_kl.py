"""How far samples are from a known distribution, in nats: the Kullback-Leibler divergence between shares of cells.

Space is divided into cells once, from many real points. Then the shares of the samples in these cells are compared
with the exact shares. No partition makes a divergence larger (data-processing inequality), so the figure is a lower
bound of KL(samples || truth). It needs no density of the samples. Its floor is 0, and its distribution for real points
follows from the shares alone.

A cell is a place and a credible region. The places are the leaves of a tree that halves the real points again and
again, across the direction in which they extend most. The regions are those of highest density (HPD) that hold 50 %,
90 % and 99 % of the real points. So the figure sees where samples lie, how they are weighted, and whether they lie too
close to the data or too far from them. It does not see what happens within a cell.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

REGIONS = (0.5, 0.9, 0.99)  # credible regions, as shares of the real points
DEPTH = 5  # halvings: 32 places
SIMULATIONS = 2000  # sets of real points from which the floor is known to 2 % of its standard deviation


class Divergence(NamedTuple):
    """nats: above the mean of real points, 0 for perfect samples; error: its standard error."""

    nats: float
    error: float


class Floor(NamedTuple):
    """The divergence of n real points before the mean is taken off: its mean, variance and third central moment."""

    mean: float
    variance: float
    third: float


@dataclass(frozen=True)
class Partition:
    """normals (2^DEPTH - 1, d) and offsets (2^DEPTH - 1,) of the tree, node by node from its root; edges: log p at the
    ends of REGIONS, falling; shares (K,): of the real points in each cell; count: how many real points those were.
    """

    normals: Tensor
    offsets: Tensor
    edges: NDArray
    shares: NDArray
    count: int

    def counts(self, points: Tensor, log_density: NDArray) -> NDArray:
        """How many of the points (n, d), whose log p (n,) is known up to a constant, lie in each cell: (K,)."""
        regions = len(REGIONS) + 1
        region = (log_density[:, None] < self.edges).sum(1)
        cell = self.places(points).numpy() * regions + region
        return np.bincount(cell, minlength=2**DEPTH * regions)

    def covered(self, log_density: NDArray) -> NDArray:
        """The share of points within each of REGIONS, (3,), which is that of the region where they are right."""
        return (log_density[:, None] >= self.edges).mean(0)

    def places(self, points: Tensor) -> Tensor:
        """The leaf of each point (n, d): (n,), 0 .. 2^DEPTH - 1."""
        node = torch.zeros(len(points), dtype=torch.long)
        for _ in range(DEPTH):
            is_right = (points.double() * self.normals[node]).sum(1) > self.offsets[node]
            node = 2 * node + 1 + is_right.long()
        return node - len(self.offsets)

    def divergence(self, counts: NDArray, floor: Floor) -> Divergence:
        """The divergence of samples with these counts (K,), where `floor` is that of as many real points."""
        n = counts.sum()
        shares = counts / n
        log_ratio = np.log(np.where(counts > 0, shares, self.shares) / self.shares)
        nats = float(shares @ log_ratio)
        # Real points, too, have log ratios: their variance is twice their mean. It is part of the floor's variance.
        spread = float(shares @ log_ratio**2) - nats**2 - 2 * floor.mean
        return Divergence(nats - floor.mean, math.sqrt(max(0.0, spread) / n + floor.variance))

    def floor(self, n: int) -> Floor:
        """What n real points give. The shares, too, are known from finitely many points, which is part of it."""
        rng = np.random.default_rng(n)
        samples = rng.multinomial(n, self.shares, SIMULATIONS) / n
        real = _smoothed_shares(rng.multinomial(self.count, self.shares, SIMULATIONS))
        nats = (samples * np.log(np.where(samples > 0, samples, real) / real)).sum(1)
        return Floor(float(nats.mean()), float(nats.var()), float(((nats - nats.mean()) ** 3).mean()))


def fit_partition(points: Tensor, log_density: NDArray) -> Partition:
    """The partition by real points (N, d), and their log p (N,) up to a constant."""
    points = points.double()
    normals = []
    offsets = []
    parts = [points]
    for _ in range(DEPTH):
        halves = []
        for part in parts:
            normal = _longest_direction(part)
            projected = part @ normal
            offset = projected.median()
            normals.append(normal)
            offsets.append(offset)
            halves += [part[projected <= offset], part[projected > offset]]
        parts = halves

    edges = np.quantile(log_density, [1 - region for region in REGIONS])
    unknown = np.ones(2**DEPTH * (len(REGIONS) + 1))
    tree = Partition(torch.stack(normals), torch.stack(offsets), edges, unknown, len(points))
    shares = _smoothed_shares(tree.counts(points, log_density))
    return Partition(tree.normals, tree.offsets, edges, shares, len(points))


def _longest_direction(points: Tensor) -> Tensor:
    """The unit vector (d,) along which points (N, d) vary most."""
    _, axes = torch.linalg.eigh(points.T.cov())
    return axes[:, -1]


def _smoothed_shares(counts: NDArray) -> NDArray:
    """Shares (..., K) of these counts. Half a point is added to each cell, so that no share is 0."""
    raised = counts + 0.5
    return raised / raised.sum(-1, keepdims=True)


# ---------------------------------------------------------------- several cells of a benchmark together


def mean_p(total: float, floors: list[Floor]) -> float:
    """The p-value of a sum of divergences (their nats): the share of real points that give at least as much.

    Their sum has the moments of all floors added, and the distribution of Pearson's third type with these moments.
    """
    shape, deviation = _null(floors)
    return float(stats.pearson3.sf(total, shape, 0.0, deviation))


def highest_mean(level: float, floors: list[Floor]) -> float:
    """The mean of the nats that real points exceed with probability `level`."""
    shape, deviation = _null(floors)
    return float(stats.pearson3.isf(level, shape, 0.0, deviation)) / len(floors)


def _null(floors: list[Floor]) -> tuple[float, float]:
    """The skewness and the standard deviation of the sum for real points, whose mean is 0."""
    variance = sum(floor.variance for floor in floors)
    third = sum(floor.third for floor in floors)
    deviation = math.sqrt(variance)
    return third / deviation**3, deviation
