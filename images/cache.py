"""A cache of decoded images: all pixels of a folder in one memory-mapped file.

Reading 60,000 PNG files takes ten seconds at every start; mapping the file takes no time.

The file is complete or absent. It is used only if its checksum holds. That covers the pixels, and
the names, sizes, times and inodes of the images. After a change in the folder, or a damage to the
file, the images are read again. Where the file cannot be written, such as on a full or read-only
disk, everything works without it.
"""

import hashlib
import json
import math
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from images.decoding import Levels, Reading, plan_reading
from images.image_files import PIECE_BYTES, read_images, say_skipped
from runtime.arrays import disable_read_ahead, release_pages
from runtime.atomic_file import locked_file, remove_unfinished_files, temporary_path

try:
    import fcntl
except ImportError:  # on Windows what a killed process leaves is not removed
    fcntl: Any = None

RECIPE = 2  # part of the checksum; raise it whenever decoding.read_image returns other pixels
MIN_CACHED_BYTES = 2**20  # bytes of pixels; fewer are read so fast that no file is written
LARGE_BYTES = 2**29  # bytes of pixels; at least so many stay on the disk and are read when needed
SETTLING_SECONDS = 2.0  # a file changed less long ago may change again without a new time
DIGEST_BYTES = 32
UNFINISHED = r"\..+\.npy\.\d+"  # names that atomic_file.temporary_path gives
SEPARATOR = b"\n"  # between `good`, whose bytes are 0 and 1, and the text of `reading`


class CachedImages(NamedTuple):
    """What the file holds of a folder with N image files, of which M could be read."""

    good: np.ndarray  # which of the files could be read, (N,) bool
    pixels: np.ndarray  # of these, (M, C, H, W) uint8
    reading: Reading  # how they were read


# ---------------------------------------------------------------- reading


def read_cached(
    root: str | Path,
    paths: list[str],
    chosen: Tensor,
    on_bad_image: str,
    size: int | None = None,
    like: Reading | None = None,
) -> tuple[Tensor | np.memmap, Tensor, Reading]:
    """Read some of the images of a folder, from the cache if it holds them.

    If all images are chosen, they are written to the cache.

    Args:
        root: the folder.
        paths: all images below it.
        chosen: indices in `paths`, rising.
        on_bad_image: "skip" or "error", see image_files.read_images.
        size: side in pixels that all images get, see decoding.plan_reading.
        like: read them as other images were read, instead of by a plan of their own.

    Returns:
        Pixels (M, C, H, W) uint8 of the readable images, their indices (M,) in `chosen`, and how
        they were read, which is a function of all images of the folder. Pixels of at least LARGE
        bytes that lie in a file are an np.memmap. Whoever reads it should release its pages
        (runtime.arrays.release_pages).

    Raises:
        ValueError: as image_files.read_images.
    """
    for path in _places(root):
        remove_unfinished_files(path.parent, UNFINISHED)
    key = _key_of_reading(_folder_key(root, paths), size, like)
    cached = _load_from_places(root, key)
    if cached is not None:
        bad = [paths[i] for i in chosen if not cached.good[i]]
        if not bad or on_bad_image != "error":
            say_skipped(bad)
            return *_select(cached, chosen), cached.reading

    reading = like or plan_reading(paths, size)
    chosen_paths = [paths[i] for i in chosen]
    pixels, good = read_images(chosen_paths, on_bad_image, partial(_empty_pixels, root), reading)
    is_worth_keeping = len(chosen) == len(paths) and pixels.nbytes >= MIN_CACHED_BYTES
    # An image may have changed while the others were read.
    if is_worth_keeping and key and key == _key_of_reading(_folder_key(root, paths), size, like):
        is_good = np.isin(np.arange(len(paths)), good.numpy())
        path = _save(root, key, CachedImages(is_good, pixels, reading))
        if path is not None and pixels.nbytes >= LARGE_BYTES:
            saved = _load(path, key)
            if saved is not None:
                pixels = saved.pixels
    return _on_disk_if_large(pixels), good, reading


def _select(cached: CachedImages, chosen: Tensor) -> tuple[Tensor | np.memmap, Tensor]:
    """Return the pixels of the good ones of the chosen images, and their indices in `chosen`."""
    good = torch.from_numpy(cached.good)
    row_of_image = good.cumsum(0) - 1  # among the pixels, which are those of good images only
    rows = row_of_image[chosen[good[chosen]]]
    indices = good[chosen].nonzero()[:, 0]
    pixels = _on_disk_if_large(cached.pixels)
    if len(rows) < len(pixels):
        pixels = torch.from_numpy(cached.pixels)[rows]
    return pixels, indices


def _on_disk_if_large(pixels: np.ndarray) -> Tensor | np.memmap:
    """Return large mapped pixels as they are, and all others as a tensor."""
    if not isinstance(pixels, np.memmap) or pixels.nbytes < LARGE_BYTES:
        return torch.from_numpy(pixels)
    disable_read_ahead(pixels)
    return pixels


