"""Data sets by name, point sets with their exact distributions, and the normaliser.

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
from points.even_order import even_order
from points.large import RowFile, open_large_file, stratified_rows
from points.mixture import MAX_EXACT_CENTRES, GaussianMixture, equal_mixture
from points.point_files import read_table
from points.tables import Columns, coordinate_names, groups_of_copies
from registry import implementation
from registry.data_rows import POINT_SETS
from registry.plugins import called, is_of_plugin
from runtime.arrays import numbers
from runtime.randomness import generator, integer_seed

SUBSET_ROWS = 20_000  # rows that represent a file too large for memory
FRESH_POINTS = 20_000  # points to evaluate on, for a set without an exact density
MIN_VARIANCE = 1e-12  # with less noise, unless it is 0, densities lose their accuracy
NO_LABELS = "leave out dataset.label, for which the whole column would have to be read"


def create_moon_dataset(n_samples: int = 500, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Draw points of two interleaved half circles, with Gaussian noise around them.

    Args:
        n_samples: number of points, at least 1.
        noise: standard deviation.
        seed: the points are a function of it.

    Returns:
        Shape (n_samples, 2), float32, in random order.

    Raises:
        ValueError: n_samples less than 1, or a noise that is negative or not finite.
    """
    return make_dataset("moons", n_samples, seed, noise=noise).points


# ---------------------------------------------------------------- point sets


@dataclass(frozen=True)
class PointSet:
    """Points, their labels, and the exact distribution they come from.

    `self[i]` returns tensors: (points,), or (points, labels) if there are labels.

    Attributes:
        points: shape (N, d), float32 or float64.
        labels: shape (N,), int64: the part of the set to which each point belongs. None for a set
            of a single part.
        mixture: the exact distribution of all points. None for points from a file, and where the
            noise is too small for an exact density.
        parts: the exact distribution of the points of each label; empty if mixture is None.
        inexact_reason: the reason why mixture is None, for a message.
        names: the names of the labels; default: their numbers.
        columns: the names of the coordinates, for points from a file.
        notes: what was left out of that file, in sentences.

    Raises:
        ValueError: points or labels of another type or shape.
    """

    points: np.ndarray
    labels: np.ndarray | None = None
    mixture: GaussianMixture | None = None
    parts: Sequence[GaussianMixture] = ()
    inexact_reason: str = "they come from a file"
    names: Sequence[str] = ()
    columns: Columns | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        is_array = isinstance(self.points, np.ndarray)
        if not is_array or self.points.dtype not in (np.float32, np.float64):
            source = "such as read_points gives"
            raise ValueError(f"points must be an array of float32 or float64, {source}")
        if self.points.ndim != 2 or self.points.size == 0:
            raise ValueError(f"points must have shape (N, d), not {self.points.shape}")
        if self.labels is not None:
            is_complete = len(self.labels) == len(self.points)
            if not is_complete or self.labels.dtype != np.int64:
                raise ValueError(f"labels must be {len(self.points)} int64 numbers")

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, i: int | slice | Tensor) -> tuple[Tensor, ...]:
        points = self._rows[i]
        if self.labels is None:
            return (points,)
        return points, torch.from_numpy(self.labels)[i]

    def place_of(self, i: int, column: int) -> str:
        """Say where a user finds a number of row i: in which column. Rows are shuffled."""
        return f"column {coordinate_names(self.columns, self.points.shape[1])[column]}"

    @cached_property
    def _rows(self) -> Tensor:
        return numbers(self.points, "points")

    @property
    def classes(self) -> list[str]:
        """The names of the labels; empty for a set without labels."""
        if self.labels is None:
            return []
        if self.names:
            return list(self.names)
        num_labels = max(len(self.parts), int(self.labels.max()) + 1)
        return [str(i) for i in range(num_labels)]


