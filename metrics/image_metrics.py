"""Metrics of generated images, each with its floor, computed on the features of a small classifier.

The feature classifier (image_features.py) was trained on the training images. So samples are
compared with unseen images, and the floor is the same metric between some of the unseen images and
the others.

The Frechet distance of finite samples grows as n shrinks. So value and floor use the same number of
samples and of real images. A value means nothing without n, the classifier and the floor. Its unit
is the variance of one of the 64 features over the training images.

The level of the whole table is about 1 %. The floors are 20 repeats on one set of unseen images,
whose standard deviation is too small. This was measured on 1000 tables each of perfect samples: 60
digits, 120 digits, and Gaussian features. Frechet distance, recall or precision deviated by more
than 4 of these standard deviations in 0.4 to 1.2 % of tables. Deviations by more than 4.5 occurred
in 0.4 to 0.8 %. So these metrics fail beyond 4.5 standard deviations. The test for copies of
training images has an exact p-value and the level 0.2 %.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from images.sets import ImageSet
from metrics.image_features import (
    SEED_PURPOSE,
    FeatureClassifier,
    check_labels,
    extract_features,
    feature_classifier,
)
from metrics.table import LEVEL, MetricResult, to_result
from metrics.two_sample import copies, nearest_ratio
from runtime.randomness import generator, integer_seed

CHUNK = 500  # images that the classifier takes at once
MIN_SAMPLES = 50
MAX_SAMPLES = 2000
MAX_REAL = 10_000  # unseen images that the samples are compared with
MAX_NEAREST_SEARCHES = 500  # samples, and as many unseen images, whose nearest training images are found
NEIGHBOURS = 3
FLOOR_REPEATS = 20
FLOOR_QUANTILES = [0.05, 0.5, 0.95]  # the 90 % band of a floor, and its median
THRESHOLD = 4.5  # standard deviations of the floors beyond which images count as distinguishable
ACCURACY_DRAWS = 4000  # simulated accuracies
SMALLEST = 1e-12  # keeps logarithms finite


# ---------------------------------------------------------------- metrics of two sets of features


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the Frechet distance of two sets of features.

    With the means m and the covariances S it is (Heusel et al. 2017, eq. 6)

        |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)).

    The trace of the root is the sum of the roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2).
    This matrix is symmetric, so the computation is stable even if a covariance is singular.

    The distance sees differences of means and covariances, and nothing else. So it does not see
    copies of training images.

    Args:
        a, b: features of shape (n, d) and (m, d), in float64.
    """
    cov_a = torch.cov(a.T)  # (d, d)
    cov_b = torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)  # (d,), (d, d)
    root_a = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    trace_of_root = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()

    mean_part = (a.mean(0) - b.mean(0)).square().sum()
    distance = mean_part + cov_a.trace() + cov_b.trace() - 2 * trace_of_root
    return max(float(distance), 0.0)


def share_inside(points: Tensor, cloud: Tensor, k: int = NEIGHBOURS) -> float:
    """Return the share of points inside the estimated manifold of a cloud.

    The manifold is the union of balls around the points of the cloud. Each ball extends to the k-th
    nearest neighbour in the cloud. The share of generated points in the real manifold is the
    precision. The share of real points in the generated manifold is the recall (Kynkaanniemi et al.
    2019, arXiv 1904.06991, eq. 1 and 2). Time and memory are quadratic in the number of points.

    Args:
        points: of shape (n, d).
        cloud: of shape (m, d).
        k: the number of the neighbour.
    """
    # Of the k + 1 nearest points of the cloud, the first is the point itself.
    nearest = torch.cdist(cloud, cloud).topk(k + 1, largest=False).values
    radius = nearest[:, -1]  # (m,)
    inside = torch.cdist(points, cloud) <= radius  # (n, m)
    return float(inside.any(1).double().mean())


