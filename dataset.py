"""Point sets, each with its exact distribution; the normaliser; and every data set by its name.

`python dataset.py` draws the moons.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import Tensor

from images.sets import IMAGE_DATASETS, ImageSet, held_out_images, make_images
from mixture import FINEST_EXACT, GaussianMixture, curve, mixed
from runtime.arrays import floats, numbers
from runtime.randomness import generator, integer_seed


def create_moon_dataset(n_samples: int = 500, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Two interleaved half circles with Gaussian noise around them: (n_samples, 2) float32, in random order."""
    return make_dataset("moons", n_samples, seed, noise=noise).points


@dataclass(frozen=True)
class PointSet:
    """Points (N, d), float32 or (see read_points) float64, the part of the set that each belongs to (N,) int64, and the
    distributions they come from.

    mixture: the exact distribution of all points; parts: that of each label. A file of points has neither, nor has
    noise too small for an exact density; `inexact` says why. `self[i]` returns tensors: (points,) or (points, labels).
    """

    points: np.ndarray
    labels: np.ndarray | None = None
    mixture: GaussianMixture | None = None
    parts: Sequence[GaussianMixture] = ()
    inexact: str = "they come from a file"

    def __post_init__(self) -> None:
        if not isinstance(self.points, np.ndarray) or self.points.dtype not in (np.float32, np.float64):
            raise ValueError("points must be an array of float32 or float64, such as read_points gives")
        if self.points.ndim != 2 or not numbers(self.points, "points").numel():
            raise ValueError(f"points must have shape (N, d), not {self.points.shape}")
        if self.labels is not None and (len(self.labels) != len(self.points) or self.labels.dtype != np.int64):
            raise ValueError(f"labels must be {len(self.points)} int64 numbers")

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, i: int | slice | Tensor) -> tuple[Tensor, ...]:
        rows = numbers(self.points, "points")[i]
        return (rows,) if self.labels is None else (rows, torch.from_numpy(self.labels)[i])

    @property
    def classes(self) -> list[str]:
        """Names of the labels."""
        return [] if self.labels is None else [str(i) for i in range(int(self.labels.max()) + 1)]


DataSet = PointSet | ImageSet
LARGEST = 1e100  # of a coordinate: the squares of larger ones come near to what float64 holds
FRESH = 20_000  # points to evaluate on where they can be drawn but have no exact density
BLURRED = 1e-4  # of a standard deviation: rounding to float32 may move a point by as much


# ---------------------------------------------------------------- exact distributions: a list of parts for each set


def moons(noise: float) -> list[GaussianMixture]:
    """scikit-learn's two moons: the upper half circle, then the lower."""
    return [
        curve(lambda a: np.stack([np.cos(a), np.sin(a)], 1), 0, math.pi, noise, math.pi),
        curve(lambda a: np.stack([1 - np.cos(a), 0.5 - np.sin(a)], 1), 0, math.pi, noise, math.pi),
    ]


def circles(noise: float, factor: float) -> list[GaussianMixture]:
    """Two circles around the origin: radius 1, then radius `factor`."""
    return [
        curve(lambda a, r=r: r * np.stack([np.cos(a), np.sin(a)], 1), 0, 2 * math.pi, noise, 2 * math.pi * r)
        for r in (1.0, factor)
    ]


def gaussians(noise: float, modes: int) -> list[GaussianMixture]:
    """Equal Gaussians on a circle of radius 1."""
    angles = 2 * math.pi * torch.arange(modes) / modes
    return [GaussianMixture(torch.stack([a.cos(), a.sin()])[None], noise**2) for a in angles]


def swiss_roll(noise: float) -> list[GaussianMixture]:
    """The rolled-up line of scikit-learn's swiss roll, without its depth, scaled to radius 1."""
    return [curve(lambda a: _arm(a / (4.5 * math.pi), a), 1.5 * math.pi, 4.5 * math.pi, noise, 9.5)]


def spirals(noise: float, arms: int) -> list[GaussianMixture]:
    """Arms that wind outwards from near the centre, one and a half turns, to radius 1."""
    return [
        curve(lambda a, k=k: _arm(a, 3 * math.pi * a + 2 * math.pi * k / arms), 0.1, 1, noise, 8.6) for k in range(arms)
    ]


def helix(noise: float) -> list[GaussianMixture]:
    """A screw line in three dimensions: two turns of radius 1, height 2."""
    turns = 4 * math.pi
    return [curve(lambda a: np.stack([np.cos(a), np.sin(a), 2 * a / turns - 1], 1), 0, turns, noise, turns + 2)]


