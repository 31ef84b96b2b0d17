"""Sets of images in memory, from scikit-learn or a folder tree. `python -m images.sets` draws the digits."""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

from images import MNIST_ROOT
from images.cache import read_cached
from images.emoji import draw_glyphs
from images.image_files import PIECE_BYTES, list_images
from runtime.arrays import numbers, release_pages
from runtime.randomness import generator


class ImageSet(Dataset):
    """Images of one size, stored as bytes; `self[i]` returns float32 in [-1, 1].

    pixels: (N, C, H, W) uint8; of a np.memmap the pages that have been read are given back each time.
    labels: (N,) int64, indices into `classes`, or None.
    classes: names of the labels. rows: which of the pixels belong to the set, in its order; default: all.

    Raises:
        ValueError: pixels of another type or shape.
    """

    mixture = None  # unlike for synthetic points, the exact distribution of images is unknown

    def __init__(
        self,
        pixels: Tensor | np.ndarray,
        labels: Tensor | None = None,
        classes: list[str] | None = None,
        rows: Tensor | None = None,
    ) -> None:
        self.file = pixels if isinstance(pixels, np.memmap) else None
        pixels = numbers(pixels, "pixels")
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(f"pixels must be uint8 (N, C, H, W), not {pixels.dtype} {tuple(pixels.shape)}")
        self.held, self.rows, self.labels, self.classes = pixels, rows, labels, list(classes or [])

    def __len__(self) -> int:
        return len(self.held if self.rows is None else self.rows)

    def __getitem__(self, i: int | slice | Tensor) -> tuple[Tensor, ...]:
        """(images, labels), or (images,) without labels: (C, H, W) and () for an int, else (B, C, H, W) and (B,)."""
        images = self._bytes(i) / 127.5 - 1
        return (images,) if self.labels is None else (images, self.labels[i])

    def _bytes(self, i: int | slice | Tensor) -> Tensor:
        found = self.held[i if self.rows is None else self.rows[i]]
        if self.file is not None:
            release_pages(self.file)
        return found

    @property
    def pixels(self) -> Tensor:
        """All of the set, (N, C, H, W) uint8, in memory unless they are all that there are."""
        return self.held if self.rows is None else self.held[self.rows]

    def blocks(self) -> Iterator[Tensor]:
        """The same, some images at a time."""
        for some in torch.arange(len(self)).split(max(1, PIECE_BYTES // math.prod(self.dims))):
            yield self._bytes(some)

    @property
    def dims(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, c, h, w = self.held.shape
        return c, h, w

    @property
    def num_labels(self) -> int:
        return len(self.classes)

    def subset(self, indices: Tensor) -> "ImageSet":
        """The images of these indices, or where they are True; the classes stay the same, even those without images.

        No pixel is copied: they may be more than memory holds.
        """
        rows = torch.arange(len(self.held))[indices] if self.rows is None else self.rows[indices]
        held = self.held if self.file is None else self.file
        return ImageSet(held, None if self.labels is None else self.labels[indices], self.classes, rows)


class MNISTDataset(ImageSet):
    """A folder of images for each class: `root/0/*.png` .. `root/9/*.png`, or any other names.

    Labels are indices into the sorted folder names, sorted as numbers if all are. Anything else (other files,
    hidden ones, folders in class folders) is ignored, and a printed line says how many there are.

    on_bad_image: "skip" ignores a damaged image and names it in a printed line, "error" stops.
    n_samples: read at most that many, chosen by the seed, still in the order of the folders.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class folders, an empty one, images of several sizes, grey mixed with colour, or a damaged image.
    """

    def __init__(
        self, root: str | Path, on_bad_image: str = "skip", n_samples: int | None = None, seed: int = 0
    ) -> None:
        if on_bad_image not in ("skip", "error"):
            raise ValueError(f"on_bad_image must be skip or error, not {on_bad_image!r}")
        classes, paths, labels = list_images(root)
        chosen = choose(len(paths), n_samples, seed).sort().values
        pixels, good = read_cached(root, paths, chosen, on_bad_image)
        labels = torch.tensor(labels)[chosen]
        if lost := set(labels.tolist()) - set(labels[good].tolist()):
            raise ValueError(f"every image read from {Path(root, classes[min(lost)])} is damaged; replace them")
        super().__init__(pixels, labels[good], classes)


def choose(total: int, n_samples: int | None, seed: int) -> Tensor:
    """Indices of n_samples rows out of `total`, or of all, in random order."""
    return torch.randperm(total, generator=generator(seed, "dataset"))[:n_samples]


# ---------------------------------------------------------------- sets by name


def digits(n_samples: int | None = None, seed: int = 0) -> ImageSet:
    """The 1 797 handwritten digits of 8x8 that scikit-learn carries; its 17 levels k become round(255 k / 16)."""
    levels, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(np.rint(levels * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8)
    whole = ImageSet(pixels, torch.from_numpy(labels).long(), [str(i) for i in range(10)])
    return whole.subset(choose(len(whole), n_samples, seed).sort().values)


def emoji(n_samples: int | None = None, seed: int = 0) -> ImageSet:
    """The glyphs of an installed emoji font in colour, 32x32 on white; labels: blocks of Unicode."""
    pixels, labels, blocks = draw_glyphs()
    whole = ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels), blocks)
    return whole.subset(choose(len(whole), n_samples, seed).sort().values)


def mnist(root: str | None = None, test_root: str | None = None, **options: Any) -> ImageSet:
    """MNIST as scripts/prepare_mnist.py writes it."""
    return MNISTDataset(root or MNIST_ROOT, **options)


def own_images(root: str | None = None, test_root: str | None = None, **options: Any) -> ImageSet:
    """A folder tree of one's own."""
    if not root:
        raise ValueError("dataset=images needs dataset.root=DIR, a folder that holds a folder of images for each class")
    return MNISTDataset(root, **options)


IMAGE_DATASETS: dict[str, Callable[..., ImageSet]] = {
    "digits": digits,
    "mnist": mnist,
    "emoji": emoji,
    "images": own_images,
}


def make_images(name: str, *, n_samples: int | None, seed: int, **options: Any) -> ImageSet:
    """At most n_samples images of the set of that name (a key of IMAGE_DATASETS), in random order.

    Raises:
        ValueError: no such set, n_samples below 1, or a folder that cannot be used (see MNISTDataset).
        FileNotFoundError: no such folder.
    """
    if name not in IMAGE_DATASETS:
        raise ValueError(f"dataset {name!r} is unknown; choose one of {', '.join(IMAGE_DATASETS)}")
    if n_samples is not None and n_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {n_samples}")
    return shuffled(IMAGE_DATASETS[name](n_samples=n_samples, seed=seed, **options), seed)


def shuffled(data: ImageSet, seed: int) -> ImageSet:
    """In random order, so that the first hundred are not all of the first class."""
    return data.subset(choose(len(data), None, seed))


def held_out_images(
    data: ImageSet, name: str, *, root: str | None = None, test_root: str | None = None, on_bad_image: str = "skip"
) -> tuple[ImageSet, ImageSet]:
    """Images to train on and images to evaluate on; takes the options that made `data`.

    The unseen images are those of test_root, else of the folder `<root>_test` beside root, else a fifth of data itself.

    Raises:
        ValueError: the two folders differ in classes or sizes, or data holds a single image.
        FileNotFoundError: no such test_root.
    """
    if name == "mnist":
        root = root or MNIST_ROOT
    sibling = f"{os.path.abspath(root)}_test" if root else ""
    if not test_root and not os.path.isdir(sibling):
        return split_fifth(data)
    unseen = shuffled(MNISTDataset(test_root or sibling, on_bad_image), seed=0)
    for what, mine, theirs in (("classes", data.classes, unseen.classes), ("(C, H, W)", data.dims, unseen.dims)):
        if mine != theirs:
            raise ValueError(f"{test_root or sibling} does not match {root}: its {what} are {theirs}, not {mine}")
    return data, unseen


def split_fifth(data: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Four fifths and one fifth of each class (up to rounding): every fifth image of each class, in their order."""
    if len(data) < 2:
        raise ValueError("one image cannot be split into images to train on and images to evaluate on")
    by_class = torch.arange(len(data)) if data.labels is None else data.labels.argsort(stable=True)
    unseen = torch.zeros(len(data), dtype=torch.bool)
    unseen[by_class[min(4, len(data) - 1) :: 5]] = True
    return data.subset(~unseen), data.subset(unseen)


if __name__ == "__main__":
    from viz import image_grids as image_figures  # only this demo draws: images must not import viz
    from viz import stills as figures

    data = digits()
    images, labels = data[:200]
    print(f"digits: {len(data)} images of {data.dims}, labels {', '.join(data.classes)}")
    print(
        figures.save(
            image_figures.data(images.numpy(), labels.numpy(), data.classes, "digits: real images"),
            "outputs/images.png",
        )
    )