def compare(made: Tensor, real: Tensor) -> tuple[float, float, float]:
    """Return Frechet distance, recall and precision of generated features.

    The Frechet distance uses all real features, recall and precision as many as there are
    generated.
    """
    same_size = real[: len(made)]
    recall = share_inside(same_size, made)
    precision = share_inside(made, same_size)
    return frechet_distance(made, real), recall, precision


def nearest_two(images: Tensor, train: ImageSet) -> Tensor:
    """Return the distances from images to the nearest two training images, of shape (n, 2).

    They are Euclidean distances of pixel values, in rising order. images: of shape (n, C, H, W).
    """
    pixels = images.flatten(1).float().cpu()
    nearest = torch.full((len(images), 2), torch.inf)
    for rows in torch.arange(len(train)).split(10 * CHUNK):
        distances = torch.cdist(pixels, train[rows][0].flatten(1))  # (n, rows)
        candidates = torch.cat([nearest, distances], 1)
        nearest = candidates.topk(2, largest=False, sorted=True).values
    return nearest


# ---------------------------------------------------------------- evaluation


# The metrics that are shares, each with its verdict if it fails. {0} is the value, {1} its floor.
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
    """Return the metrics of generated images, each with its floor.

    `MetricResult.n` is the number of images that a metric used. At most 2,000 samples are used,
    chosen at random. All metrics but the label accuracy use at most half as many as there are
    unseen images.

    Args:
        samples: images of shape (N, C, H, W), floats in [-1, 1] (clamped). Their classes should be
            as frequent as in the data, because a different mix counts as a difference.
        asked: the labels (N,) that the samples were generated for. The classifier's accuracy on
            them is then an additional metric. None: there were none.
        train: the images that the classifier is trained on.
        unseen: at least 100 real images on which neither classifier nor generator was trained.
        seed: of the classifier and of all random choices.
        device: the device of the classifier.
        folder: where trained classifiers are saved.

    Raises:
        ValueError: the images have no labels, are too few, or have another shape, or the samples
            are not floats or not finite.
    """
    check_labels(train)
    check_labels(unseen)
    n = _checked(samples, asked, train.dims, len(unseen))
    net = feature_classifier(train, seed=seed, folder=folder, device=device)

    real, right = _real_features(net, unseen, seed)
    share = f"{right.mean():.2%} of {len(right):,} unseen images"
    print(f"feature classifier: {share} classified correctly")

    chosen = _choice(len(samples), MAX_SAMPLES, seed, f"{SEED_PURPOSE}d images")
    made, predicted = extract_features(net, (samples[rows] for rows in chosen.split(CHUNK)))
    results = compare_features(made[:n], real, seed)
    results.append(_memorised(samples[chosen], train, unseen, seed))
    if asked is not None:
        accuracy = float((predicted == asked.cpu()[chosen]).double().mean())
        floors = _accuracies(right, len(predicted), seed)
        row = _share_result("label accuracy", accuracy, floors, len(predicted))
        real_labels = check_labels(unseen)[_choice(len(unseen), MAX_REAL, seed, "unseen images")]
        worst = worst_label(predicted, asked.cpu()[chosen], right, real_labels, unseen.classes)
        results.append(replace(row, verdict=f"{row.verdict}; {worst}"))
    return results


def worst_label(predicted: Tensor, asked: Tensor, right: NDArray, real_labels: Tensor, classes: Sequence[str]) -> str:
    """Return the label whose samples the classifier recognises least often, compared with its real images.

    Args:
        predicted, asked: the labels (n,) that the classifier gives the samples, and those asked for.
        right, real_labels: whether it was right on each real image (m,), and their labels.
        classes: the names of the labels.
    """
    worst = (math.inf, 0, 0.0, 0.0)
    for label in asked.unique().tolist():
        right_of_label = right[(real_labels == label).numpy()]
        if not len(right_of_label):
            continue
        of_samples = float((predicted[asked == label] == label).double().mean())
        of_real = float(np.mean(right_of_label))
        worst = min(worst, (of_samples - of_real, label, of_samples, of_real))
    _, label, of_samples, of_real = worst
    return f"worst label {classes[label]}: {of_samples:.1%}, real images {of_real:.1%}"