@dataclass(frozen=True)
class LargeSet(PointSet):
    """Four fifths of the rows of a file that is too large for memory.

    `self[i]` reads the rows from the disk and checks them.

    Attributes:
        points: at most SUBSET_ROWS of the rows, in memory. Normaliser, start-up check, checksum and
            evaluation use only these.
        file: all rows (M, d). Every fifth of them is held out.

    Raises:
        UnusableRowError: `self[i]` finds that the file is shorter now, or holds NaN, infinity, or a
            number too large to be squared.
    """

    file: RowFile = field(kw_only=True)

    def __len__(self) -> int:
        return len(self.file) - len(self.file) // 5

    def __getitem__(self, i: int | slice | Tensor) -> tuple[Tensor, ...]:
        indices = range(*i.indices(len(self))) if isinstance(i, slice) else i
        rows = _train_rows(torch.as_tensor(indices))
        points = self.file.read(rows.flatten())
        return (torch.from_numpy(points).reshape(*rows.shape, self.file.shape[1]),)

    def place_of(self, i: int, column: int) -> str:
        """Say where a user finds a number of row i of this set: in which row of the file."""
        row = int(_train_rows(torch.tensor([i])))
        return f"row {row}, column {column} of {self.file.path} (both count from 0)"


DataSet = PointSet | ImageSet


def even_order_of(data: DataSet) -> Tensor | None:
    """Return an order of the rows in which neighbours are alike, from which batches are drawn evenly.

    Points are ordered by label and place, images by label. None: there is no such order, for images
    without labels and for files too large for memory.
    """
    if isinstance(data, LargeSet):
        return None
    if isinstance(data, PointSet):
        return torch.from_numpy(even_order(data.points, data.labels))
    if data.labels is None:
        return None
    return torch.as_tensor(data.labels).argsort(stable=True)


# ---------------------------------------------------------------- sets by name


def make_sets(
    name: str,
    n_samples: int | None,
    seed: int,
    **options: Any,
) -> tuple[DataSet, DataSet]:
    """Return the data to train on and the data to evaluate on.

    They are the same object for points with an exact density, because evaluation can draw new
    points. A large .npy file of which all rows are wanted stays on the disk.

    Args:
        name: a key of registry.data_rows.POINT_SETS or of images.sets.IMAGE_DATASETS, or "file".
        n_samples: number of points or images; None means all of a file or a folder.
        seed: the choice and the order are functions of it.
        options: the options of the set, such as `noise` or `path`.

    Raises:
        ValueError: no such set or option, or a file or folder that cannot be used.
        FileNotFoundError: no such file or folder.
    """
    if name in IMAGE_DATASETS:
        images = make_images(name, n_samples=n_samples, seed=seed, **options)
        return held_out_images(images, name, **options)

    if name == "file":
        if n_samples is None:
            file = open_large_file(options["path"])
            if file is not None:
                return make_large_sets(file, seed, **options)
        return held_out_points(make_dataset(name, n_samples, seed, **options))

    data = make_dataset(name, n_samples, seed, **options)
    if data.mixture is not None:
        return data, data
    return data, make_dataset(name, FRESH_POINTS, seed + 1, **options)


def make_dataset(
    name: str,
    n_samples: int | None,
    seed: int,
    embed: int | None = None,
    **options: Any,
) -> PointSet:
    """Return points of the set of that name, with their exact distribution.

    Args:
        name: a key of registry.data_rows.POINT_SETS, or "file".
        n_samples: number of points; None means all points of a file.
        seed: the points are a function of it.
        embed: number of dimensions in which to place a synthetic set (see embed_mixture).
        options: the options of the set.

    Raises:
        ValueError: no such set or option, or a file that holds no points.
        FileNotFoundError: no such file.
    """
    if n_samples is not None and n_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {n_samples}")
    if name == "file":
        return read_points(n_samples=n_samples, seed=seed, **options)
    if n_samples is None:
        advice = "set num_samples, the number of points to draw"
        raise ValueError(f"dataset={name} has no fixed size: {advice}")

    check_known(name)
    if not POINT_SETS[name].is_exact:
        return drawn_points(name, n_samples, seed, **options)

    parts = exact_parts(name, embed, **options)
    mixture = equal_mixture(parts)
    if name == "moons" and embed is None:  # the points that users of scikit-learn know
        random_state = integer_seed(seed, "dataset") % 2**32
        points, labels = make_moons(n_samples, random_state=random_state, **options)
    else:
        points, labels = _draw_points(mixture, parts, n_samples, seed)

    points = np.asarray(points, np.float32)
    labels = np.asarray(labels, np.int64) if len(parts) > 1 else None
    if not _is_exact(parts):
        return PointSet(points, labels, inexact_reason="their noise is too small for one")
    return PointSet(points, labels, mixture, parts)


