"""Image files as arrays: a folder with one subfolder for each class, and generated images."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from images.decoding import Reading, read_image
from runtime.arrays import release_pages
from runtime.progress import progress_bar

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
PIECE_BYTES = 2**24  # pixels of a mapped file that are in memory at once

# ---------------------------------------------------------------- folders


def list_images(root: str | Path) -> tuple[list[str], list[str], list[int]]:
    """List the images in the class folders of `root`, and print what is ignored.

    Returns:
        The names of the classes. The path and the label of each image, class by class and sorted
        by name.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it has no class folders, or one of them has no images.
    """
    if not os.path.isdir(root):
        rule = "name one that holds a folder of images for each class"
        mnist = f"`python scripts/prepare_mnist.py --source FOLDER_OR_URL --out {root}`"
        advice = f"{rule}, or prepare MNIST with {mnist}"
        raise FileNotFoundError(f"there is no folder {root}: {advice}")
    top = _content_by_kind(root)
    if not top["folders"]:
        advice = f"put the images into one for each class, as in {root}/0"
        raise ValueError(f"{root} holds no class folders; {advice}")

    class_folders = _in_class_order(top["folders"])
    paths: list[str] = []
    labels: list[int] = []
    nested: list[str] = []
    not_images: list[str] = []
    hidden = list(top["hidden"])
    for label, folder in enumerate(class_folders):
        content = _content_by_kind(folder)
        if not content["images"]:
            extensions = " ".join(EXTENSIONS)
            raise ValueError(f"{folder} holds no images ({extensions}); fill it or remove it")
        paths += content["images"]
        labels += [label] * len(content["images"])
        nested += content["folders"]
        not_images += content["other"]
        hidden += content["hidden"]

    _say_ignored("files outside the class folders", top["images"] + top["other"])
    _say_ignored("folders inside class folders", nested)
    _say_ignored("files that are not images", not_images)
    _say_ignored("hidden files or folders", hidden)
    classes = [os.path.basename(folder) for folder in class_folders]
    return classes, paths, labels


def _content_by_kind(folder: str | Path) -> dict[str, list[str]]:
    """Return the sorted paths of what a folder contains: hidden, folders, images and other."""
    content: dict[str, list[str]] = {"hidden": [], "folders": [], "images": [], "other": []}
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            kind = "hidden"
        elif entry.is_dir():
            kind = "folders"
        elif entry.name.lower().endswith(EXTENSIONS) and (entry.is_file() or not os.path.exists(entry.path)):
            kind = "images"
        else:
            kind = "other"
        content[kind].append(entry.path)
    return {kind: sorted(paths) for kind, paths in content.items()}


def _in_class_order(folders: list[str]) -> list[str]:
    """Return folders sorted by name; as numbers if all names are numbers."""
    names = [os.path.basename(folder) for folder in folders]
    if all(name.isdecimal() for name in names):
        return sorted(folders, key=lambda folder: int(os.path.basename(folder)))
    return sorted(folders)


def _say_ignored(what: str, paths: list[str]) -> None:
    if paths:
        print(f"ignored {len(paths)} {what}, such as {paths[0]}")


# ---------------------------------------------------------------- images


def _in_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.empty(shape, np.uint8)


def read_images(
    paths: list[str],
    on_bad_image: str = "skip",
    room: Callable[[tuple[int, ...]], NDArray[np.uint8]] = _in_memory,
    reading: Reading | None = None,
) -> tuple[NDArray[np.uint8], Tensor]:
    """Read images of one size, and print which of them are damaged.

    Args:
        paths: image files.
        on_bad_image: "skip" leaves out damaged images, "error" stops at the first.
        room: returns an uninitialised uint8 array of a given shape. The pixels are written into it;
            it may be mapped from a file.
        reading: see decoding.read_image.

    Returns:
        Pixels (N, C, H, W) uint8 of the readable images, and their indices (N,) int64 in `paths`.

    Raises:
        ValueError: images of several sizes, grey mixed with colour, or a damaged image where
            on_bad_image is "error".
    """
    pixels = np.empty(0, np.uint8)
    good: list[int] = []
    bad: list[str] = []
    for i, path in enumerate(progress_bar(paths, "reading images")):
        try:
            image = read_image(path, reading)
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and others
            if on_bad_image == "error":
                advice = "replace it, or set on_bad_image=skip"
                raise ValueError(f"{path} is damaged ({error}); {advice}") from error
            bad.append(path)
            continue

        if not good:
            pixels = room((len(paths), *image.shape))
        elif image.shape != pixels.shape[1:]:
            first = paths[good[0]]
            raise ValueError(_difference(first, pixels.shape[1:], path, image.shape))
        pixels[len(good)] = image
        good.append(i)

        images_per_piece = max(1, PIECE_BYTES // image.nbytes)
        if isinstance(pixels, np.memmap) and i % images_per_piece == 0:
            release_pages(pixels)
    say_skipped(bad)
    return pixels[: len(good)], torch.tensor(good, dtype=torch.int64)


def say_skipped(bad: list[str]) -> None:
    """Print how many images are damaged, and the first five paths; nothing if `bad` is empty."""
    if not bad:
        return
    shown = ", ".join(bad[:5])
    if len(bad) > 5:
        shown += " ..."
    print(f"skipped {len(bad)} damaged images: {shown}")


def _difference(
    path: str,
    shape: tuple[int, ...],
    other: str,
    other_shape: tuple[int, ...],
) -> str:
    """Say how two images of different shape (C, H, W) differ."""
    channels, height, width = shape
    other_channels, other_height, other_width = other_shape
    if channels != other_channels:
        kinds = {1: "grey", 3: "in colour"}
        difference = f"{path} is {kinds[channels]} but {other} is {kinds[other_channels]}"
        return f"{difference}; convert all images to one of the two"
    size = f"{width}x{height}"
    other_size = f"{other_width}x{other_height}"
    return f"{path} is {size} pixels but {other} is {other_size}; set dataset.size=N"


def read_samples(path: str | Path) -> np.ndarray:
    """Read generated images from an .npy file, such as `python inference.py` saves.

    Returns:
        Shape (N, C, H, W), float32, in [-1, 1].

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file does not hold floats of that shape.
    """
    try:
        samples = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not an .npy file of images") from error
    if samples.ndim != 4 or samples.dtype.kind != "f":
        rule = "floats of shape (N, C, H, W) in [-1, 1]"
        raise ValueError(f"{path} must hold {rule}, not {samples.dtype} {samples.shape}")
    return samples.astype(np.float32)
