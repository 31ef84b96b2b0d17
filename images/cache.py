"""Decoded images in one memory-mapped file: opening 60,000 PNGs takes ten seconds at every start, mapping it no time.

The file is whole or absent, and used only while its checksum holds, which covers the names, sizes and times of the
images as well as their pixels: of a changed folder or a damaged file nothing is believed. Where it cannot be written
(a full disk, a medium that is read-only), everything works as without it.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from images.files import read_images, say_skipped
from runtime.whole_file import unfinished

RECIPE = 1  # part of the checksum: raise it whenever files.read_image gives other pixels
SMALLEST = 2**20  # bytes of pixels: fewer are read in a blink
SETTLED = 2.0  # seconds: a file changed later than this may change once more without a new time


class Kept(NamedTuple):
    """good: which of the files could be read, (N,) bool. pixels: of those, (M, C, H, W) uint8."""

    good: np.ndarray
    pixels: np.ndarray


def read_cached(root: str | Path, paths: list[str], chosen: Tensor, on_bad_image: str) -> tuple[Tensor, Tensor]:
    """files.read_images of the chosen rows of `paths`, all the images below `root`. If all are chosen, they are kept.

    Raises: as files.read_images.
    """
    key = _key(root, paths)
    kept = next((kept for path in _places(root) if key and (kept := _load(path, key))), None)
    bad = [] if kept is None else [paths[i] for i in chosen if not kept.good[i]]
    if kept is None or (bad and on_bad_image == "error"):
        pixels, good = read_images([paths[i] for i in chosen], on_bad_image)
        if key and len(chosen) == len(paths) and pixels.nbytes >= SMALLEST:
            _save(root, key, Kept(np.isin(np.arange(len(paths)), good.numpy()), pixels.numpy()))
        return pixels, good
    say_skipped(bad)
    good = torch.from_numpy(kept.good)
    rows, pixels = (good.cumsum(0) - 1)[chosen[good[chosen]]], torch.from_numpy(kept.pixels)
    return pixels if len(rows) == len(pixels) else pixels[rows], good[chosen].nonzero()[:, 0]


def _key(root: str | Path, paths: list[str]) -> bytes:
    """A checksum of names, sizes and times; empty where a file is missing, or too new to be known by its time."""
    digest, newest = hashlib.blake2b(b"%d" % RECIPE, digest_size=32), 0.0
    try:
        for path in paths:
            found = os.stat(path)
            newest = max(newest, found.st_mtime)
            digest.update(os.fsencode(f"{path[len(str(root)) :]}\0{found.st_size}\0{found.st_mtime_ns}\0"))
    except OSError:
        return b""
    return digest.digest() if newest < time.time() - SETTLED else b""


def _places(root: str | Path) -> Iterator[Path]:
    """Where the file may be: beside the folder, or in the user's own cache."""
    folder = Path(os.path.abspath(root))
    yield folder.parent / ".moonwalk" / f"{folder.name}.npy"
    with suppress(RuntimeError):  # a user without a home
        mine = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "moonwalk")
        yield mine / f"{hashlib.blake2b(os.fsencode(folder), digest_size=16).hexdigest()}.npy"


def _dtype(kept: Kept) -> np.dtype:
    return np.dtype([("good", "?", kept.good.shape), ("pixels", "u1", kept.pixels.shape), ("checksum", "u1", 32)])


def _checksum(key: bytes, kept: Kept) -> bytes:
    digest = hashlib.blake2b(key + repr(_dtype(kept).descr).encode(), digest_size=32)
    digest.update(np.ascontiguousarray(kept.good).data)
    digest.update(np.ascontiguousarray(kept.pixels).data)
    return digest.digest()


def _load(path: Path, key: bytes) -> Kept | None:
    """What the file keeps, mapped into memory; None where there is no such file, or not one of these images."""
    try:
        # "c": copy on write, so that torch may take the array, and nothing that is done to it reaches the file
        record = np.load(path, mmap_mode="c", allow_pickle=False)
        kept = Kept(record["good"], record["pixels"])
        whole = record.dtype == _dtype(kept) and record["checksum"].tobytes() == _checksum(key, kept)
    except Exception:  # a damaged header fails in as many ways as numpy has of reading one
        return None
    return kept if whole else None


def _save(root: str | Path, key: bytes, kept: Kept) -> None:
    """Write the file in the first place that takes it, under another name until it is whole."""
    for path in _places(root):
        temporary = unfinished(path)
        with suppress(OSError):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    descr = np.lib.format.dtype_to_descr(_dtype(kept))
                    header = {"descr": descr, "fortran_order": False, "shape": ()}
                    np.lib.format.write_array_header_1_0(file, header)
                    for part in (kept.good, kept.pixels, np.frombuffer(_checksum(key, kept), np.uint8)):
                        file.write(np.ascontiguousarray(part).data)
                os.replace(temporary, path)
                print(f"kept the decoded images in {path}")
                return
            finally:
                temporary.unlink(missing_ok=True)
