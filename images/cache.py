"""Decoded images in one memory-mapped file: opening 60,000 PNGs takes ten seconds at every start, mapping it no time.

The file is whole or absent, and used only while its checksum holds, which covers the names, sizes and times of the
images as well as their pixels: of a changed folder or a damaged file nothing is believed. Where it cannot be written
(a full disk, a medium that is read-only), everything works as without it.
"""

import hashlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from images.image_files import PIECE, read_images, say_skipped
from runtime.arrays import disable_read_ahead, release_pages
from runtime.atomic_file import unfinished

RECIPE = 1  # part of the checksum: raise it whenever files.read_image gives other pixels
SMALLEST = 2**20  # bytes of pixels: fewer are read in a blink
LARGE = 2**29  # bytes of pixels: so many stay on the disk, and are read when asked for
SETTLED = 2.0  # seconds: a file changed later than this may change once more without a new time


class Kept(NamedTuple):
    """good: which of the files could be read, (N,) bool. pixels: of those, (M, C, H, W) uint8."""

    good: np.ndarray
    pixels: np.ndarray


def read_cached(
    root: str | Path, paths: list[str], chosen: Tensor, on_bad_image: str
) -> tuple[Tensor | np.memmap, Tensor]:
    """files.read_images of the chosen rows of `paths`, all the images below `root`. If all are chosen, they are kept.

    Pixels of at least LARGE bytes that lie in a file come as np.memmap: its pages are to be given back.

    Raises: as files.read_images.
    """
    key = _key(root, paths)
    kept = next((kept for path in _places(root) if key and (kept := _load(path, key))), None)
    bad = [] if kept is None else [paths[i] for i in chosen if not kept.good[i]]
    if kept is None or (bad and on_bad_image == "error"):
        pixels, good = read_images([paths[i] for i in chosen], on_bad_image, partial(_room, root))
        kept = Kept(np.isin(np.arange(len(paths)), good.numpy()), pixels)
        if key and len(chosen) == len(paths) and pixels.nbytes >= SMALLEST:
            path = _save(root, key, kept)
            kept = (_load(path, key) if path and pixels.nbytes >= LARGE else None) or kept
        return _usable(kept.pixels), good
    say_skipped(bad)
    good = torch.from_numpy(kept.good)
    rows, whole = (good.cumsum(0) - 1)[chosen[good[chosen]]], _usable(kept.pixels)
    pixels = whole if len(rows) == len(whole) else torch.from_numpy(kept.pixels)[rows]
    return pixels, good[chosen].nonzero()[:, 0]


def _usable(pixels: np.ndarray) -> Tensor | np.memmap:
    if not isinstance(pixels, np.memmap) or pixels.nbytes < LARGE:
        return torch.from_numpy(pixels)
    disable_read_ahead(pixels)
    return pixels


def _room(root: str | Path, shape: tuple[int, ...]) -> np.ndarray:
    """Room for so many decoded images: in memory, or for LARGE ones in a nameless file, where a disk takes it."""
    for path in _places(root) if math.prod(shape) >= LARGE and hasattr(os, "posix_fallocate") else ():
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent) as file:
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))  # raises now what would kill later: a full disk
                return np.memmap(file, np.uint8, "r+", shape=shape)
    return np.empty(shape, np.uint8)


def _parts(kept: Kept) -> Iterator[memoryview]:
    """The bytes of pixels and of good, as they lie in the file between its header and the checksum."""
    rows = max(1, PIECE // max(1, kept.pixels[:1].nbytes))
    for begin in range(0, len(kept.pixels), rows):
        yield np.ascontiguousarray(kept.pixels[begin : begin + rows]).data
        if isinstance(kept.pixels, np.memmap):
            release_pages(kept.pixels)
    yield np.ascontiguousarray(kept.good).data


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


def _checksum(key: bytes, kept: Kept) -> bytes:
    digest = hashlib.blake2b(key + repr((kept.good.shape, kept.pixels.shape)).encode(), digest_size=32)
    for part in _parts(kept):
        digest.update(part)
    return digest.digest()


def _load(path: Path, key: bytes) -> Kept | None:
    """What the file keeps, mapped into memory; None where there is no such file, or not one of these images."""
    try:
        # "c": copy on write, so that torch may take the array, and nothing that is done to it reaches the file
        pixels = np.load(path, mmap_mode="c", allow_pickle=False)
        with path.open("rb") as file:
            file.seek(pixels.offset + pixels.nbytes)
            behind = file.read()
        kept = Kept(np.frombuffer(behind[:-32], bool).copy(), pixels)
        whole = pixels.dtype == np.uint8 and behind[-32:] == _checksum(key, kept)
    except Exception:  # a damaged header fails in as many ways as numpy has of reading one
        return None
    return kept if whole else None


def _save(root: str | Path, key: bytes, kept: Kept) -> Path | None:
    """Write the file in the first place that takes it, under another name until it is whole; returns which."""
    for path in _places(root):
        temporary = unfinished(path)
        with suppress(OSError):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    header = {"descr": "|u1", "fortran_order": False, "shape": kept.pixels.shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    for part in chain(_parts(kept), [_checksum(key, kept)]):
                        file.write(part)
                os.replace(temporary, path)
                print(f"kept the decoded images in {path}")
                return path
            finally:
                temporary.unlink(missing_ok=True)
    return None
