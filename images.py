"""Sets of images in memory, from scikit-learn or from a folder tree. `python images.py` shows the embedded digits."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

from progress import shown
from randomness import generator

MNIST_ROOT = "data/MNIST/mnist_images"
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


class ImageSet(Dataset):
    """Images of one size, kept as bytes: `self[i]` makes them float32 in [-1, 1] when they are asked for.

    pixels: (N, C, H, W) uint8. labels: (N,) int64, indices into `classes`, or None. classes: names of the labels.

    Raises:
        ValueError: pixels of another type or shape.
    """

    law = None  # unlike the synthetic point sets, images come from no known law

    def __init__(self, pixels: Tensor, labels: Tensor | None = None, classes: list[str] | None = None) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(f"pixels must be uint8 (N, C, H, W), not {pixels.dtype} {tuple(pixels.shape)}")
        self.pixels, self.labels, self.classes = pixels, labels, list(classes or [])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int | slice | Tensor) -> tuple[Tensor, ...]:
        """(images, labels), or (images,) without labels: (C, H, W) and () for an int, else (B, C, H, W) and (B,)."""
        images = self.pixels[i] / 127.5 - 1
        return (images,) if self.labels is None else (images, self.labels[i])

    @property
    def dims(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        return tuple(self.pixels.shape[1:])

    @property
    def num_labels(self) -> int:
        return len(self.classes)

    def subset(self, indices: Tensor) -> "ImageSet":
        """The images of these indices; the classes stay the same, also one that has lost all its images."""
        return ImageSet(self.pixels[indices], None if self.labels is None else self.labels[indices], self.classes)


class MNISTDataset(ImageSet):
    """A folder of images for each class: `root/0/*.png` .. `root/9/*.png`, or any other names.

    Labels are indices into the sorted folder names, sorted as numbers when all are. Anything else that lies about
    (other files, hidden ones, folders in class folders) is left out and counted in a printed line.

    on_bad_image: what a damaged image does: "skip" leaves it out and names it in a printed line, "error" stops.
    n_samples: read that many at most, chosen by the seed, in the order of the folders all the same.

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
        pixels, good = read_images([paths[i] for i in chosen], on_bad_image)
        labels = torch.tensor(labels)[chosen]
        if lost := set(labels.tolist()) - set(labels[good].tolist()):
            raise ValueError(f"every image read from {Path(root, classes[min(lost)])} is damaged; replace them")
        super().__init__(pixels, labels[good], classes)


def choose(total: int, n_samples: int | None, seed: int) -> Tensor:
    """Indices of n_samples rows out of `total`, or of all, in random order."""
    return torch.randperm(total, generator=generator(seed, "dataset"))[:n_samples]


# ---------------------------------------------------------------- folders


def list_images(root: str | Path) -> tuple[list[str], list[str], list[int]]:
    """Names of the classes; then, class by class and sorted by name, the path and the label of each image.

    Raises: as MNISTDataset, but for what is inside the images.
    """
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"there is no folder {root}: name one that holds a folder of images for each class, or make MNIST's with "
            f"`python scripts/prepare_mnist.py --source FOLDER_OR_URL --out {root}`"
        )
    top = _by_kind(root)
    if not top["folders"]:
        raise ValueError(f"{root} holds no class folders; put the images into one for each class, as in {root}/0")
    hidden, nested, no_images, paths, labels = top["hidden"], [], [], [], []
    folders = _in_order(top["folders"])
    for label, folder in enumerate(folders):
        inside = _by_kind(folder)
        if not inside["images"]:
            raise ValueError(f"{folder} holds no images ({' '.join(EXTENSIONS)}); fill it or remove it")
        paths += inside["images"]
        labels += [label] * len(inside["images"])
        hidden, nested, no_images = hidden + inside["hidden"], nested + inside["folders"], no_images + inside["other"]
    left_out = {
        "files outside the class folders": top["images"] + top["other"],
        "folders inside class folders": nested,
        "files that are no images": no_images,
        "hidden files or folders": hidden,
    }
    for what, strays in left_out.items():
        if strays:
            print(f"left out {len(strays)} {what}, such as {strays[0]}")
    return [os.path.basename(folder) for folder in folders], paths, labels


def _by_kind(folder: str | Path) -> dict[str, list[str]]:
    """Sorted paths of what lies in a folder: "hidden", "folders", "images" (by their extension) and "other"."""
    found = {"hidden": [], "folders": [], "images": [], "other": []}
    for entry in os.scandir(folder):
        file = "images" if entry.name.lower().endswith(EXTENSIONS) else "other"
        kind = "hidden" if entry.name.startswith(".") else "folders" if entry.is_dir() else file
        found[kind].append(entry.path)
    return {kind: sorted(paths) for kind, paths in found.items()}


def _in_order(folders: list[str]) -> list[str]:
    """Sorted by name, as numbers when all are."""
    names = [os.path.basename(folder) for folder in folders]
    return sorted(folders, key=(lambda f: int(os.path.basename(f))) if all(map(str.isdecimal, names)) else None)


