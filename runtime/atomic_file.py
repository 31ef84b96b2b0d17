"""Files that are either complete or absent, whatever interrupts their writing."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import fcntl
except ImportError:  # Windows has other locks; what a killed process was writing stays there
    fcntl: Any = None


@contextmanager
def atomic_file(path: str | Path) -> Iterator[io.BytesIO]:
    """Yield a buffer in memory; when the block ends without an error, it is written to `path`.

    The content goes to a temporary file beside the target, is flushed to the disk, and is renamed.
    A crash at any moment therefore leaves the old file or the new one. Writing into memory first
    also gives a clear error when the disk is full: the writers of file formats report that in many
    different ways. What a killed process was writing for `path` is removed.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    path = Path(path)
    content = io.BytesIO()
    yield content

    temporary = temporary_path(path)
    remove_unfinished_files(path.parent, re.escape(f".{path.name}.") + r"\d+")
    try:
        with locked_file(temporary):
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


# ---------------------------------------------------------------- what killed processes were writing


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Create an empty file and hold its lock, by which others see that its writer is alive.

    The kernel releases the lock when the process ends, however it ends.
    """
    if not fcntl:
        yield
        return
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o666)
        try:
            _wait_for_lock(descriptor)
            if _is_open_file(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _wait_for_lock(descriptor: int) -> None:
    """Wait for the lock of a file. Some network file systems have no locks; nobody then waits."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_open_file(path: Path, descriptor: int) -> bool:
    """Tell whether a path still leads to an open file, and not to none or to another one."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def remove_unfinished_files(folder: Path, names: str) -> None:
    """Remove what killed processes were writing: unfinished files whose lock is free.

    names: a regular expression that matches their whole names.
    """
    found: list[str] = []
    with suppress(OSError):  # no such folder, or none that may be read
        found = [name for name in os.listdir(folder) if re.fullmatch(names, name)]
    if not fcntl:
        return
    for name in found:
        path = folder / name
        with suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_open_file(path, descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)
