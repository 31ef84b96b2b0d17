"""Two-sample tests: samples against as many real points, both of shape (n, d).

The null hypothesis is that both sets come from the same distribution. Then the labels "sample" and
"real" are exchangeable: every assignment of them to the points is equally likely. This alone gives
the null distribution of each test here, whatever the distribution of the points.

All tests are one-sided: a large value means that the two sets differ. None of them needs the exact
distribution.

What a test sees was measured on two moons of noise 0.05 with n = 10,000, on two sets of samples
for each fault. Under "Seen" stand the faults that failed the test both times, and under "Not seen"
those that passed both times.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import coo_array, csr_array
from scipy.spatial import KDTree
from threadpoolctl import threadpool_limits

from metrics.table import Bounds, Statistic
from runtime.randomness import integer_seed

NEIGHBOURS = 5
FEW_POINTS = 200  # samples: with fewer, the neighbours' p-value comes from permutations
MAX_TREE_DIM = 10  # from more dimensions on, neighbours are not found by a tree
BLOCKS = 5  # of points in the classifier test; all but the first are predicted
ENERGY_POINTS = 2000  # of each kind in the energy test, whose time is quadratic
PERMUTATIONS = 1299
NEAREST_SHARE = 0.05  # of all points: those nearest to a single training point, relative to others
MIN_NEAREST = 10
HALF_BAND = 1.645  # standard deviations from the median to the end of a normal 90 % band
SMALLEST_DISTANCE = 1e-12  # a divisor: two copies of one training point have distance 0


# ---------------------------------------------------------------- permutations


def permutation_p(value: float, others: NDArray) -> float:
    """Return the exact p-value of a statistic, given its values (R,) for R random permutations.

    It is the share of all R + 1 assignments, the true one among them, with at least this value.
    """
    return float((1 + np.sum(others >= value)) / (len(others) + 1))


def permutation_statistic(value: float, others: NDArray, n: int, fault: str | None = None) -> Statistic:
    """Return the outcome of a one-sided test by random permutations.

    Args:
        value: the statistic of the true assignment. others: that of R random permutations, (R,).
        n: the number of samples.
        fault: what the table says if the test fails; default: the value beside its floor.
    """
    low, floor, high = np.quantile(others, [0.05, 0.5, 0.95])
    if fault is None:
        fault = f"{value:.3g} where real points give {floor:.3g}"

    def bounds(level: float) -> Bounds:
        """p exceeds the level where at least this many of the permutations give as large a value."""
        needed = int(np.floor(level * (len(others) + 1)))
        return None, float(np.sort(others)[-needed]) if needed else None

    return Statistic(value, floor, low, high, permutation_p(value, others), fault, n, bounds)


# ---------------------------------------------------------------- nearest neighbours


def neighbours(samples: NDArray, real: NDArray) -> Statistic:
    """Test the share of a point's 5 nearest neighbours, in the union, that are of its own kind.

    The share is about 1/2 under the null hypothesis (Schilling 1986; Henze 1988). It is larger
    where samples repeat each other, and where one of the two densities is larger.

    Seen: noise 30 % too wide or too narrow; a shift by 0.02; a gap of 20 % of a moon; 10 % of
        strays; 200 points, repeated 50 times each.
    Not seen: noise 10 % too wide; masses of 45 % and 55 %; 3 % of strays; copies of training
        points.

    Let w_ij count how often i and j are neighbours of each other, 0 to 2. Let g_i be +1 for samples
    and -1 for real points. The share is a linear function of Q = sum_{i<j} w_ij g_i g_j.
    The mean and the variance of Q over all permutations of g are exact (`_moments`). The p-value is
    that of a normal distribution with these moments. For fewer than 200 samples it comes from random
    permutations instead, for which it is exact.
    """
    n = len(samples)
    graph = _neighbour_graph(np.concatenate([samples, real]))
    kind = np.repeat([1.0, -1.0], n)
    edges = graph.sum() / 2  # each edge appears twice in the matrix
    mean, deviation = _moments(graph)

    value = kind @ (graph @ kind) / 2
    share = (1 + value / edges) / 2
    fault = f"{share:.1%} of a point's nearest neighbours are of its kind"
    if n < FEW_POINTS:
        return permutation_statistic(float(share), _permuted_shares(graph, kind), n, fault)

    p = stats.norm.sf((value - mean) / deviation)
    floor = (1 + mean / edges) / 2
    spread = HALF_BAND * deviation / edges / 2

    def bounds(level: float) -> Bounds:
        highest = mean + stats.norm.isf(level) * deviation
        return None, float((1 + highest / edges) / 2)

    return Statistic(share, floor, floor - spread, floor + spread, p, fault, n, bounds)


def _permuted_shares(graph: csr_array, kind: NDArray) -> NDArray:
    """Return the share that `neighbours` tests for random permutations of the kinds, (PERMUTATIONS,).

    Args:
        graph: see `_neighbour_graph`.
        kind: 1 for samples and -1 for real points, (2n,).
    """
    rng = np.random.default_rng(0)
    kinds = rng.permuted(np.tile(kind, (PERMUTATIONS, 1)), axis=1).T
    values = (kinds * (graph @ kinds)).sum(0) / 2
    edges = float(graph.sum() / 2)
    return (1 + values / edges) / 2


def _neighbour_graph(points: NDArray) -> csr_array:
    """Return how often two points are neighbours of each other, 0 to 2, as a symmetric matrix."""
    N = len(points)
    _, nearest = nearest_points(points, points, NEIGHBOURS + 1)  # (N, 6)

    # A point is among its own nearest neighbours, unless it has at least as many copies.
    is_self = nearest == np.arange(N)[:, None]
    is_self[~is_self.any(1), -1] = True

    begins = np.repeat(np.arange(N), NEIGHBOURS)
    ends = nearest[~is_self]
    directed = coo_array((np.ones(len(begins)), (begins, ends)), (N, N)).tocsr()
    return directed + directed.T


def nearest_points(points: NDArray, queries: NDArray, k: int) -> tuple[NDArray, NDArray]:
    """Return distances and indices of the k points nearest to each query, both (n, k), the nearest first.

    In many dimensions a tree visits nearly all points. Products of matrices are then faster: 200,000
    points in 64 dimensions took minutes with a tree, and seconds without.
    """
    if points.shape[1] <= MAX_TREE_DIM:
        distances, indices = KDTree(points).query(queries, k)
        return np.asarray(distances), np.asarray(indices)

    from sklearn.neighbors import NearestNeighbors  # the import takes a second

    with threadpool_limits(1, "openmp"):
        found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points)
        return found.kneighbors(queries)


def _moments(graph: csr_array) -> tuple[float, float]:
    """Return mean and standard deviation of Q = sum_{i<j} w_ij g_i g_j over all permutations of g.

    Half of the N entries of g are +1, the others -1. Expand Q^2 and group its terms by the number
    of different points in them:

        E[g_i g_j] = -1 / (N - 1)                           for two different points
        E[g_i g_j g_k g_l] = 3 / ((N - 1) (N - 3))          for four different points
    """
    degrees = np.asarray(graph.sum(0))  # sum_j w_ij for each i
    N = len(degrees)
    edges = graph.sum() / 2  # sum of w_ij over i < j
    squares = graph.power(2).sum() / 2  # sum of w_ij^2 over i < j
    squared_degrees = np.square(degrees).sum()

    mean = -edges / (N - 1)
    three_points = (squared_degrees - 2 * squares) / (N - 1)
    four_points = 3 * (edges**2 - squared_degrees + squares) / ((N - 1) * (N - 3))
    second_moment = squares - three_points + four_points
    return float(mean), float(np.sqrt(second_moment - mean**2))


# ---------------------------------------------------------------- classifier


def classifier(
    samples: NDArray,
    real: NDArray,
    seed: int,
    labels: NDArray | None = None,
    real_labels: NDArray | None = None,
) -> Statistic:
    """Test the accuracy of a classifier that is trained to separate samples from real points.

    The classifier consists of gradient-boosted trees (Lopez-Paz and Oquab 2017, arXiv 1610.06545).

    Seen: noise 30 % too wide or too narrow; a shift by 0.02; a gap of 20 % of a moon; 10 % of
        strays.
    Not seen: noise 10 % too wide; masses of 45 % and 55 %; 3 % of strays; copies of training
        points.

    The points are divided at random into 5 blocks. Each block but the first is predicted by trees
    that were fitted to the blocks before it. Under the null hypothesis each prediction is right
    with probability 1/2, whatever has been learnt. So the number of hits is binomial, and the
    p-value is exact. The hits of cross-validation are not binomial: their standard deviation is
    1.18 times as large.

    labels, real_labels: of the points, (n,) each. The classifier then sees the label of a point as
    well, and finds wrong labels. None: there are none.
    """
    # The import takes a second, and most commands never need it.
    from sklearn.ensemble import HistGradientBoostingClassifier

    n = len(samples)
    rng = np.random.default_rng(integer_seed(seed, "classifier"))
    x = np.concatenate([samples, real])
    if labels is not None and real_labels is not None:
        x = np.column_stack([x, np.concatenate([labels, real_labels])])
    y = np.repeat([0, 1], n)
    block = np.concatenate([rng.permutation(n) % BLOCKS, rng.permutation(n) % BLOCKS])

    hits = 0
    # On a busy machine two threads would wait for each other for seconds.
    with threadpool_limits(1, "openmp"):
        for i in range(1, BLOCKS):
            trees = HistGradientBoostingClassifier(
                early_stopping=True,  # pyright: ignore[reportArgumentType]
                random_state=0,
            )
            trees.fit(x[block < i], y[block < i])
            predicted = trees.predict(x[block == i])
            hits += int((predicted == y[block == i]).sum())

    trials = int((block > 0).sum())
    p = stats.binom.sf(hits - 1, trials, 0.5)
    low, high = stats.binom.interval(0.9, trials, 0.5)
    accuracy = hits / trials
    fault = f"a classifier is right on {accuracy:.1%} of points"

    def bounds(level: float) -> Bounds:
        return None, float(stats.binom.isf(level, trials, 0.5)) / trials

    return Statistic(accuracy, 0.5, low / trials, high / trials, p, fault, n, bounds)


# ---------------------------------------------------------------- energy distance


def energy(samples: NDArray, real: NDArray, seed: int) -> Statistic:
    """Test the energy distance sqrt(2 E|a - b| - E|a - a'| - E|b - b'|) by random permutations.

    The distance is that of Szekely and Rizzo 2013. At most 2,000 points of each kind are used. So
    the test sees coarse faults only.

    Seen: a gap of 20 % of a moon.
    Not seen: noise 50 % too wide; a shift by 0.05; masses of 45 % and 55 %; 10 % of strays.

    Each permutation exchanges the two points of random pairs, one sample and one real point each.
    Under the null hypothesis the true assignment is one of 1,300 equally likely ones. So the
    p-value is exact: the share of the assignments that give at least this distance. It is at least
    1/1300.
    """
    n = min(len(samples), ENERGY_POINTS)
    rng = np.random.default_rng(integer_seed(seed, "permutations"))
    a = rng.permutation(samples)[:n]  # samples may be sorted: those that are used, and the pairs, are random
    b = rng.permutation(real)[:n]
    signs = 2 * rng.integers(0, 2, (n, PERMUTATIONS + 1)) - 1
    signs[:, 0] = 1  # the first column is the true assignment

    value, *others = _energies(a, b, signs)
    return permutation_statistic(value, np.array(others), n)


def energy_distance(samples: NDArray, real: NDArray) -> float:
    """Return the energy distance of two sets, without the permutations of `energy`.

    At most the first 2,000 points of each set are used.

    Raises:
        ValueError: a set is empty, or the points of both have different numbers of dimensions.
    """
    if len(samples) == 0 or len(real) == 0 or samples.shape[1:] != real.shape[1:]:
        raise ValueError(f"an energy distance needs points of equal dimensions, not {samples.shape} and {real.shape}")
    n = min(len(samples), ENERGY_POINTS)
    no_exchange = np.ones((n, 1))
    return float(_energies(samples[:n], real[:n], no_exchange)[0])


def _energies(samples: NDArray, real: NDArray, signs: NDArray) -> NDArray:
    """Return the energy distances (R,) of n points each, after exchanging some of the pairs."""
    return np.sqrt(squared_energies(samples, real, signs))


def squared_energies(samples: NDArray, real: NDArray, signs: NDArray) -> NDArray:
    """Return the squared energy distances (R,) of n points each, after exchanging some of the pairs.

    Column r of `signs` (n, R) exchanges the pairs i with s_i = -1. With the kernel

        k_ij = |a_i - a_j| + |b_i - b_j| - |a_i - b_j| - |b_i - a_j|

    the squared distance is -sum_ij s_i s_j k_ij / n^2. The kernel is computed once for all columns,
    which takes a quarter of the work of permuting all 2n points. The means include i = j.
    """
    centre = real.mean(0, dtype=np.float64)  # far from 0, float32 would round the points themselves
    a = torch.from_numpy(samples - centre).float()
    b = torch.from_numpy(real - centre).float()
    s = torch.from_numpy(signs).float()
    distance = partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
    between = distance(a, b)
    kernel = distance(a, a) + distance(b, b) - between - between.T
    squares = -(s * (kernel @ s)).double().sum(0).numpy() / len(a) ** 2
    return np.maximum(squares, 0)


# ---------------------------------------------------------------- copies of training points


def nearest_ratio(nearest: NDArray) -> NDArray:
    """Return the distance to the nearest training point divided by that to the second nearest.

    The ratio is 0 for a copy of a training point, and near 1 for a typical independent point.
    Unlike the distance itself it is not small for a blurred or typical sample, which is closer to
    *all* training points.

    Args:
        nearest: the two distances of each point in rising order, of shape (n, 2).
    """
    return nearest[:, 0] / np.maximum(nearest[:, 1], SMALLEST_DISTANCE)


def copies(made: NDArray, real: NDArray) -> Statistic:
    """Test the share of samples among the points that are closest to a single training point.

    These points are the 5 % of all points with the smallest `nearest_ratio`.

    Seen: 10 % of copies of training points among the samples.
    Not seen: copies with noise as large as the distance between training points; any other fault.

    Under the null hypothesis samples and held-out real points are equally often so close to a
    training point. So the number of samples among those 5 % is hypergeometric, and the p-value is
    exact. Ties are broken at random.

    Args:
        made, real: the ratios of the samples and of held-out real points, both of shape (n,).
    """
    n = len(made)
    chosen = max(MIN_NEAREST, round(NEAREST_SHARE * 2 * n))
    ties = np.random.default_rng(0).random(2 * n)
    order = np.lexsort([ties, np.concatenate([made, real])])
    count = int((order[:chosen] < n).sum())

    null = stats.hypergeom(2 * n, n, chosen)
    low, high = null.interval(0.9)
    share = count / chosen
    whose = f"{share:.0%} of those next to a training example are samples"
    fault = f"copies of what was learnt from: {whose}"

    def bounds(level: float) -> Bounds:
        return None, float(null.isf(level)) / chosen

    return Statistic(share, 0.5, low / chosen, high / chosen, null.sf(count - 1), fault, n, bounds, chosen)
