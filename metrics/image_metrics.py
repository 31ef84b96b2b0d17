"""Metrics of generated images, each with its floor, computed on the features of a small classifier.

The feature classifier (image_features.py) was trained on the training images, so samples are compared with unseen
ones, and the floor is the same metric between some of the unseen images and the others. The Frechet distance of finite
samples grows as n shrinks, so value and floor use the same n and the same number of real images, and a value means
nothing without n, the classifier and the floor. Its unit is the variance of one of the 64 features over the training
images.

The level of the whole table is about 1 %. Floors of 20 repeats, from one set of unseen images, scatter less than they
should: Frechet distance, recall or precision of perfect samples are beyond 4 of their standard deviations in 0.4 % to
1.2 % of tables, beyond 4.5 in 0.4 % to 0.8 % (1000 tables each, of 60 or 120 digits and of Gaussian features). So these
fail beyond 4.5, and copies of training images, whose p-value is exact, at 0.2 %.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from images.sets import ImageSet
from metrics.image_features import SEED_PURPOSE, check_labels, feature_classifier, features_of
from metrics.table import LEVEL, MetricResult, tested
from metrics.two_sample import copies, nearest_ratio
from runtime.randomness import generator, integer_seed

CHUNK = 500  # images that the classifier takes at once
FEWEST, MOST, MOST_REAL = 50, 2000, 10_000  # samples used, and unseen images that they are compared with
NEIGHBOURS, REPEATS = 3, 20
THRESHOLD = 4.5  # standard deviations of the floors beyond which images count as distinguishable
COMPARED = 500  # samples and as many unseen images that are looked up among the training images

# ---------------------------------------------------------------- metrics of two sets of features (n, d) and (m, d)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of the means and covariances (Heusel et al. 2017, eq. 6).

    The trace of the root is the sum of the roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric:
    stable even where a covariance is singular.
    """
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)  # S_a, S_b: (d, d)
    values, vectors = torch.linalg.eigh(cov_a)  # (d,), (d, d)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T  # S_a^(1/2): (d, d)
    overlap = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return max(float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap), 0.0)


def share_inside(points: Tensor, cloud: Tensor, k: int = NEIGHBOURS) -> float:
    """The share of `points` (n, d) inside the manifold of `cloud` (m, d): balls out to each k-th nearest neighbour.

    Generated points in the real cloud: precision. Real points in the generated cloud: recall (Kynkaanniemi et al.
    2019, arXiv 1904.06991, eq. 1 and 2). Time and memory are quadratic in the number of points.
    """
    radius = (
        torch.cdist(cloud, cloud).topk(k + 1, largest=False).values[:, -1]
    )  # (m,); + 1: the nearest is the point itself
    inside = torch.cdist(points, cloud) <= radius  # (n, m)
    return float(inside.any(1).double().mean())


def compare(made: Tensor, real: Tensor) -> tuple[float, float, float]:
    """Frechet distance (of made and all real), recall and precision (of made and as many real)."""
    same = real[: len(made)]
    return frechet_distance(made, real), share_inside(same, made), share_inside(made, same)


# ---------------------------------------------------------------- evaluation


SHARES = {
    "recall": "covers {0:.0%} of real images where real ones cover {1:.0%}",
    "precision": "{0:.0%} lie among real images where {1:.0%} of real ones do",
    "label accuracy": "{0:.1%} are classified as the label asked for; of real images, {1:.1%} as their own",
}


