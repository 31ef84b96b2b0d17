"""Turn MNIST's four idx files into folders of images.

`python scripts/prepare_mnist.py --source FOLDER_OR_URL` writes the 60 000 training images to
OUT/<digit>/<index>.png and the 10 000 test images to OUT_test. After an interruption, run it again:
images already written are kept.
"""

if __name__ == "__main__":
    import repository  # noqa: F401  (first, so that Python finds the other folders)

import argparse
import gzip
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from conf.messages import in_one_line
from images import MNIST_ROOT
from runtime.progress import progress_bar

COUNTS = {"train": 60_000, "t10k": 10_000}  # images
# Checksums of the uncompressed files, because mirrors compress them differently.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

GZIP_MAGIC = b"\x1f\x8b"  # the first two bytes of a gzip file


def prepare(source: str, out: str | Path) -> None:
    """Write the folders `out` and `<out>_test` from the idx files in a folder or below a URL.

    Raises:
        OSError: a file is missing, or a folder cannot be written.
        ValueError: a file is damaged or not MNIST's, or a folder holds other images.
    """
    train_folder = os.path.abspath(out)
    folders = {"train": Path(train_folder), "t10k": Path(f"{train_folder}_test")}
    unfinished = [part for part in folders if not is_complete(folders[part], COUNTS[part])]

    # Everything is read and checked before the first image is written.
    names = [name for name in SHA256 if name.split("-")[0] in unfinished]
    arrays = {}
    for name in progress_bar(names, "reading"):
        arrays[name] = read_idx(checked(name, fetch(source, name)))

    for part, folder in folders.items():
        note = ", already complete"
        if part in unfinished:
            images = arrays[f"{part}-images-idx3-ubyte"]
            labels = arrays[f"{part}-labels-idx1-ubyte"]
            write_tree(images, labels, folder)
            note = ""
        print(f"{folder}: {COUNTS[part]} images{note}")


# ---------------------------------------------------------------- idx files


def fetch(source: str, name: str) -> bytes:
    """The uncompressed content of one idx file.

    Mirrors write its name with "-idx" or ".idx", and with or without .gz: each is tried.

    Raises:
        FileNotFoundError: the source has no such file.
        OSError: the source cannot be reached.
        ValueError: the file is damaged.
    """
    dotted = name.replace("-idx", ".idx")
    for candidate in (f"{name}.gz", name, f"{dotted}.gz", dotted):
        read = _download if "://" in source else _read
        content = read(source, candidate)
        if content is not None:
            return unpacked(candidate, content)
    raise FileNotFoundError(f"{source} holds neither {name} nor {dotted}, with or without .gz")


def _read(folder: str, name: str) -> bytes | None:
    path = Path(folder, name)
    return path.read_bytes() if path.is_file() else None


def _download(base: str, name: str) -> bytes | None:
    """The content at that address, or None if there is none."""
    address = urlsplit(base)
    if address.scheme == "file":
        return _read(urllib.request.url2pathname(address.path), name)
    try:
        with urllib.request.urlopen(f"{base.rstrip('/')}/{name}", timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410):
            return None  # some servers answer 403, "forbidden", for missing files
        raise OSError(f"{base} answered {error.code} {error.reason} to the request for {name}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise OSError(f"{name} could not be read from {base}: {reason}") from error


def unpacked(name: str, content: bytes) -> bytes:
    """The content of a file, decompressed if it is gzip.

    Raises:
        ValueError: it is damaged.
    """
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name} is truncated or damaged ({error}); download it again") from error


def checked(name: str, content: bytes) -> bytes:
    """The content of a file, if its checksum is right.

    Raises:
        ValueError: it is not.
    """
    found = hashlib.sha256(content).hexdigest()
    expected = SHA256[name]
    if found != expected:
        raise ValueError(f"{name} is not MNIST's: its sha256 is {found[:12]}..., not {expected[:12]}...")
    return content


def read_idx(content: bytes) -> np.ndarray:
    """The uint8 array of an idx file.

    The file holds two zero bytes, the type, the number of dimensions, the sizes as big-endian
    int32, and the values.
    """
    ndim = content[3]
    sizes = np.frombuffer(content, ">i4", ndim, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * ndim)
    return values.reshape(sizes)


# ---------------------------------------------------------------- image files


def write_tree(images: np.ndarray, labels: np.ndarray, folder: Path) -> int:
    """Write the images (N, H, W) uint8 that are missing to folder/<label>/<index>.png.

    Returns how many were missing.

    Raises:
        ValueError: the folder holds other images.
        OSError: the folder cannot be written.
    """
    wanted = [f"{label}/{i:05d}.png" for i, label in enumerate(labels)]
    present = present_images(folder)
    others = present - set(wanted)
    if others:
        raise ValueError(f"{folder} already holds other images, such as {min(others)}; choose another --out")

    missing = [i for i, path in enumerate(wanted) if path not in present]
    try:
        for label in set(labels.tolist()):
            (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for i in progress_bar(missing, f"writing {folder.name}"):
            _write(images[i], folder / wanted[i])
    except OSError as error:
        raise OSError(f"{folder} cannot be written: {error.strerror or error}") from error
    return len(missing)


def _write(image: np.ndarray, path: Path) -> None:
    """Write under a hidden name, then rename: a file with the final name is always complete."""
    temporary = path.with_name(f".{path.name}")
    Image.fromarray(image).save(temporary, "PNG", compress_level=1)
    os.replace(temporary, path)


def present_images(folder: Path) -> set[str]:
    """The names of the images already written, such as 7/00012.png."""
    return {f"{path.parent.name}/{path.name}" for path in folder.glob("[!.]*/[!.]*.png")}


def is_complete(folder: Path, count: int) -> bool:
    """Whether every index has its image.

    The labels are not checked, which would need the source.
    """
    found = sorted(Path(path).name for path in present_images(folder))
    return found == [f"{i:05d}.png" for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Turn MNIST's four idx files into folders of PNG images.")
    parser.add_argument(
        "--source",
        required=True,
        metavar="FOLDER_OR_URL",
        help="folder or address of the idx files, with or without .gz",
    )
    parser.add_argument(
        "--out",
        default=MNIST_ROOT,
        metavar="FOLDER",
        help="folder for the training images, in FOLDER/<digit>/; the test images go to"
        " FOLDER_test/<digit>/; default: %(default)s",
    )
    args = parser.parse_args()
    try:
        prepare(args.source, args.out)
    except (OSError, ValueError) as error:
        sys.exit(in_one_line(error))
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command again to continue")


if __name__ == "__main__":
    main()
