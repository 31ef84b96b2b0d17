"""Point sets, each with its exact distribution; the normaliser; and every data set by its name.

`python dataset.py` draws the moons.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import Tensor

from images.sets import IMAGE_DATASETS, ImageSet, held_out_images, make_images
from points import curves, drawings
from points.large import copy_rows, map_large_file, read_rows, spread
from points.mixture import MAX_EXACT_CENTRES, GaussianMixture, mixed
from points.point_files import read_table
from runtime.arrays import numbers
from runtime.randomness import generator, integer_seed


def create_moon_dataset(n_samples: int = 500, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Two interleaved half circles with Gaussian noise around them: (n_samples, 2) float32, in random order."""
    return make_dataset("moons", n_samples, seed, noise=noise).points


@dataclass(frozen=True)
class PointSet:
    """Points (N, d), float32 or (see read_table) float64, the part of the set that each belongs to (N,) int64, and the
    distributions they come from. A set of a single part has no labels.

    mixture: the exact distribution of all points; parts: that of each label. A file of points has neither, nor has
    noise too small for an exact density; `inexact` says why. names: of the labels; by default their numbers.
    `self[i]` returns tensors: (points,) or (points, labels).
    """

    points: np.ndarray
    labels: np.ndarray | None = None
    mixture: GaussianMixture | None = None
    parts: Sequence[GaussianMixture] = ()
    inexact: str = "they come from a file"
    names: Sequence[str] = ()

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
        return (self._rows[i],) if self.labels is None else (self._rows[i], torch.from_numpy(self.labels)[i])

    @cached_property
    def _rows(self) -> Tensor:
        return numbers(self.points, "points")

    @property
    def classes(self) -> list[str]:
        """Names of the labels."""
        if self.labels is None:
            return []
        return [*self.names] or [str(i) for i in range(max(len(self.parts), int(self.labels.max()) + 1))]