def frechet_measure(
    train: ImageSet,
    unseen: ImageSet,
    count: int,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    folder: str | Path = "outputs/classifiers",
) -> tuple[Callable[[Tensor], float], list[float]]:
    """Return a function that measures the Frechet distance alone, and 20 floors.

    The function takes images (N, C, H, W) in [-1, 1].

    Args:
        count: N. As many images are used as `evaluate_images` would use of them.
        train, unseen, seed, device, folder: as in `evaluate_images`.

    Raises:
        ValueError: as in `evaluate_images`.
    """
    check_labels(unseen)
    n = comparable_count(count, len(unseen))
    net = feature_classifier(train, seed=seed, folder=folder, device=device)
    real, _ = _real_features(net, unseen, seed)
    own, *others = _shuffles(real, seed)

    def measure(images: Tensor) -> float:
        made, _ = extract_features(net, iter(images[:n].split(CHUNK)))
        return frechet_distance(made, own[n:])

    floors = [frechet_distance(shuffled[:n], shuffled[n:]) for shuffled in others]
    return measure, floors


def _real_features(
    net: FeatureClassifier,
    unseen: ImageSet,
    seed: int,
) -> tuple[Tensor, NDArray]:
    """Return features of unseen images, chosen at random, and whether each was classified
    correctly.

    Both cover at most 10,000 images.
    """
    chosen = _choice(len(unseen), MAX_REAL, seed, "unseen images")
    features, predicted = extract_features(net, (unseen[rows][0] for rows in chosen.split(CHUNK)))
    right = (predicted == check_labels(unseen)[chosen]).numpy()
    return features, right


def _shuffles(real: Tensor, seed: int) -> list[Tensor]:
    """Return the real features in 21 random orders: one for the samples, and 20 for the floors."""
    shuffles = []
    for i in range(FLOOR_REPEATS + 1):
        order = _choice(len(real), len(real), seed, "real images", i)
        shuffles.append(real[order])
    return shuffles


def _choice(n: int, most: int, seed: int, purpose: str, index: int = 0) -> Tensor:
    """Return at most `most` of n row numbers, chosen at random: samples may come sorted by
    class."""
    return torch.randperm(n, generator=generator(seed, purpose, index))[:most]


# ---------------------------------------------------------------- value and floor


def compare_features(made: Tensor, real: Tensor, seed: int) -> list[MetricResult]:
    """Return Frechet distance, recall and precision, each with its floor.

    Args:
        made: features of generated images, of shape (n, d).
        real: features of real images, of shape (m, d) with m at least 2 n.
        seed: of the random orders of the real features.
    """
    n = len(made)
    own, *others = _shuffles(real, seed)
    distance, recall, precision = compare(made, own[n:])
    floors = np.array([compare(shuffled[:n], shuffled[n:]) for shuffled in others])  # (20, 3)
    return [
        _distance_result(distance, floors[:, 0], n),
        _share_result("recall", recall, floors[:, 1], n),
        _share_result("precision", precision, floors[:, 2], n),
    ]


def _memorised(samples: Tensor, train: ImageSet, unseen: ImageSet, seed: int) -> MetricResult:
    """Test whether samples are copies of training images (see `two_sample.copies`)."""
    n = min(len(samples), len(unseen), MAX_NEAREST_SEARCHES)
    real = unseen[_choice(len(unseen), n, seed, "compared images")][0]
    made_ratios = nearest_ratio(nearest_two(samples[:n].clamp(-1, 1), train).numpy())
    real_ratios = nearest_ratio(nearest_two(real, train).numpy())
    return to_result("memorised", copies(made_ratios, real_ratios), LEVEL / 5)