def _empty_pixels(root: str | Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised uint8 array for decoded images.

    It is in memory, or for at least LARGE bytes in a nameless file, if a disk has room for it.
    """
    size = math.prod(shape)
    if size < LARGE_BYTES or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, np.uint8)
    for path in _places(root):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent) as file:
                # Without this, a full disk would kill the process at a later write.
                os.posix_fallocate(file.fileno(), 0, size)
                return np.memmap(file, np.uint8, "r+", shape=shape)
    return np.empty(shape, np.uint8)


# ---------------------------------------------------------------- the file


def _places(root: str | Path) -> Iterator[Path]:
    """Yield the paths that the file may have: beside the folder, or in the user's cache."""
    folder = Path(os.path.abspath(root))
    yield folder.parent / ".moonwalk" / f"{folder.name}.npy"
    with suppress(RuntimeError):  # of Path.home, for a user without a home
        cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        name = hashlib.blake2b(os.fsencode(folder), digest_size=16).hexdigest()
        yield Path(cache_home, "moonwalk") / f"{name}.npy"


def _load_from_places(root: str | Path, key: bytes) -> CachedImages | None:
    if not key:
        return None
    for path in _places(root):
        cached = _load(path, key)
        if cached is not None:
            return cached
    return None


def _load(path: Path, key: bytes) -> CachedImages | None:
    """Map a file into memory; None if it is absent, damaged, or about other images.

    The mapping is copy-on-write. torch may therefore use the array, and nothing that is written to
    it reaches the file.
    """
    try:
        pixels = np.load(path, mmap_mode="c", allow_pickle=False)
        with path.open("rb") as file:
            file.seek(pixels.offset + pixels.nbytes)
            tail = file.read()
        flags, _, text = tail[:-DIGEST_BYTES].partition(SEPARATOR)
        cached = CachedImages(np.frombuffer(flags, bool).copy(), pixels, _reading_of(text))
        is_intact = tail[-DIGEST_BYTES:] == _checksum(key, cached)
    except Exception:  # numpy reports a damaged header by many types of errors
        return None
    return cached if is_intact and pixels.dtype == np.uint8 else None


def _save(root: str | Path, key: bytes, cached: CachedImages) -> Path | None:
    """Write the file to the first place where that is possible; return its path, or None."""
    for path in _places(root):
        try:
            _write(path, key, cached)
        except OSError:
            continue
        print(f"kept the decoded images in {path}")
        return path
    return None


def _write(path: Path, key: bytes, cached: CachedImages) -> None:
    """Write the file under a temporary name, and rename it when it is complete.

    It is an .npy file of the pixels, followed by `good`, the reading as JSON, and the checksum.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    header = {"descr": "|u1", "fortran_order": False, "shape": cached.pixels.shape}
    with locked_file(temporary):
        try:
            with temporary.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for piece in _pieces(cached):
                    file.write(piece)
                file.write(_checksum(key, cached))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _pieces(cached: CachedImages) -> Iterator[memoryview]:
    """Yield the bytes of the pixels, some images at a time, and then those of `good` and `reading`."""
    image_bytes = cached.pixels[:1].nbytes
    images = max(1, PIECE_BYTES // max(1, image_bytes))
    for begin in range(0, len(cached.pixels), images):
        yield np.ascontiguousarray(cached.pixels[begin : begin + images]).data
        if isinstance(cached.pixels, np.memmap):
            release_pages(cached.pixels)
    yield np.ascontiguousarray(cached.good).data
    yield memoryview(SEPARATOR + json.dumps(cached.reading).encode())


def _reading_of(text: bytes) -> Reading:
    """Return the reading that `_pieces` has written."""
    side, levels, lines = json.loads(text)
    return Reading(side, None if levels is None else Levels(*levels), tuple(lines))


# ---------------------------------------------------------------- checksums


def _folder_key(root: str | Path, paths: list[str]) -> bytes:
    """Return a checksum of all that changes when one of the images is replaced.

    Its name, size and time may stay the same. The file system, however, gives another file another
    inode, and every change a new ctime, which no program can set back. For a link the checksum
    covers where it leads, and the inode and the times of the file there.

    It is empty if a file is missing. It is also empty if a file is so new that it may change again
    within the same tick of the file system's clock.
    """
    digest = hashlib.blake2b(b"%d" % RECIPE, digest_size=DIGEST_BYTES)
    settled_before = time.time() - SETTLING_SECONDS
    target_of_folder: dict[str, str] = {}
    try:
        for path in paths:
            folder = os.path.dirname(path)
            if folder not in target_of_folder:
                target_of_folder[folder] = _target(root, folder)
            target = target_of_folder[folder]
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                target = _target(root, path)
                status = os.stat(path)
            if max(status.st_mtime, status.st_ctime) >= settled_before:
                return b""
            name = path[len(str(root)) :]
            facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            digest.update(os.fsencode(f"{name}\0{target}\0{facts}\0"))
    except OSError:
        return b""
    return digest.digest()


def _target(root: str | Path, path: str) -> str:
    """Return where a path leads, links followed, as seen from `root`; a moved folder keeps it."""
    return os.path.relpath(os.path.realpath(path), os.path.realpath(root))


def _key_of_reading(key: bytes, size: int | None, like: Reading | None) -> bytes:
    """Return the checksum of a folder together with the options by which its images are read."""
    if not key:
        return b""
    same = None if like is None else (like.side, like.levels)
    return hashlib.blake2b(key + repr((size, same)).encode(), digest_size=DIGEST_BYTES).digest()


def _checksum(key: bytes, cached: CachedImages) -> bytes:
    """Return a checksum of the folder's key and of all that the file holds."""
    shapes = (cached.good.shape, cached.pixels.shape)
    digest = hashlib.blake2b(key + repr(shapes).encode(), digest_size=DIGEST_BYTES)
    for piece in _pieces(cached):
        digest.update(piece)
    return digest.digest()
