"""Turn MNIST's four idx files into folders of images: `python scripts/prepare_mnist.py --source FOLDER_OR_URL`.

60 000 training images go to OUT/<digit>/<index>.png, 10 000 test images to OUT_test. After an interruption, run it
again: images already written are kept.
"""

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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/

from images import MNIST_ROOT
from runtime.progress import progress_bar

COUNTS = {"train": 60_000, "t10k": 10_000}
SHA256 = {  # of the uncompressed files: mirrors compress them differently
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def prepare(source: str, out: str | Path) -> None:
    """Write the folders `out` and `<out>_test` from the idx files in a folder or below a URL.

    Raises:
        OSError, ValueError: a file that is missing, damaged or not MNIST's; a folder that cannot be written.
    """
    folders = {"train": Path(os.path.abspath(out)), "t10k": Path(f"{os.path.abspath(out)}_test")}
    to_do = [part for part in folders if not is_complete(folders[part], COUNTS[part])]
    # Everything is read and checked before the first image is written.
    names = [name for name in SHA256 if name.split("-")[0] in to_do]
    arrays = {name: read_idx(checked(name, fetch(source, name))) for name in progress_bar(names, "reading")}
    for part, folder in folders.items():
        if part in to_do:
            write_tree(arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"], folder)
        print(f"{folder}: {COUNTS[part]} images{'' if part in to_do else ', already complete'}")


# ---------------------------------------------------------------- idx files


def fetch(source: str, name: str) -> bytes:
    """The uncompressed content of one idx file, under either spelling of its name, with or without .gz.

    Raises:
        FileNotFoundError: the source has no such file.
        OSError: the source cannot be reached.
        ValueError: the file is damaged.
    """
    dotted = name.replace("-idx", ".idx")
    for candidate in (f"{name}.gz", name, f"{dotted}.gz", dotted):
        content = _download(source, candidate) if "://" in source else _read(source, candidate)
        if content is not None:
            return unpacked(candidate, content)
    raise FileNotFoundError(f"{source} holds neither {name} nor {dotted}, with or without .gz")


def _read(folder: str, name: str) -> bytes | None:
    path = Path(folder, name)
    return path.read_bytes() if path.is_file() else None


def _download(base: str, name: str) -> bytes | None:
    """The content at that address, or None if there is none."""
    if urlsplit(base).scheme == "file":
        return _read(urllib.request.url2pathname(urlsplit(base).path), name)
    try:
        with urllib.request.urlopen(f"{base.rstrip('/')}/{name}", timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410):  # some servers answer "forbidden" for missing files
            return None
        raise OSError(f"{base} answered {error.code} {error.reason} to the request for {name}") from error
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"{name} could not be read from {base}: {getattr(error, 'reason', error)}") from error


def unpacked(name: str, content: bytes) -> bytes:
    """The content, decompressed if it is gzip."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name} is truncated or damaged ({error}); download it again") from error


def checked(name: str, content: bytes) -> bytes:
    """The content, if its checksum is right."""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise ValueError(f"{name} is not MNIST's: its sha256 is {found[:12]}..., not {SHA256[name][:12]}...")
    return content


def read_idx(content: bytes) -> np.ndarray:
    """The uint8 array of an idx file: two zero bytes, type, number of dimensions, sizes (big-endian int32), values."""
    ndim = content[3]
    sizes = np.frombuffer(content, ">i4", ndim, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(sizes)


# ---------------------------------------------------------------- image files


def write_tree(images: np.ndarray, labels: np.ndarray, folder: Path) -> int:
    """Write the images (N, H, W) uint8 that are missing to folder/<label>/<index>.png; returns how many they were.

    Raises:
        ValueError: the folder holds other images.
        OSError: the folder cannot be written.
    """
    wanted = [f"{label}/{i:05d}.png" for i, label in enumerate(labels)]
    present = present_images(folder)
    if others := present - set(wanted):
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
    """Written under a hidden name and then renamed, so that a file with the final name is always complete."""
    temporary = path.with_name(f".{path.name}")
    Image.fromarray(image).save(temporary, "PNG", compress_level=1)
    os.replace(temporary, path)


def present_images(folder: Path) -> set[str]:
    """Names, like 7/00012.png, of the images already written."""
    return {f"{path.parent.name}/{path.name}" for path in folder.glob("[!.]*/[!.]*.png")}


def is_complete(folder: Path, count: int) -> bool:
    """Whether every index has its image; its label is not checked, which would need the source."""
    return sorted(Path(path).name for path in present_images(folder)) == [f"{i:05d}.png" for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Turn MNIST's four idx files into folders of PNG images.")
    parser.add_argument("--source", required=True, metavar="FOLDER_OR_URL", help="where the idx files are, gzip or raw")
    parser.add_argument(
        "--out",
        default=MNIST_ROOT,
        metavar="FOLDER",
        help="training images go to FOLDER/<digit>/, test images to FOLDER_test/<digit>/; default: %(default)s",
    )
    args = parser.parse_args()
    try:
        prepare(args.source, args.out)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command again to continue")


if __name__ == "__main__":
    main()