def drawn_points(name: str, n_samples: int, seed: int, **options: Any) -> PointSet:
    """Return points of a set without an exact distribution, which a user has added (registry.register_points).

    Raises:
        ValueError: the set does not take these options, or did not return so many points.
    """
    draw = implementation(POINT_SETS[name])
    made = called_with_options(name, draw, n_samples, seed, **options)
    points, labels = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    points = np.asarray(points, np.float32)
    if points.ndim != 2 or len(points) != n_samples:
        shape = f"shape {points.shape}, and not ({n_samples}, d)"
        raise ValueError(f"{called('point set', name)} returned points of {shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"{called('point set', name)} returned points with NaN or infinity")
    labels = None if labels is None else np.asarray(labels, np.int64)
    return PointSet(points, labels, inexact_reason=f"{called('point set', name)} has none")


def called_with_options(name: str, make: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
    """Return what the function of a set returns. Raises ValueError where it does not take these options."""
    try:
        return make(*arguments, **options)
    except TypeError as error:
        if is_of_plugin(error):
            raise
        raise ValueError(f"dataset={name} does not take these options: {error}") from error


def check_known(name: str) -> None:
    """Raise ValueError where there is no point set of that name."""
    if name not in POINT_SETS:
        known = ", ".join([*POINT_SETS, "file", *IMAGE_DATASETS])
        raise ValueError(f"dataset {name!r} is unknown; choose one of {known}")


def _draw_points(
    mixture: GaussianMixture,
    parts: list[GaussianMixture],
    n_samples: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Draw points (n_samples, d) of the mixture of all parts, and the index of each one's part."""
    sizes = torch.tensor([len(part.centres) for part in parts])
    part_of_centre = torch.arange(len(parts)).repeat_interleave(sizes)
    points, centre = mixture.sample_parts(n_samples, generator(seed, "dataset"))
    return points, part_of_centre[centre]


def _is_exact(parts: list[GaussianMixture]) -> bool:
    """Tell whether densities of these parts are accurate, and fast enough to compute."""
    most_centres = max(len(part.centres) for part in parts)
    variance = float(parts[0].variance[0])
    return most_centres <= MAX_EXACT_CENTRES and not 0 < variance < MIN_VARIANCE


def exact_parts(name: str, embed: int | None = None, **options: Any) -> list[GaussianMixture]:
    """Return the parts of a synthetic set's exact distribution, which have equal mass.

    Raises:
        ValueError: no such set, an unknown option, a noise that is negative or not finite, or fewer
            dimensions than the set has itself.
    """
    check_known(name)
    noise = options.get("noise", 0)
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be at least 0 and finite, got {noise}")
    make = implementation(POINT_SETS[name])
    parts = called_with_options(name, make, **options)
    if isinstance(parts, GaussianMixture):
        parts = [parts]
    if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, GaussianMixture) for part in parts):
        raise ValueError(f"{called('point set', name)} returned no GaussianMixtures")
    parts = list(parts)

    if embed is None:
        return parts
    dim = parts[0].dim
    if embed < dim:
        reason = f"dataset={name} has {dim} dimensions itself"
        raise ValueError(f"dataset.embed={embed} is too small: {reason}")
    return [embed_mixture(part, embed) for part in parts]


def embed_mixture(mixture: GaussianMixture, dim: int) -> GaussianMixture:
    """Place a mixture with equal noise in all directions in `dim` dimensions.

    A random orthogonal map places the centres. The noise then fills all dimensions. The map depends
    on `dim` alone: points that are drawn later for a comparison must lie in the same plane.
    """
    g = generator(0, "embedding", dim)
    square = torch.randn(dim, dim, generator=g, dtype=torch.float64)
    plane = torch.linalg.qr(square).Q[:, : mixture.dim]
    noisier = None if mixture.noisier is None else embed_mixture(mixture.noisier, dim)
    variance = float(mixture.variance[0])
    return GaussianMixture(mixture.centres @ plane.T, variance, mixture.weights, noisier)


def source_name(options: Mapping[str, Any]) -> str:
    """Return the text, or the stem of the file name, from which a set with these options is made.

    "" for all other sets.
    """
    text = options.get("text")
    if text:
        return text
    path = options.get("path") or ""
    return Path(path).stem


# ---------------------------------------------------------------- points from files


def read_points(
    path: str | None,
    n_samples: int | None,
    seed: int,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    missing: str = "error",
) -> PointSet:
    """Return points of a file in random order, at most n_samples of them.

    Args:
        path: see points.point_files.read_table.
        n_samples: number of points; None means all.
        seed: the choice and the order are functions of it.
        label: name or index of the column with the labels.
        columns: names or indices of the coordinates; None: all other columns.
        missing: what is done with rows that lack a value, see points.tables.read_any_table.

    Raises:
        ValueError: as read_table; a file that is too large for memory, if it is to have labels, if
            some of its columns are chosen, or if n_samples is None.
        FileNotFoundError: no such file.
    """
    file = open_large_file(path)
    if path and file is not None:
        _check_whole_rows(path, label, columns)
        if n_samples is None:
            raise ValueError(f"{path} is too large for memory: set num_samples")
        count = min(n_samples, len(file))
        chosen = stratified_rows(len(file), count, generator(seed, "dataset"))
        return PointSet(file.read(chosen), columns=Columns())

    file = read_table(path, label, columns, missing)
    num_rows = len(file.points)
    order = torch.randperm(num_rows, generator=generator(seed, "dataset"))
    chosen = order[:n_samples].numpy()
    labels = None if file.labels is None else file.labels[chosen]
    notes = list(file.notes)
    if len(chosen) < num_rows:
        notes.append(f"{len(chosen):,} of the {num_rows:,} rows, drawn at random: num_samples=null takes all")
    return PointSet(file.points[chosen], labels, names=file.classes, columns=file.columns, notes=notes)


def held_out_points(data: PointSet) -> tuple[PointSet, PointSet]:
    """Split the points of a file: four fifths to train on, the rest to evaluate on.

    Copies stay together (see groups_of_copies), so that no held-out point is one of a point that was
    learnt.

    Raises:
        ValueError: fewer than 3 points.
    """
    if len(data) < 3:
        rule = "training needs 2, and a fifth of them is held out; give 3 or more"
        raise ValueError(f"{len(data)} points are too few: {rule}")
    num_train = max(2, len(data) * 4 // 5)
    group = groups_of_copies(data.points)
    if group is None or group.max() == 0:
        return _rows_of(data, slice(num_train)), _rows_of(data, slice(num_train, None))

    # Groups are taken in random order: in that of the rows, large groups would come first.
    num_groups = int(group.max()) + 1
    order = torch.randperm(num_groups, generator=generator(0, "groups")).numpy()
    rows_up_to = np.bincount(group)[order].cumsum()
    num_train_groups = int(np.searchsorted(rows_up_to, num_train)) + 1
    train_groups = order[: min(num_train_groups, num_groups - 1)]
    is_train = np.isin(group, train_groups)
    return _rows_of(data, is_train), _rows_of(data, ~is_train)


def _rows_of(data: PointSet, rows: slice | np.ndarray) -> PointSet:
    labels = None if data.labels is None else data.labels[rows]
    return replace(data, points=data.points[rows], labels=labels)


def make_large_sets(
    file: RowFile,
    seed: int,
    path: str,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    missing: str = "error",
) -> tuple[LargeSet, PointSet]:
    """Split a file that is too large for memory: rows to train on, and some of those held out.

    Args:
        file: its rows (M, d).
        seed: the subsets in memory are functions of it.
        path: of the file, for errors.
        label, columns: must be None.
        missing: is not used: rows that lack a value are refused where they are read.

    Raises:
        ValueError: labels or some of the columns are wanted, or some of the rows are not finite.
    """
    _check_whole_rows(path, label, columns)
    num_held_out = len(file) // 5
    num_train = len(file) - num_held_out
    g = generator(seed, "dataset")
    train = stratified_rows(num_train, min(SUBSET_ROWS, num_train), g)
    held_out = stratified_rows(num_held_out, min(SUBSET_ROWS, num_held_out), g)

    train_points = file.read(_train_rows(train))
    unseen_points = file.read(_held_out_rows(held_out))
    return LargeSet(train_points, columns=Columns(), file=file), PointSet(unseen_points, columns=Columns())


def _check_whole_rows(path: str, label: str | None, columns: Sequence[str] | None) -> None:
    """Raise ValueError where less than whole rows of a large file is wanted."""
    if label is not None:
        raise ValueError(f"{path} is too large for memory: {NO_LABELS}")
    if columns is not None:
        raise ValueError(f"{path} is too large for memory: save the columns of dataset.columns in a file of their own")


def _train_rows(i: Tensor) -> Tensor:
    """Return the row in a large file of training row i: all but every fifth."""
    return i + i // 4


def _held_out_rows(i: Tensor) -> Tensor:
    """Return the row in a large file of held-out row i: 4, 9, 14 ..."""
    return i * 5 + 4


# ---------------------------------------------------------------- normaliser


@dataclass(frozen=True)
class Normaliser:
    """Shift and scale that give the training data mean 0 and standard deviation 1.

    They act on each coordinate by itself. Data have shape (B, *dims).

    Attributes:
        mean, std: shape (*dims), in the type of the training data.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> "Normaliser":
        """Fit to data (N, *dims). A constant coordinate is shifted to 0 and keeps its scale.

        Raises:
            ValueError: no data.
        """
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(f"a normaliser needs data of shape (N, *dims) with N at least 1, not {tuple(x.shape)}")
        varies = (x != x[0]).any(0)  # exact, unlike std: rounding can give constants a std above 0
        mean = torch.where(varies, x.mean(0), x[0])
        std = x.std(0, correction=0)
        has_scale = varies & (std > 0)
        return cls(mean, torch.where(has_scale, std, torch.ones_like(std)))

    @classmethod
    def fit_dataset(cls, data: DataSet) -> "Normaliser":
        """Fit to a point set; for images the identity, because pixels lie in [-1, 1] already."""
        if isinstance(data, PointSet):
            return cls.fit(numbers(data.points, "points"))
        return cls(torch.zeros(data.dims), torch.ones(data.dims))

    def to(self, device: torch.device) -> "Normaliser":
        """Return a copy on a device."""
        return Normaliser(self.mean.to(device), self.std.to(device))

    def normalise(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std in float32; computed in the type of x, on its device."""
        return ((x - self.mean.to(x)) / self.std.to(x)).float()

    def denormalise(self, x: Tensor) -> Tensor:
        """Return x std + mean, in the type of the training data, on the device of x."""
        return x.to(self.mean.dtype) * self.std.to(x.device) + self.mean.to(x.device)

    def normalise_mixture(self, mixture: GaussianMixture) -> GaussianMixture:
        """Return the distribution of normalised points, given that of the points."""
        return mixture.scaled(self.mean.cpu(), self.std.cpu())


if __name__ == "__main__":
    from viz import stills

    figure = stills.scatter(create_moon_dataset(), "two moons")
    print(stills.save(figure, "outputs/dataset.png"))
