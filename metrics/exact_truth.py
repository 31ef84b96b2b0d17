"""The exact distribution of a set of points, and the distance of samples to draws of it."""

import numpy as np
from numpy.typing import NDArray

from dataset import PointSet, make_dataset
from metrics.distances import METRICS, Draw
from pipeline import Pipeline
from registry.data_rows import POINT_SETS

DISTANCE = METRICS[0]  # sliced Wasserstein-1
TRUTH_DRAWS = 5  # sets of exact draws; the distance is the median over them
VALUE_MAX = 1e6  # samples beyond it count as not finite


def exact_set(pipeline: Pipeline, what: str) -> PointSet:
    """The set that a model of points has learnt, with its exact distribution. what: the option that needs it.

    Raises:
        ValueError: images, or points whose distribution is not known.
    """
    data = None
    name = pipeline.config["dataset"]["name"]
    if name in POINT_SETS:
        data = make_dataset(n_samples=1000, seed=0, **pipeline.config["dataset"])
    if data is None or data.mixture is None:
        raise ValueError(f"{what} needs points whose exact distribution is known, and dataset={name} has none")
    return data


def distance_to_truth(points: NDArray, truth: Draw) -> float:
    """The median sliced Wasserstein-1 of points (n, d) to sets of exact draws; NaN where the points are not finite."""
    if not np.isfinite(points).all() or np.abs(points).max() > VALUE_MAX:
        return float("nan")
    distances = [DISTANCE.compute(points, truth(len(points), i)) for i in range(TRUTH_DRAWS)]
    return float(np.median(distances))
