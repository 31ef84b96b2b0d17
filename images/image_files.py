"""Image files as arrays: listing and reading a folder of class folders, and reading generated images."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from runtime.arrays import release_pages
from runtime.progress import progress_bar

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


def list_images(root: str | Path) -> tuple[list[str], list[str], list[int]]:
    """Names of the classes; then, class by class and sorted by name, the path and the label of each image.

    Raises: as MNISTDataset, apart from errors inside the images.
    """
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"there is no folder {root}: name one that holds a folder of images for each class, or prepare MNIST with "
            f"`python scripts/prepare_mnist.py --source FOLDER_OR_URL --out {root}`"
        )
    top = _by_kind(root)
    if not top["folders"]:
        raise ValueError(f"{root} holds no class folders; put the images into one for each class, as in {root}/0")
    hidden, nested, not_images, paths, labels = top["hidden"], [], [], [], []
    folders = _in_order(top["folders"])
    for label, folder in enumerate(folders):
        inside = _by_kind(folder)
        if not inside["images"]:
            raise ValueError(f"{folder} holds no images ({' '.join(EXTENSIONS)}); fill it or remove it")
        paths += inside["images"]
        labels += [label] * len(inside["images"])
        hidden, nested, not_images = hidden + inside["hidden"], nested + inside["folders"], not_images + inside["other"]
    ignored = {
        "files outside the class folders": top["images"] + top["other"],
        "folders inside class folders": nested,
        "files that are not images": not_images,
        "hidden files or folders": hidden,
    }
    for what, strays in ignored.items():
        if strays:
            print(f"ignored {len(strays)} {what}, such as {strays[0]}")
    return [os.path.basename(folder) for folder in folders], paths, labels


def _by_kind(folder: str | Path) -> dict[str, list[str]]:
    """Sorted paths of the contents of a folder: "hidden", "folders", "images" (by their extension) and "other"."""
    found: dict[str, list[str]] = {"hidden": [], "folders": [], "images": [], "other": []}
    for entry in os.scandir(folder):
        file = "images" if entry.name.lower().endswith(EXTENSIONS) else "other"
        kind = "hidden" if entry.name.startswith(".") else "folders" if entry.is_dir() else file
        found[kind].append(entry.path)
    return {kind: sorted(paths) for kind, paths in found.items()}


def _in_order(folders: list[str]) -> list[str]:
    """Sorted by name, as numbers when all are."""
    names = [os.path.basename(folder) for folder in folders]
    return sorted(folders, key=(lambda f: int(os.path.basename(f))) if all(map(str.isdecimal, names)) else None)


PIECE = 2**24  # bytes of pixels in memory at once, where they lie in a file


def _in_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.empty(shape, np.uint8)


def read_images(
    paths: list[str], on_bad_image: str = "skip", room: Callable[[tuple[int, ...]], NDArray[np.uint8]] = _in_memory
) -> tuple[NDArray[np.uint8], Tensor]:
    """Pixels (N, C, H, W) uint8 of the readable images, and their indices (N,) int64 among the paths.

    room: gives the array into which they are written, which may be mapped from a file.

    Raises:
        ValueError: images of several sizes, grey mixed with colour, or (on_bad_image="error") a damaged one.
    """
    pixels, good, bad = np.empty(0, np.uint8), [], []
    for i, path in enumerate(progress_bar(paths, "reading images")):
        try:
            image = read_image(path)
        except Exception as error:  # decoders raise all sorts of errors: OSError, SyntaxError, struct.error ...
            if on_bad_image == "error":
                raise ValueError(f"{path} is damaged ({error}); replace it, or set on_bad_image=skip") from error
            bad.append(path)
            continue
        if not good:
            pixels = room((len(paths), *image.shape))
        elif image.shape != pixels.shape[1:]:
            raise ValueError(_differing(paths[good[0]], pixels.shape[1:], path, image.shape))
        pixels[len(good)] = image
        good.append(i)
        if isinstance(pixels, np.memmap) and i % max(1, PIECE // image.nbytes) == 0:
            release_pages(pixels)
    say_skipped(bad)
    return pixels[: len(good)], torch.tensor(good, dtype=torch.int64)


def say_skipped(bad: list[str]) -> None:
    """A printed line about the damaged images of these paths, if there are any."""
    if bad:
        print(f"skipped {len(bad)} damaged images: {', '.join(bad[:5])}{' ...' if len(bad) > 5 else ''}")


def read_image(path: str | Path) -> np.ndarray:
    """One image (of an animation the first): (1, H, W) uint8 when its file is grey, (3, H, W) in colour.

    A palette is grey if all its used colours are. Transparency becomes white. Of 16 bits, the upper 8 are kept.
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


def read_samples(path: str | Path) -> np.ndarray:
    """Generated images from an .npy file, such as `python inference.py` saves: (N, C, H, W) float32 in [-1, 1].

    Raises:
        FileNotFoundError: no such file.
        ValueError: it does not hold such an array.
    """
    try:
        samples = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not an .npy file of images") from error
    if samples.ndim != 4 or samples.dtype.kind != "f":
        raise ValueError(
            f"{path} must hold floats of shape (N, C, H, W) in [-1, 1], not {samples.dtype} {samples.shape}"
        )
    return samples.astype(np.float32)
