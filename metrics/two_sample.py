"""Tests of samples against as many real points (n, d), whose p-values come from exchanging the two.

If both are real, it is as if a coin had been tossed for which points to call samples. That alone gives the distribution
of each value here, whatever that of the points.
"""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import coo_array, csr_array
from scipy.spatial import KDTree
from threadpoolctl import threadpool_limits

from metrics.table import Statistic
from runtime.randomness import integer_seed

NEIGHBOURS = 5
BLOCKS = 5  # of the classifier
PAIRED, PERMUTATIONS = 2000, 1299  # points of each kind for the energy distance, and permutations of them
MEMORISED = 0.05  # the share of points, those nearest to one training point alone, that is looked at


def neighbours(samples: NDArray, real: NDArray) -> Statistic:
    """How many of the 5 nearest neighbours of a point, in the union, are of its own kind (Schilling 1986; Henze 1988).

    Half if both are real; more where samples repeat each other, or one kind is denser. With g = +1 for samples and -1
    for real points, the share is linear in sum w_ij g_i g_j over the edges of a graph. Of that, mean and variance over
    all permutations of g are known: E g_i g_j = -1 / (N - 1), and with four different points 3 / ((N - 1) (N - 3)).
    """
    points, n = np.concatenate([samples, real]), len(samples)
    graph = _neighbour_graph(points)
    kind = np.repeat([1.0, -1.0], n)
    edges, N = graph.sum() / 2, 2 * n  # each edge stands in the matrix twice
    squares, degrees = graph.power(2).sum() / 2, np.square(np.asarray(graph.sum(0))).sum()
    mean = -edges / (N - 1)
    second = squares - (degrees - 2 * squares) / (N - 1) + 3 * (edges**2 - degrees + squares) / ((N - 1) * (N - 3))
    value, deviation = kind @ (graph @ kind) / 2, np.sqrt(second - mean**2)
    p = stats.norm.sf((value - mean) / deviation)
    share, floor, spread = (1 + value / edges) / 2, (1 + mean / edges) / 2, 1.645 * deviation / edges / 2
    fault = f"{share:.1%} of a point's nearest neighbours are of its kind"
    return Statistic(share, floor, floor - spread, floor + spread, p, fault, n)


def _neighbour_graph(points: NDArray) -> csr_array:
    """How often each of two points is among the other's nearest neighbours, 0 to 2: sparse (N, N), symmetric."""
    N = len(points)
    # (N, 6): a point itself is one of them, unless it has more copies
    nearest = np.asarray(KDTree(points).query(points, NEIGHBOURS + 1)[1])
    own = nearest == np.arange(N)[:, None]
    own[~own.any(1), -1] = True
    ends = np.repeat(np.arange(N), NEIGHBOURS), nearest[~own]
    one = coo_array((np.ones(len(ends[0])), ends), (N, N)).tocsr()
    return one + one.T


