"""Files that are either whole or absent, whatever happens while they are written."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@contextmanager
def atomic_file(path: str | Path) -> Iterator[io.BytesIO]:
    """A file in memory which, once it is filled, becomes `path`: the old file or the new one, never neither.

    Written beside the target, forced to the disk, then renamed: a crash at any moment leaves a readable file. A full
    disk ends in an OSError that names `path`, where writing to the disk straight away ends in riddles of the formats'
    own writers.
    """
    path, content = Path(path), io.BytesIO()
    yield content
    temporary = unfinished(path)
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
        temporary.unlink(missing_ok=True)


def save_array(path: str | Path, array: NDArray) -> None:
    """`array` as a .npy file that is whole or absent."""
    with atomic_file(path) as file:
        np.save(file, array)


def unfinished(path: Path) -> Path:
    """The name of a file of this process that is still being written."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def _sync_folder(folder: Path) -> None:
    """The rename itself must reach the disk (POSIX only: elsewhere folders cannot be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