@dataclass(frozen=True)
class LargeSet(PointSet):
    """Four fifths of the rows of a file that is too large for memory, which are read when `self[i]` asks for them.

    points: some of them (LOOKED_AT), spread evenly: all that normaliser, start-up check, checksum and evaluation
    look at. file: all rows, on the disk; every fifth is held out.
    """

    file: np.memmap = field(kw_only=True)

    def __len__(self) -> int:
        return len(self.file) - len(self.file) // 5

    def __getitem__(self, i: int | slice | Tensor) -> tuple[Tensor, ...]:
        rows = torch.as_tensor(range(*i.indices(len(self))) if isinstance(i, slice) else i)
        return (torch.from_numpy(copy_rows(self.file, rows + rows // 4)),)


DataSet = PointSet | ImageSet
LOOKED_AT = 20_000  # rows of a file that is too large for memory
NO_LABELS = "leave out dataset.label, for which the whole column would have to be read"
FRESH = 20_000  # points to evaluate on where they can be drawn but have no exact density
# Each gives the parts of a set's exact distribution, of equal mass, from the set's options.
DATASETS: dict[str, Callable[..., list[GaussianMixture]]] = {
    "moons": curves.moons,
    "circles": curves.circles,
    "gaussians": curves.gaussians,
    "grid": curves.grid,
    "checkerboard": curves.checkerboard,
    "swiss_roll": curves.swiss_roll,
    "swiss_roll_3d": curves.swiss_roll_3d,
    "s_curve": curves.s_curve,
    "spirals": curves.spirals,
    "pinwheel": curves.pinwheel,
    "helix": curves.helix,
    "text": drawings.text,
    "picture": drawings.picture,
}


# ---------------------------------------------------------------- sets by name


def make_sets(name: str, n_samples: int | None, seed: int, **options: Any) -> tuple[DataSet, DataSet]:
    """Data to train on and data to evaluate on: points (make_dataset) or images (images.sets.make_images).

    Raises:
        ValueError, FileNotFoundError: no such set, or a file or folder that cannot be used.
    """
    if name not in IMAGE_DATASETS:
        if name == "file" and n_samples is None and (file := map_large_file(options["path"])) is not None:
            return large_sets(file, seed, **options)
        data = make_dataset(name, n_samples, seed, **options)
        if name == "file":
            return held_out(data)
        return data, data if data.mixture else make_dataset(name, FRESH, seed + 1, **options)
    return held_out_images(make_images(name, n_samples=n_samples, seed=seed, **options), name, **options)


def make_dataset(name: str, n_samples: int | None, seed: int, embed: int | None = None, **options: Any) -> PointSet:
    """n_samples points of the set of that name (a key of DATASETS, or "file"), with its exact distribution.

    embed: the number of dimensions to place a synthetic set in (see embedded).

    Raises:
        ValueError: no such set or option of it, or a file that holds no points.
        FileNotFoundError: no such file.
    """
    if n_samples is not None and n_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {n_samples}")
    if name == "file":
        return read_points(n_samples=n_samples, seed=seed, **options)
    if n_samples is None:
        raise ValueError(f"dataset={name} has no fixed size: set num_samples, the number of points to draw")
    parts = exact_parts(name, embed, **options)
    mixture = mixed(parts)
    if name == "moons" and embed is None:
        points, labels = make_moons(n_samples, random_state=integer_seed(seed, "dataset") % 2**32, **options)
    else:
        part_of_centre = torch.cat([torch.full((len(part.centres),), i) for i, part in enumerate(parts)])
        points, centre = mixture.sample_parts(n_samples, generator(seed, "dataset"))
        labels = part_of_centre[centre]
    points = np.asarray(points, np.float32)
    known = np.asarray(labels, np.int64) if len(parts) > 1 else None
    exact = max(len(part.centres) for part in parts) <= MAX_EXACT_CENTRES and not 0 < float(mixture.variance[0]) < 1e-12
    if not exact:
        return PointSet(points, known, inexact="their noise is too small for one")
    return PointSet(points, known, mixture, parts)


def exact_parts(name: str, embed: int | None = None, **options: Any) -> list[GaussianMixture]:
    """The parts of a synthetic set's exact distribution, of equal mass; raises as make_dataset."""
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
    if embed is None:
        return parts
    if embed < parts[0].dim:
        raise ValueError(f"dataset.embed={embed} is too small: dataset={name} has {parts[0].dim} dimensions itself")
    return [embedded(part, embed) for part in parts]


def source_of(options: Mapping[str, Any]) -> str:
    """The text, or the name of the picture or file, that a set with these options is made of; "" for all others."""
    return options.get("text") or Path(options.get("path") or "").stem


def embedded(mixture: GaussianMixture, dim: int) -> GaussianMixture:
    """A mixture with equal noise in all directions, placed in `dim` dimensions by a random orthogonal map.

    The noise then fills all of them. The map depends on `dim` alone and not on the seed of the points: points drawn
    anew, to compare with, must lie on the same plane.
    """
    square = torch.randn(dim, dim, generator=generator(0, "embedding", dim), dtype=torch.float64)
    plane = torch.linalg.qr(square).Q[:, : mixture.dim]
    noisier = mixture.noisier and embedded(mixture.noisier, dim)
    return GaussianMixture(mixture.centres @ plane.T, float(mixture.variance[0]), mixture.weights, noisier)


def held_out(data: PointSet) -> tuple[PointSet, PointSet]:
    """The first four fifths of a file's points to train on, the rest to evaluate on."""
    if len(data) < 3:
        raise ValueError(
            f"{len(data)} points are too few: training needs 2, and a fifth of them is held out; give 3 or more"
        )
    cut = max(2, len(data) * 4 // 5)
    halves = slice(cut), slice(cut, None)
    train, unseen = (
        replace(data, points=data.points[rows], labels=None if data.labels is None else data.labels[rows])
        for rows in halves
    )
    return train, unseen


def read_points(path: str | None, n_samples: int | None, seed: int, label: str | None = None) -> PointSet:
    """At most n_samples points of a file, chosen at random: see points.files.read_table, also for what it raises."""
    if path and (file := map_large_file(path)) is not None:
        if label is not None or n_samples is None:
            raise ValueError(f"{path} is too large for memory: {'set num_samples' if label is None else NO_LABELS}")
        chosen = spread(len(file), min(n_samples, len(file)), generator(seed, "dataset"))
        return PointSet(read_rows(file, chosen, path))
    points, labels, names = read_table(path, label)
    order = torch.randperm(len(points), generator=generator(seed, "dataset"))[:n_samples].numpy()
    return PointSet(points[order], None if labels is None else labels[order], names=names)


def large_sets(file: np.memmap, seed: int, path: str, label: str | None = None) -> tuple[LargeSet, PointSet]:
    """Rows to train on, and some of those that are held out, of a file that is too large for memory.

    Raises:
        ValueError: it is to have labels, or some of its rows are not finite.
    """
    if label is not None:
        raise ValueError(f"{path} is too large for memory: {NO_LABELS}")
    g, fifth = generator(seed, "dataset"), len(file) // 5
    train = spread(len(file) - fifth, min(LOOKED_AT, len(file) - fifth), g)
    unseen = spread(fifth, min(LOOKED_AT, fifth), g)
    return LargeSet(read_rows(file, train + train // 4, path), file=file), PointSet(
        read_rows(file, unseen * 5 + 4, path)
    )


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
            return cls.fit(numbers(data.points, "points"))
        return cls(torch.zeros(data.dims), torch.ones(data.dims))

    def on(self, device: torch.device) -> "Normaliser":
        return Normaliser(self.mean.to(device), self.std.to(device))

    def normalise(self, x: Tensor) -> Tensor:
        return ((x - self.mean.to(x)) / self.std.to(x)).float()

    def distribution(self, mixture: GaussianMixture) -> GaussianMixture:
        """That of normalised points, where points as given have that of `mixture`."""
        return mixture.scaled(self.mean.cpu(), self.std.cpu())

    def denormalise(self, x: Tensor) -> Tensor:
        return x.to(self.mean.dtype) * self.std.to(x.device) + self.mean.to(x.device)


if __name__ == "__main__":
    from viz import stills as figures

    print(figures.save(figures.scatter(create_moon_dataset(), "two moons"), "outputs/dataset.png"))