def read_images(paths: list[str], on_bad_image: str = "skip") -> tuple[Tensor, Tensor]:
    """Pixels (N, C, H, W) uint8 of the readable images, and their indices (N,) int64 among the paths.

    Raises:
        ValueError: images of several sizes, grey mixed with colour, or (on_bad_image="error") a damaged one.
    """
    pixels, good, bad = np.empty(0), [], []
    for i, path in enumerate(shown(paths, "reading images")):
        try:
            image = read_image(path)
        except Exception as error:  # a decoder raises what it likes: OSError, SyntaxError, struct.error ...
            if on_bad_image == "error":
                raise ValueError(f"{path} is damaged ({error}); replace it, or set on_bad_image=skip") from error
            bad.append(path)
            continue
        if not good:
            pixels = np.empty((len(paths), *image.shape), np.uint8)
        elif image.shape != pixels.shape[1:]:
            raise ValueError(_differing(paths[good[0]], pixels.shape[1:], path, image.shape))
        pixels[len(good)] = image
        good.append(i)
    if bad:
        print(f"skipped {len(bad)} damaged images: {', '.join(bad[:5])}{' ...' if len(bad) > 5 else ''}")
    return torch.from_numpy(pixels[: len(good)]), torch.tensor(good, dtype=torch.int64)


def read_image(path: str | Path) -> np.ndarray:
    """One image (of an animation the first): (1, H, W) uint8 when its file is grey, (3, H, W) in colour.

    A palette is grey when all its colours in use are. What is transparent becomes white. Of 16 bits the upper 8 stay.
    """
    with Image.open(path) as image:
        transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        if image.mode.startswith("I"):
            return (np.asarray(image) >> 8).astype(np.uint8)[None]
        if image.mode in ("1", "L") and not transparent:
            return np.asarray(image.convert("L"))[None]
        perhaps_grey = image.mode in ("1", "L", "LA", "P", "PA")
        if transparent:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return pixels[:1] if perhaps_grey and (pixels == pixels[:1]).all() else pixels


def _differing(path: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> str:
    if shape[0] != other_shape[0]:
        kind = {1: "grey", 3: "in colour"}
        return f"{path} is {kind[shape[0]]} but {other} is {kind[other_shape[0]]}; convert all images to one of the two"
    sizes = [f"{width}x{height}" for _, height, width in (shape, other_shape)]
    return f"{path} is {sizes[0]} pixels but {other} is {sizes[1]}; give all images one size"


# ---------------------------------------------------------------- sets by name


def digits(n_samples: int | None = None, seed: int = 0) -> ImageSet:
    """The 1 797 handwritten digits of 8x8 that scikit-learn carries; its 17 levels k become round(255 k / 16)."""
    levels, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(np.rint(levels * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8)
    whole = ImageSet(pixels, torch.from_numpy(labels).long(), [str(i) for i in range(10)])
    return whole if n_samples is None else whole.subset(choose(len(whole), n_samples, seed))


def mnist(root: str | None = None, test_root: str | None = None, **options: Any) -> ImageSet:
    """MNIST as scripts/prepare_mnist.py writes it."""
    return MNISTDataset(root or MNIST_ROOT, **options)


def own_images(root: str | None = None, test_root: str | None = None, **options: Any) -> ImageSet:
    """A folder tree of one's own."""
    if not root:
        raise ValueError("dataset=images needs dataset.root=DIR, a folder that holds a folder of images for each class")
    return MNISTDataset(root, **options)


IMAGE_DATASETS: dict[str, Callable[..., ImageSet]] = {"digits": digits, "mnist": mnist, "images": own_images}


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
    """What to learn from, and what to judge by; takes the options that made `data`.

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
            raise ValueError(f"{test_root or sibling} does not fit {root}: its {what} are {theirs}, not {mine}")
    return data, unseen


def split_fifth(data: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Four fifths and one fifth of each class (up to rounding): of each class's images in their order every fifth."""
    if len(data) < 2:
        raise ValueError("one image cannot be split into images to learn from and images to judge by")
    by_class = torch.arange(len(data)) if data.labels is None else data.labels.argsort(stable=True)
    unseen = torch.zeros(len(data), dtype=torch.bool)
    unseen[by_class[min(4, len(data) - 1) :: 5]] = True
    return data.subset(~unseen), data.subset(unseen)


def read_samples(path: str | Path) -> np.ndarray:
    """Generated images from an .npy file, such as `python inference.py` writes: (N, C, H, W) float32 in [-1, 1].

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no such array.
    """
    try:
        samples = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no .npy file of images") from error
    if samples.ndim != 4 or samples.dtype.kind != "f":
        raise ValueError(
            f"{path} must hold floats of shape (N, C, H, W) in [-1, 1], not {samples.dtype} {samples.shape}"
        )
    return samples.astype(np.float32)


if __name__ == "__main__":
    import figures
    import image_figures

    data = digits()
    print(f"digits: {len(data)} images of {data.dims}; of each label {data.labels.bincount().tolist()}")
    print(figures.save(image_figures.data(*data[:200], data.classes, "digits: real images"), "outputs/images.png"))