def _accuracies(right: NDArray, n: int, seed: int) -> NDArray:
    """Simulate the accuracy on n real images, of shape (4000,).

    The number of hits is binomial. Its rate is known only from the images in `right`, so it is
    drawn from its posterior distribution, a beta distribution under Jeffreys' prior.

    Args:
        right: whether each of some real images was classified correctly.
        n: the number of images.
        seed: of the simulation.
    """
    rng = np.random.default_rng(integer_seed(seed, f"{SEED_PURPOSE} accuracy"))
    hits = right.sum()
    misses = len(right) - hits
    rate = rng.beta(hits + 0.5, misses + 0.5, size=ACCURACY_DRAWS)
    return rng.binomial(n, rate) / n


def _distance_result(value: float, floors: NDArray, n: int) -> MetricResult:
    """Compare a Frechet distance with its floors on a logarithmic scale, where they are
    symmetric."""
    low, median, high = (float(q) for q in np.quantile(floors, FLOOR_QUANTILES))
    log_value, log_median, *log_floors = np.log(np.maximum([value, median, *floors], SMALLEST))
    deviation = np.std(log_floors, ddof=1)
    passed = bool(log_value - log_median <= THRESHOLD * deviation)

    if not passed:
        verdict = f"FD {value:.2g} where real images give {median:.2g}"
    elif value <= high:
        verdict = f"indistinguishable at n = {n:,}"
    else:
        verdict = "slightly outside its floor's band"
    highest = float(np.exp(log_median + THRESHOLD * deviation))
    return MetricResult("Frechet distance", value, median, low, high, n, passed, verdict, bounds=(None, highest))


def _share_result(name: str, value: float, floors: NDArray, n: int) -> MetricResult:
    """Compare a share with its floors. Only a smaller share than that of real images is a fault."""
    low, median, high = (float(q) for q in np.quantile(floors, FLOOR_QUANTILES))
    deviation = max(np.std(floors, ddof=1), 1 / n)
    passed = bool(median - value <= THRESHOLD * deviation)

    if not passed:
        verdict = SHARES[name].format(value, median)
    elif low <= value <= high:
        verdict = f"indistinguishable at n = {n:,}"
    elif value < low:
        verdict = "slightly outside its floor's band"
    else:
        verdict = "higher than for real images"
    lowest = float(median - THRESHOLD * deviation)
    return MetricResult(name, value, median, low, high, n, passed, verdict, bounds=(lowest, None))


# ---------------------------------------------------------------- checks


def _checked(samples: Tensor, asked: Tensor | None, dims: Sequence[int], num_unseen: int) -> int:
    """Return how many samples can be compared with as many unseen images.

    Raises:
        ValueError: as in `evaluate_images`.
    """
    if tuple(samples.shape[1:]) != tuple(dims) or not samples.is_floating_point():
        shape = ", ".join(map(str, dims))
        found = f"{samples.dtype} {tuple(samples.shape)}"
        raise ValueError(f"samples must be floats of shape (N, {shape}), not {found}")
    if not samples.isfinite().all():
        raise ValueError("the samples hold NaN or infinity")
    if asked is not None and asked.shape != samples.shape[:1]:
        needed = f"one label for each of {len(samples)} samples"
        raise ValueError(f"there must be {needed}, not {tuple(asked.shape)}")
    return comparable_count(len(samples), num_unseen)


def comparable_count(samples: int, unseen: int) -> int:
    """Return how many samples can be compared with as many unseen images.

    Raises:
        ValueError: there are too few of either.
    """
    n = min(samples, MAX_SAMPLES, min(unseen, MAX_REAL) // 2)
    if n < MIN_SAMPLES:
        needed = f"at least {MIN_SAMPLES} samples and {2 * MIN_SAMPLES} unseen images"
        raise ValueError(f"evaluating images needs {needed}, not {samples} and {unseen}")
    return n