def evaluate_images(
    samples: Tensor,
    asked: Tensor | None,
    train: ImageSet,
    unseen: ImageSet,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    folder: str | Path = "outputs/classifiers",
) -> list[MetricResult]:
    """Metrics of generated images (N, C, H, W), each with its floor; `MetricResult.n` is the number of images used.

    Args:
        samples: floats in [-1, 1] (clamped). At most 2000 are used, chosen at random, and all metrics but the label
            accuracy use at most half as many as there are unseen images. Their classes should be as frequent as in
            the data: a different mix counts as a difference.
        asked: the labels (N,) that were asked for; adds the classifier's accuracy on them. None: none were.
        train: what the classifier is trained on.
        unseen: at least 100 real images that neither the classifier nor the generator was trained on.

    Raises:
        ValueError: images without labels, too few, of another shape, not floats, or not finite.
    """
    labels = [check_labels(images) for images in (train, unseen)][1]
    n = _checked(samples, asked, train.dims, len(unseen))
    net = feature_classifier(train, seed=seed, folder=folder, device=device)
    chosen = _choice(len(unseen), MOST_REAL, seed, "unseen images")
    real, predicted = features_of(net, (unseen[rows][0] for rows in chosen.split(CHUNK)))
    right = (predicted == labels[chosen]).numpy()  # (at most MOST_REAL,)
    print(f"feature classifier: {right.mean():.2%} of {len(right):,} unseen images classified correctly")
    chosen = _choice(len(samples), MOST, seed, f"{SEED_PURPOSE}d images")
    made, predicted = features_of(net, (samples[rows] for rows in chosen.split(CHUNK)))
    rows = [*compare_features(made[:n], real, seed), _memorised(samples[chosen], train, unseen, seed)]
    if asked is not None:
        accuracy = float((predicted == asked.cpu()[chosen]).double().mean())
        floors = _accuracies(right, len(predicted), seed)
        rows.append(_share_result("label accuracy", accuracy, floors, len(predicted)))
    return rows


def frechet_of(
    train: ImageSet,
    unseen: ImageSet,
    count: int,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    folder: str | Path = "outputs/classifiers",
) -> tuple[Callable[[Tensor], float], list[float]]:
    """The Frechet distance alone, as a function of images (N, C, H, W) in [-1, 1], and its floors (REPEATS,).

    Of `count` images as many are used as in `evaluate_images`, whose ValueErrors are raised here, too.
    """
    check_labels(unseen)
    n, net = compared(count, len(unseen)), feature_classifier(train, seed=seed, folder=folder, device=device)
    chosen = _choice(len(unseen), MOST_REAL, seed, "unseen images")
    real, _ = features_of(net, (unseen[rows][0] for rows in chosen.split(CHUNK)))
    shuffled = [real[_choice(len(real), len(real), seed, "real images", i)] for i in range(REPEATS + 1)]

    def measure(images: Tensor) -> float:
        made, _ = features_of(net, iter(images[:n].split(CHUNK)))
        return frechet_distance(made, shuffled[0][n:])

    return measure, [frechet_distance(some[:n], some[n:]) for some in shuffled[1:]]


def _memorised(samples: Tensor, train: ImageSet, unseen: ImageSet, seed: int) -> MetricResult:
    n = min(len(samples), len(unseen), COMPARED)
    real = unseen[_choice(len(unseen), n, seed, "compared images")][0]
    ratios = (nearest_ratio(nearest_two(images, train).numpy()) for images in (samples[:n].clamp(-1, 1), real))
    return tested("memorised", copies(*ratios), LEVEL / 5)


def nearest_two(images: Tensor, train: ImageSet) -> Tensor:
    """Distances (n, 2), in pixels' units, from images (n, C, H, W) to the nearest two training images."""
    nearest = torch.full((len(images), 2), torch.inf)
    for rows in torch.arange(len(train)).split(10 * CHUNK):
        some = torch.cdist(images.flatten(1).float().cpu(), train[rows][0].flatten(1))  # (n, rows)
        nearest = torch.cat([nearest, some], 1).topk(2, largest=False, sorted=True).values
    return nearest


def _choice(n: int, most: int, seed: int, purpose: str, index: int = 0) -> Tensor:
    """At most `most` of n row numbers, at random: samples may come sorted by class."""
    return torch.randperm(n, generator=generator(seed, purpose, index))[:most]


