"""Sets of images: from scikit-learn, from an emoji font, or from a folder.

`python -m images.sets` draws the digits.
"""

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
from images.decoding import Reading
from images.emoji import draw_glyphs
from images.image_files import PIECE_BYTES, list_images
from runtime.arrays import numbers, release_pages
from runtime.randomness import generator


class ImageSet(Dataset):
    """Images of one size, stored as bytes; `self[i]` returns float32 in [-1, 1].

    A subset shares the stored pixels with the set that it comes from.

    Args:
        pixels: shape (N, C, H, W), uint8. The pages of an np.memmap are released after each
            access.
        labels: shape (M,), int64, indices into `classes`; None for a set without labels.
        classes: names of the labels.
        rows: shape (M,), which of the pixels belong to the set, in its order; default: all.
        reading: how the files of the images were read; default: as they are.

    Attributes:
        held: all stored pixels (N, C, H, W).
        file: the same as np.memmap, or None if they are in memory.
        rows, labels, classes, reading: as above.

    Raises:
        ValueError: pixels of another type or shape.
    """

    mixture = None  # the exact distribution of images is unknown, unlike that of synthetic points

    def __init__(
        self,
        pixels: Tensor | np.ndarray,
        labels: Tensor | None = None,
        classes: list[str] | None = None,
        rows: Tensor | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.file = pixels if isinstance(pixels, np.memmap) else None
        self.held = numbers(pixels, "pixels")
        if self.held.dtype != torch.uint8 or self.held.ndim != 4:
            kind = f"{self.held.dtype} {tuple(self.held.shape)}"
            raise ValueError(f"pixels must be uint8 (N, C, H, W), not {kind}")
        self.rows = rows
        self.labels = labels
        self.classes = list(classes or [])
        self.reading = reading or Reading()

    def __len__(self) -> int:
        return len(self.held if self.rows is None else self.rows)

    def __getitem__(self, i: int | slice | Tensor) -> tuple[Tensor, ...]:
        """Return (images, labels), or (images,) for a set without labels.

        For an int their shapes are (C, H, W) and (), otherwise (B, C, H, W) and (B,).
        """
        images = self._stored(i) / 127.5 - 1
        if self.labels is None:
            return (images,)
        return images, self.labels[i]

    def _stored(self, i: int | slice | Tensor) -> Tensor:
        """Return the pixels of images i as uint8."""
        rows = i if self.rows is None else self.rows[i]
        pixels = self.held[rows]
        if self.file is not None:
            release_pages(self.file)
        return pixels

    @property
    def pixels(self) -> Tensor:
        """The pixels of the whole set, (M, C, H, W) uint8; a copy if the set is a subset."""
        if self.rows is None:
            return self.held
        return self.held[self.rows]

    def blocks(self) -> Iterator[Tensor]:
        """Yield the pixels of the whole set as uint8, some images at a time."""
        images_per_block = max(1, PIECE_BYTES // math.prod(self.dims))
        for rows in torch.arange(len(self)).split(images_per_block):
            yield self._stored(rows)

    @property
    def dims(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.held.shape
        return channels, height, width

    @property
    def num_labels(self) -> int:
        """The number of classes; 0 for a set without labels."""
        return len(self.classes)

    def subset(self, indices: Tensor) -> "ImageSet":
        """Return the images of these indices (int64), or the images where they are True (bool).

        No pixel is copied, because the set may be larger than the memory. The classes stay the
        same, including those without images.
        """
        all_rows = torch.arange(len(self.held)) if self.rows is None else self.rows
        rows = all_rows[indices]
        stored = self.held if self.file is None else self.file
        labels = None if self.labels is None else self.labels[indices]
        return ImageSet(stored, labels, self.classes, rows, self.reading)


class MNISTDataset(ImageSet):
    """A folder with one subfolder of images for each class: `root/0/*.png` .. `root/9/*.png`.

    The subfolders may have any names. Labels are indices into the sorted names, which are sorted as
    numbers if all are numbers. Anything else in the folder is ignored, and a printed line says how
    much.

    Args:
        root: the folder.
        on_bad_image: "skip" leaves out damaged images and prints their names, "error" stops.
        n_samples: read at most that many images, in the order of the folders; default: all.
        seed: the choice of n_samples images is a function of it.
        size: side in pixels to which all images are resized and cropped; default: their own size if
            they have one, of at most decoding.LARGE_SIDE, otherwise decoding.DEFAULT_SIDE.
        like: read the images as those of another folder were read.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class folders, a class without readable images, grey mixed with colour, or a
            damaged image where on_bad_image is "error".
    """

    def __init__(
        self,
        root: str | Path,
        on_bad_image: str = "skip",
        n_samples: int | None = None,
        seed: int = 0,
        size: int | None = None,
        like: Reading | None = None,
    ) -> None:
        if on_bad_image not in ("skip", "error"):
            raise ValueError(f"on_bad_image must be skip or error, not {on_bad_image!r}")
        classes, paths, all_labels = list_images(root)
        chosen = random_rows(len(paths), n_samples, seed).sort().values
        pixels, good, reading = read_cached(root, paths, chosen, on_bad_image, size, like)
        if like is None:
            for line in reading.lines:
                print(line)

        chosen_labels = torch.tensor(all_labels)[chosen]
        labels = chosen_labels[good]
        lost = set(chosen_labels.tolist()) - set(labels.tolist())
        if lost:
            folder = Path(root, classes[min(lost)])
            raise ValueError(f"every image read from {folder} is damaged; replace them")
        super().__init__(pixels, labels, classes, reading=reading)


def random_rows(total: int, n_samples: int | None, seed: int) -> Tensor:
    """Draw n_samples of `total` indices without replacement, in random order: (n_samples,) int64.

    None, or a number above `total`, means all.
    """
    return torch.randperm(total, generator=generator(seed, "dataset"))[:n_samples]


# ---------------------------------------------------------------- sets by name


def digits(n_samples: int | None = None, seed: int = 0) -> ImageSet:
    """Return the 1,797 handwritten digits of scikit-learn, 8x8 pixels.

    Their 17 grey levels k become round(255 k / 16).
    """
    levels, labels = load_digits(return_X_y=True)
    pixels = np.rint(levels * (255 / 16)).astype(np.uint8)
    pixels = torch.from_numpy(pixels).reshape(-1, 1, 8, 8)
    classes = [str(i) for i in range(10)]
    whole = ImageSet(pixels, torch.from_numpy(labels).long(), classes)
    return whole.subset(random_rows(len(whole), n_samples, seed).sort().values)


def emoji(n_samples: int | None = None, seed: int = 0) -> ImageSet:
    """Return the glyphs of an installed emoji font, 32x32 pixels in colour on white.

    The labels are blocks of Unicode.

    Raises:
        FileNotFoundError: there is no emoji font.
    """
    pixels, labels, blocks = draw_glyphs()
    whole = ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels), blocks)
    return whole.subset(random_rows(len(whole), n_samples, seed).sort().values)


def mnist(root: str | None = None, test_root: str | None = None, **options: Any) -> ImageSet:
    """Return MNIST from the folders that scripts/prepare_mnist.py writes; raises as MNISTDataset.

    Args:
        root: the folder; default: MNIST_ROOT.
        test_root: not used here, see held_out_images.
        options: arguments of MNISTDataset.
    """
    return MNISTDataset(root or MNIST_ROOT, **options)


def own_images(root: str | None = None, test_root: str | None = None, **options: Any) -> ImageSet:
    """Return the images of any folder; arguments as `mnist`, errors as MNISTDataset.

    Raises:
        ValueError: no root.
    """
    if not root:
        rule = "dataset=images needs dataset.root=DIR"
        raise ValueError(f"{rule}, a folder that holds a folder of images for each class")
    return MNISTDataset(root, **options)


IMAGE_DATASETS: dict[str, Callable[..., ImageSet]] = {
    "digits": digits,
    "mnist": mnist,
    "emoji": emoji,
    "images": own_images,
}


def make_images(name: str, *, n_samples: int | None, seed: int, **options: Any) -> ImageSet:
    """Return images of the set of that name in random order.

    Args:
        name: a key of IMAGE_DATASETS.
        n_samples: at most so many images; None means all.
        seed: the choice and the order are functions of it.
        options: the options of the set, such as `root`.

    Raises:
        ValueError: no such set, n_samples less than 1, images that are all of one colour, or a
            folder that cannot be used (see MNISTDataset).
        FileNotFoundError: no such folder.
    """
    if name not in IMAGE_DATASETS:
        known = ", ".join(IMAGE_DATASETS)
        raise ValueError(f"dataset {name!r} is unknown; choose one of {known}")
    if n_samples is not None and n_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {n_samples}")
    data = IMAGE_DATASETS[name](n_samples=n_samples, seed=seed, **options)
    if _is_constant(data):
        place = options.get("root") or MNIST_ROOT
        value = int(data.pixels.flatten()[0])
        reason = f"every pixel of the {len(data):,} images in {place} has the same value ({value} of 255)"
        raise ValueError(f"{reason}, so that there is nothing to learn; give other images")
    return shuffled(data, seed)


def _is_constant(data: ImageSet) -> bool:
    """Tell whether all pixels of all images have one value."""
    value = None
    for block in data.blocks():
        value = block.flatten()[0] if value is None else value
        if bool((block != value).any()):
            return False
    return True


def shuffled(data: ImageSet, seed: int) -> ImageSet:
    """Return the same images in random order, so that the first hundred are of all classes."""
    return data.subset(random_rows(len(data), None, seed))


# ---------------------------------------------------------------- images to evaluate on


def held_out_images(
    data: ImageSet,
    name: str,
    *,
    root: str | None = None,
    test_root: str | None = None,
    on_bad_image: str = "skip",
    size: int | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Return images to train on and images to evaluate on.

    The images to evaluate on come from test_root, or else from the folder `<root>_test` beside
    root. If neither exists, they are a fifth of `data`.

    Args:
        data: all images of `root`.
        name: a key of IMAGE_DATASETS.
        root, test_root, on_bad_image, size: the options with which `data` was made. The images of
            test_root are read as those of root were.

    Raises:
        ValueError: the two folders differ in classes or sizes, or `data` is a single image.
        FileNotFoundError: no such test_root.
    """
    if name == "mnist":
        root = root or MNIST_ROOT
    sibling = f"{os.path.abspath(root)}_test" if root else ""
    if not test_root and not os.path.isdir(sibling):
        return split_fifth(data)

    unseen_root = test_root or sibling
    unseen = shuffled(MNISTDataset(unseen_root, on_bad_image, like=data.reading), seed=0)
    problem = f"{unseen_root} does not match {root}"
    if data.classes != unseen.classes:
        raise ValueError(f"{problem}: its classes are {unseen.classes}, not {data.classes}")
    if data.dims != unseen.dims:
        raise ValueError(f"{problem}: its (C, H, W) are {unseen.dims}, not {data.dims}")
    return data, unseen


def split_fifth(data: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Split images into four fifths and one fifth of each class, up to rounding.

    Every fifth image of each class goes to the second set. Both keep the order of `data`.

    Raises:
        ValueError: there is a single image.
    """
    count = len(data)
    if count < 2:
        purpose = "images to train on and images to evaluate on"
        raise ValueError(f"one image cannot be split into {purpose}")
    by_class = torch.arange(count)
    if data.labels is not None:
        by_class = data.labels.argsort(stable=True)
    first = min(4, count - 1)
    is_unseen = torch.zeros(count, dtype=torch.bool)
    is_unseen[by_class[first::5]] = True
    return data.subset(~is_unseen), data.subset(is_unseen)


if __name__ == "__main__":
    # Only this demonstration draws: images must not import viz.
    from viz import image_grids, stills

    data = digits()
    images, labels = data[:200]
    print(f"digits: {len(data)} images of {data.dims}, labels {', '.join(data.classes)}")
    title = "digits: real images"
    figure = image_grids.data(images.numpy(), labels.numpy(), data.classes, title)
    print(stills.save(figure, "outputs/images.png"))
