"""Files that are either complete or absent, whatever interrupts their writing."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@contextmanager
def atomic_file(path: str | Path) -> Iterator[io.BytesIO]:
    """Yield a buffer in memory; when the block ends without an error, it is written to `path`.

    The content goes to a temporary file beside the target, is flushed to the disk, and is renamed.
    A crash at any moment therefore leaves the old file or the new one. Writing into memory first
    also gives a clear error when the disk is full: the writers of file formats report that in many
    different ways.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    path = Path(path)
    content = io.BytesIO()
    yield content

    temporary = temporary_path(path)
    try:
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # on a disk that can only be read, the error above says so
            temporary.unlink(missing_ok=True)


def save_array(path: str | Path, array: NDArray) -> None:
    """`array` as a .npy file that is whole or absent."""
    with atomic_file(path) as file:
        np.save(file, array)


def temporary_path(path: Path) -> Path:
    """Return the path under which this process writes `path` until it is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def _sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that a rename in it survives a crash.

    Only POSIX systems can open folders; elsewhere this does nothing.
    """
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