def _arm(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


DATASETS: dict[str, Callable[..., list[GaussianMixture]]] = {
    "moons": moons,
    "circles": circles,
    "gaussians": gaussians,
    "swiss_roll": swiss_roll,
    "spirals": spirals,
    "helix": helix,
}


# ---------------------------------------------------------------- sets by name


def make_sets(name: str, n_samples: int | None, seed: int, **options: Any) -> tuple[DataSet, DataSet]:
    """Data to train on and data to evaluate on: points (make_dataset) or images (images.sets.make_images).

    Raises:
        ValueError, FileNotFoundError: no such set, or a file or folder that cannot be used.
    """
    if name not in IMAGE_DATASETS:
        data = make_dataset(name, n_samples, seed, **options)
        if name == "file":
            return held_out(data)
        return data, data if data.mixture else make_dataset(name, FRESH, seed + 1, **options)
    return held_out_images(make_images(name, n_samples=n_samples, seed=seed, **options), name, **options)


def make_dataset(name: str, n_samples: int | None, seed: int, **options: Any) -> PointSet:
    """n_samples points of the set of that name (a key of DATASETS, or "file"), with its exact distribution.

    Raises:
        ValueError: no such set or option of it, or a file that holds no points.
    """
    if n_samples is not None and n_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {n_samples}")
    if name == "file":
        return read_points(n_samples=n_samples, seed=seed, **options)
    if n_samples is None:
        raise ValueError(f"dataset={name} has no fixed size: set num_samples, the number of points to draw")
    if name not in DATASETS:
        raise ValueError(
            f"dataset {name!r} is unknown; choose one of {', '.join([*DATASETS, 'file', *IMAGE_DATASETS])}"
        )
    if not 0 <= (noise := options.get("noise", 0)) < math.inf:
        raise ValueError(f"noise must be at least 0 and finite, got {noise}")
    try:
        parts = DATASETS[name](**options)
    except TypeError as error:
        raise ValueError(f"dataset={name} does not take these options: {error}") from error
    mixture = mixed(parts)
    if name == "moons":
        points, labels = make_moons(n_samples, random_state=integer_seed(seed, "dataset") % 2**32, **options)
    else:
        part_of_centre = torch.cat([torch.full((len(part.centres),), i) for i, part in enumerate(parts)])
        points, centre = mixture.sample_parts(n_samples, generator(seed, "dataset"))
        labels = part_of_centre[centre]
    data = PointSet(np.asarray(points, np.float32), np.asarray(labels, np.int64), mixture, parts)
    exact = max(len(part.centres) for part in parts) <= FINEST_EXACT and not 0 < float(mixture.variance[0]) < 1e-12
    return data if exact else PointSet(data.points, data.labels, inexact="their noise is too small for one")


def held_out(data: PointSet) -> tuple[PointSet, PointSet]:
    """The first four fifths of a file's points to train on, the rest to evaluate on."""
    cut = max(1, len(data.points) * 4 // 5)
    return PointSet(data.points[:cut]), PointSet(data.points[cut:])


def read_points(path: str | None, n_samples: int | None, seed: int) -> PointSet:
    """At most n_samples points, chosen at random, of an .npy file or of a table of numbers in text.

    They are float32, or float64 where float32 would blur them or their squares would not fit into it.

    Raises:
        ValueError: no path, or the file is not a finite table of at least 2 columns and 2 rows, of sizes up to LARGEST.
        FileNotFoundError: no such file.
    """
    if not path:
        raise ValueError("dataset=file needs dataset.path=FILE, an .npy file or a table of numbers")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file gives one; the sentence below is enough
            table = (
                np.load(path) if Path(path).suffix == ".npy" else np.loadtxt(path, delimiter=_delimiter(path), ndmin=2)
            )
    except (ValueError, EOFError, MemoryError, TypeError) as error:
        raise ValueError(f"{path} is not a table of numbers: {error}") from error
    points = floats(table, str(path)).double().numpy()
    if points.ndim != 2 or points.shape[1] < 2 or len(points) < 2:
        raise ValueError(f"{path} must hold an array of shape (N, d) with N and d at least 2, not {points.shape}")
    if (largest := np.abs(points).max()) > LARGEST:
        raise ValueError(f"{path} holds numbers as large as {largest:.1g}: give the points in larger units")
    order = torch.randperm(len(points), generator=generator(seed, "dataset"))[:n_samples]
    return PointSet(_as_short_as_possible(points[order.numpy()]))


def _as_short_as_possible(points: np.ndarray) -> np.ndarray:
    """Points (N, d) in float32 where that holds them, their differences and their squares."""
    spread = points.std(0)
    if np.abs(points).max() > 1e15 or (spread[spread > 0] < 1e-15).any():
        return points
    short = points.astype(np.float32)
    return short if (np.abs(short - points).max(0) <= BLURRED * spread)[np.ptp(points, 0) > 0].all() else points


def _delimiter(path: str) -> str | None:
    with open(path, encoding="utf-8", errors="replace") as file:
        return "," if "," in file.readline() else None


@dataclass(frozen=True)
class Normaliser:
    """Shift and scale that give the training data mean 0 and standard deviation 1 in each dimension.

    mean, std: shape (*dims), of the data's type. Tensors have shape (B, *dims); normalised ones are float32.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> "Normaliser":
        """Fitted to x. A constant dimension keeps its scale."""
        varies = (x != x[0]).any(0)  # rounding may give a constant a spread
        std = x.std(0, correction=0)
        return cls(torch.where(varies, x.mean(0), x[0]), torch.where(varies & (std > 0), std, torch.ones_like(std)))

    @classmethod
    def of(cls, data: DataSet) -> "Normaliser":
        """For a data set: fitted to points; the identity for images, which lie in [-1, 1] already."""
        if isinstance(data, PointSet):
            return cls.fit(data[:][0])
        return cls(torch.zeros(data.dims), torch.ones(data.dims))

    def normalise(self, x: Tensor) -> Tensor:
        return ((x - self.mean.to(x)) / self.std.to(x)).float()

    def denormalise(self, x: Tensor) -> Tensor:
        return x.to(self.mean.dtype) * self.std.to(x.device) + self.mean.to(x.device)


if __name__ == "__main__":
    from viz import stills as figures

    print(figures.save(figures.scatter(create_moon_dataset(), "two moons"), "outputs/dataset.png"))