def compare_features(made: Tensor, real: Tensor, seed: int) -> list[MetricResult]:
    """Frechet distance, recall and precision of features (n, d) and real ones (m, d), m at least 2 n, with floors."""
    n = len(made)
    shuffled = [real[_choice(len(real), len(real), seed, "real images", i)] for i in range(REPEATS + 1)]
    floors = np.array([compare(some[:n], some[n:]) for some in shuffled[1:]])  # (REPEATS, 3)
    distance, *shares = compare(made, shuffled[0][n:])
    names = ("recall", "precision")
    rows = [_share_result(name, share, floor, n) for name, share, floor in zip(names, shares, floors.T[1:])]
    return [_distance_result(distance, floors[:, 0], n), *rows]


def _accuracies(right: NDArray, n: int, seed: int) -> NDArray:
    """Simulated accuracies (4000,) on n real images: binomial, of a rate that is known from len(right) images only."""
    rng, hits = np.random.default_rng(integer_seed(seed, f"{SEED_PURPOSE} accuracy")), right.sum()
    return rng.binomial(n, rng.beta(hits + 0.5, len(right) - hits + 0.5, size=4000)) / n  # 0.5: Jeffreys' prior


def _distance_result(value: float, floors: NDArray, n: int) -> MetricResult:
    """Compare a Frechet distance with repeated floors, in logarithms: these scatter evenly around their median."""
    low, median, high = (float(q) for q in np.quantile(floors, [0.05, 0.5, 0.95]))
    logs = np.log(np.maximum([value, median, *floors], 1e-12))
    passed = bool(logs[0] - logs[1] <= THRESHOLD * np.std(logs[2:], ddof=1))
    if passed:
        verdict = f"indistinguishable at n = {n:,}" if value <= high else "slightly outside its floor's band"
    else:
        verdict = f"FD {value:.2g} where real images give {median:.2g}"
    return MetricResult("Frechet distance", value, median, low, high, n, passed, verdict)


def _share_result(name: str, value: float, floors: NDArray, n: int) -> MetricResult:
    """Compare a share, which should be high, with repeated floors; a higher one than real images have is no fault."""
    low, median, high = (float(q) for q in np.quantile(floors, [0.05, 0.5, 0.95]))
    passed = bool(median - value <= THRESHOLD * max(np.std(floors, ddof=1), 1 / n))
    if passed:
        beyond = "slightly outside its floor's band" if value < low else "higher than for real images"
        verdict = f"indistinguishable at n = {n:,}" if low <= value <= high else beyond
    else:
        verdict = SHARES[name].format(value, median)
    return MetricResult(name, value, median, low, high, n, passed, verdict)


def _checked(samples: Tensor, asked: Tensor | None, dims: tuple[int, ...], num_unseen: int) -> int:
    """How many samples can be used beside as many unseen images. Raises ValueError: see evaluate_images."""
    if tuple(samples.shape[1:]) != tuple(dims) or not samples.is_floating_point():
        shape = ", ".join(map(str, dims))
        raise ValueError(f"samples must be floats of shape (N, {shape}), not {samples.dtype} {tuple(samples.shape)}")
    if not samples.isfinite().all():
        raise ValueError("the samples hold NaN or infinity")
    if asked is not None and asked.shape != samples.shape[:1]:
        raise ValueError(f"there must be one label for each of {len(samples)} samples, not {tuple(asked.shape)}")
    return compared(len(samples), num_unseen)


def compared(samples: int, unseen: int) -> int:
    """How many of so many samples are compared with as many unseen images. Raises ValueError for too few of either."""
    n = min(samples, MOST, min(unseen, MOST_REAL) // 2)
    if n < FEWEST:
        raise ValueError(
            f"evaluating images needs at least {FEWEST} samples and {2 * FEWEST} unseen images,"
            f" not {samples} and {unseen}"
        )
    return n
