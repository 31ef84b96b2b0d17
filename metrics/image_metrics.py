"""How good generated images are: distances between the features of a small judge, each beside its floor.

The judge (image_classifier.py) has *seen* the training images, so that everything is held against unseen ones, and a
floor is the same figure for some of the unseen images against the others. A figure means nothing without n, the judge
and its floor: the Frechet distance of finite samples is larger for smaller n, so value and floor use the same n and
the same number of real images. Its unit is the variance of one feature over the training images; there are 64.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from images.sets import ImageSet
from metrics.distances import CLEARLY, Distance, MetricResult, metric_result
from metrics.image_features import check_labels, feature_classifier, features_of
from runtime.randomness import generator, integer_seed

CHUNK = 500  # images that the judge looks at together
LEAST, MOST, MOST_REAL = 50, 2000, 10_000  # samples that are judged, and unseen images that they are held against
NEIGHBOURS, REPEATS = 3, 20

# ---------------------------------------------------------------- figures of two clouds of features (n, d) and (m, d)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of the means and covariances (Heusel et al. 2017, eq. 6).

    The trace of the root is the sum of the roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which is symmetric:
    sound even where a covariance is singular.
    """
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return max(float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap), 0.0)


def share_inside(points: Tensor, cloud: Tensor, k: int = NEIGHBOURS) -> float:
    """The share of `points` within the manifold of `cloud`: balls that reach each k-th nearest neighbour.

    Generated points in the real cloud: precision. Real points in the generated cloud: recall (Kynkaanniemi et al.
    2019, arXiv 1904.06991, eq. 1 and 2). Costs the square of the numbers of points.
    """
    radius = torch.cdist(cloud, cloud).topk(k + 1, largest=False).values[:, -1]  # + 1: the nearest is the point itself
    return float((torch.cdist(points, cloud) <= radius).any(1).double().mean())


def compare(made: Tensor, real: Tensor) -> tuple[float, float, float]:
    """Frechet distance (made against all real), recall and precision (against as many real as made)."""
    same = real[: len(made)]
    return frechet_distance(made, real), share_inside(same, made), share_inside(made, same)


# ---------------------------------------------------------------- the judgement


FRECHET = Distance(
    "Frechet distance", frechet_distance, LEAST, MOST, REPEATS, "FD {0:.2g} where real images give {1:.2g}"
)
SHARES = {
    "recall": "reaches {0:.0%} of real images where real ones reach {1:.0%}",
    "precision": "{0:.0%} lie among real images where {1:.0%} of real ones do",
    "label accuracy": "{0:.1%} show the label asked for; of real images {1:.1%} show theirs",
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
    """Figures of generated images (N, C, H, W), each with its floor; `Judged.n` says how many of them it used.

    Args:
        samples: floats in [-1, 1] (clamped); a random choice of at most 2000, and for distances at most half as many
            as there are unseen images. Their classes should be as frequent as in the data: another mix is a distance.
        asked: the labels (N,) that were asked for; adds the judge's accuracy on them. None: not asked for any.
        train: what the judge learns from.
        unseen: real images that neither the judge nor the generator has seen; at least 100.

    Raises:
        ValueError: images without labels, too few, of another shape, not floats, or not finite.
    """
    for images in (train, unseen):
        check_labels(images)
    n = _checked(samples, asked, train.dims, len(unseen))
    net = feature_classifier(train, seed=seed, folder=folder, device=device)
    chosen = _choice(len(unseen), MOST_REAL, seed, "unseen images")
    real, told = features_of(net, (unseen[rows][0] for rows in chosen.split(CHUNK)))
    right = (told == unseen.labels[chosen]).numpy()
    print(f"judge of images: {right.mean():.2%} of {len(right):,} unseen images right")
    chosen = _choice(len(samples), MOST, seed, "judged images")
    made, told = features_of(net, (samples[rows] for rows in chosen.split(CHUNK)))
    rows = _distances(made[:n], real, seed)
    if asked is not None:
        accuracy, floors = float((told == asked.cpu()[chosen]).double().mean()), _accuracies(right, len(told), seed)
        rows.append(_share_result("label accuracy", accuracy, floors, len(told)))
    return rows


def _choice(n: int, most: int, seed: int, purpose: str, index: int = 0) -> Tensor:
    """At most `most` of n rows, at random: what comes sorted by class must not be cut off."""
    return torch.randperm(n, generator=generator(seed, purpose, index))[:most]


def _distances(made: Tensor, real: Tensor, seed: int) -> list[MetricResult]:
    n = len(made)
    shuffled = [real[_choice(len(real), len(real), seed, "real images", i)] for i in range(REPEATS + 1)]
    floors = np.array([compare(some[:n], some[n:]) for some in shuffled[1:]])
    distance, *shares = compare(made, shuffled[0][n:])
    rows = [_share_result(name, *figure, n) for name, *figure in zip(("recall", "precision"), shares, floors.T[1:])]
    return [metric_result(FRECHET, distance, floors[:, 0], n), *rows]


def _accuracies(right: NDArray, n: int, seed: int) -> NDArray:
    """The judge's accuracy on n real images, many times: binomial, from a rate known by len(right) images only."""
    rng, hits = np.random.default_rng(integer_seed(seed, "judge accuracy")), right.sum()
    return rng.binomial(n, rng.beta(hits + 0.5, len(right) - hits + 0.5, size=4000)) / n  # 0.5: Jeffreys' prior


def _share_result(name: str, value: float, floors: NDArray, n: int) -> MetricResult:
    """Hold a share, which should be high, against repeated floors; more than real images give is no fault."""
    low, median, high = (float(q) for q in np.quantile(floors, [0.05, 0.5, 0.95]))
    passed = bool(median - value <= CLEARLY * max(np.std(floors, ddof=1), 1 / n))
    if passed:
        beyond = "a little beyond its floor's band" if value < low else "more than real images give"
        verdict = f"indistinguishable at n = {n:,}" if low <= value <= high else beyond
    else:
        verdict = SHARES[name].format(value, median)
    return MetricResult(name, value, median, low, high, n, passed, verdict)


def _checked(samples: Tensor, asked: Tensor | None, dims: tuple[int, ...], num_unseen: int) -> int:
    """How many samples the distances can use."""
    if tuple(samples.shape[1:]) != tuple(dims) or not samples.is_floating_point():
        shape = ", ".join(map(str, dims))
        raise ValueError(f"samples must be floats of shape (N, {shape}), not {samples.dtype} {tuple(samples.shape)}")
    if not samples.isfinite().all():
        raise ValueError("the samples hold NaN or infinity")
    if asked is not None and asked.shape != samples.shape[:1]:
        raise ValueError(f"there must be one label for each of {len(samples)} samples, not {tuple(asked.shape)}")
    n = min(len(samples), MOST, min(num_unseen, MOST_REAL) // 2)
    if n < LEAST:
        raise ValueError(
            f"judging images needs at least {LEAST} samples and {2 * LEAST} unseen images,"
            f" not {len(samples)} and {num_unseen}"
        )
    return n
