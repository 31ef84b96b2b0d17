"""Point sets and the normaliser. `python dataset.py` draws the moons."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import Tensor

from randomness import integer_seed


def create_moon_dataset(n_samples: int = 500, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Two interleaved half circles with Gaussian noise around them: (n_samples, 2) float32, in random order."""
    return moons(n_samples, seed, noise=noise).points


@dataclass(frozen=True)
class PointSet:
    """Points (N, d) float32 and, where the set has parts, which part each belongs to: labels (N,) int64."""

    points: np.ndarray
    labels: np.ndarray | None = None


def moons(n_samples: int, seed: int, *, noise: float) -> PointSet:
    """scikit-learn's two moons; label 0 is the upper one."""
    if n_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {n_samples}")
    state = integer_seed(seed, "dataset") % 2**32
    points, labels = make_moons(n_samples, noise=noise, random_state=state)
    return PointSet(points.astype(np.float32), labels.astype(np.int64))


DATASETS: dict[str, Callable[..., PointSet]] = {"moons": moons}


def make_dataset(name: str, n_samples: int, seed: int, **options: Any) -> PointSet:
    """The point set of that name. Raises ValueError for a name that is not in DATASETS."""
    if name not in DATASETS:
        raise ValueError(f"dataset {name!r} is unknown; choose one of {', '.join(DATASETS)}")
    return DATASETS[name](n_samples, seed, **options)


@dataclass(frozen=True)
class Normaliser:
    """Shift and scale that give the training data mean 0 and standard deviation 1 in each dimension.

    mean, std: shape (*dims). Takes and returns tensors of shape (B, *dims).
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> "Normaliser":
        """Measured on x. A dimension that never varies keeps its scale."""
        std = x.std(0, correction=0)
        return cls(x.mean(0), torch.where(std > 0, std, torch.ones_like(std)))

    def normalise(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x)) / self.std.to(x)

    def denormalise(self, x: Tensor) -> Tensor:
        return x * self.std.to(x) + self.mean.to(x)


if __name__ == "__main__":
    import figures

    print(figures.save(figures.scatter(create_moon_dataset(), "two moons"), "outputs/dataset.png"))