def classifier(samples: NDArray, real: NDArray, seed: int) -> Statistic:
    """Accuracy of a classifier trained to separate samples from real points: 0.5 if it cannot, 1 if it always can.

    Gradient-boosted trees (Lopez-Paz and Oquab 2017, arXiv 1610.06545). The points come in 5 blocks; each block but the
    first is guessed after learning from the blocks before it. Whatever has been learnt, a real point is then guessed
    right with probability 1/2, so the hits are binomial; those of cross-validation are not (1.18 times as scattered).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # takes a second, and most commands never need it

    n, rng = len(samples), np.random.default_rng(integer_seed(seed, "classifier"))
    x, y = np.concatenate([samples, real]), np.repeat([0, 1], n)
    block = np.concatenate([rng.permutation(n) % BLOCKS, rng.permutation(n) % BLOCKS])
    hits = 0
    with threadpool_limits(1, "openmp"):  # on a busy machine two threads would wait for each other for seconds
        for i in range(1, BLOCKS):
            trees = HistGradientBoostingClassifier(early_stopping=True, random_state=0)  # pyright: ignore[reportArgumentType]
            trees.fit(x[block < i], y[block < i])
            hits += int((trees.predict(x[block == i]) == y[block == i]).sum())
    guessed = int((block > 0).sum())
    low, high = stats.binom.interval(0.9, guessed, 0.5)
    fault = f"a classifier is right on {hits / guessed:.1%} of points"
    p = stats.binom.sf(hits - 1, guessed, 0.5)
    return Statistic(hits / guessed, 0.5, low / guessed, high / guessed, p, fault, n)


def energy(samples: NDArray, real: NDArray, seed: int) -> Statistic:
    """The energy distance sqrt(2 E|a - b| - E|a - a'| - E|b - b'|) (Szekely and Rizzo 2013), by permutations.

    By permutations that exchange pairs of a sample and a real point, each by a coin: where s_i is -1 for pair i, and
    else 1, its square is -sum s_i s_j (|a_i - a_j| + |b_i - b_j| - |a_i - b_j| - |b_i - a_j|) / n^2: a quarter of the
    work that permutations of all 2n take. The pairs are drawn, as samples may be sorted. The means include a point and
    itself.
    """
    n = min(len(samples), PAIRED)
    rng = np.random.default_rng(integer_seed(seed, "permutations"))
    a, b = rng.permutation(samples[:n]), rng.permutation(real[:n])
    signs = 2 * rng.integers(0, 2, (n, PERMUTATIONS + 1)) - 1
    signs[:, 0] = 1  # the first is the one that happened
    value, *floors = _energies(a, b, signs)
    low, floor, high = np.quantile(floors, [0.05, 0.5, 0.95])
    p = (1 + np.sum(floors >= value)) / (PERMUTATIONS + 1)
    return Statistic(value, floor, low, high, p, f"{value:.3g} where real points give {floor:.3g}", n)


def energy_distance(samples: NDArray, real: NDArray) -> float:
    """The value of `energy` alone, without the permutations that take its time."""
    n = min(len(samples), PAIRED)
    return float(_energies(samples[:n], real[:n], np.ones((n, 1)))[0])


def _energies(samples: NDArray, real: NDArray, signs: NDArray) -> NDArray:
    """The energy distance (R,) of n points each, where a column of `signs` (n, R) exchanges the pairs of sign -1."""
    a, b = (torch.from_numpy(points).float() for points in (samples, real))
    distance = partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
    between = distance(a, b)
    less, turned = distance(a, a) + distance(b, b) - between - between.T, torch.from_numpy(signs).float()
    squares = -(turned * (less @ turned)).double().sum(0).numpy() / len(a) ** 2
    return np.sqrt(np.maximum(squares, 0))


def nearest_ratio(nearest: NDArray) -> NDArray:
    """Distance to the nearest over that to the second nearest, of distances (n, 2): 0 for a copy, near 1 by chance."""
    return nearest[:, 0] / np.maximum(nearest[:, 1], 1e-12)


def copies(made: NDArray, real: NDArray) -> Statistic:
    """The share of samples among the smallest 5 % of all ratios (n,) (see nearest_ratio): hypergeometric.

    Real ones that were held out are as often close to one training example alone as perfect samples are. The ratio of
    two distances, because a blurred or typical sample is closer to all training examples, and no copy.
    """
    n = len(made)
    chosen = max(10, round(MEMORISED * 2 * n))
    ties = np.random.default_rng(0).random(2 * n)
    smallest = np.lexsort([ties, np.concatenate([made, real])])[:chosen]
    count = int((smallest < n).sum())
    null = stats.hypergeom(2 * n, n, chosen)
    low, high = null.interval(0.9)
    fault = f"copies of what was learnt from: {count / chosen:.0%} of those next to a training example are samples"
    return Statistic(count / chosen, 0.5, low / chosen, high / chosen, null.sf(count - 1), fault, n)
