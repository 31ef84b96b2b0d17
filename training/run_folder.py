"""A run folder in use: by one training at a time, without litter, and with a sentence where writing fails."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime import checkpoint_file, distributed

try:
    import fcntl
except ImportError:  # Windows: nobody keeps two trainings apart there
    fcntl: Any = None

FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
UNFINISHED = re.compile(r"\..+\.(pt|pth|json|png|gif)\.\d+")  # see atomic_file.unfinished; a recording is worth keeping


@contextmanager
def taken(folder: Path, new: bool) -> Iterator[None]:
    """A training's claim on its folder; the kernel ends it with the process, however that ends. Of several processes
    the first holds it.

    Raises:
        ValueError: another training is at work there, or has been, although this one is new.
        OSError: no such folder; or the disk was full, in a sentence that says which checkpoint there is.
    """
    if not distributed.is_first():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if fcntl and descriptor is not None:
            _lock(descriptor, folder)
        if new and set(os.listdir(folder)) - {".hydra"}:
            raise ValueError(f"{folder} already holds a run; choose another task_name")
        for path in [*folder.glob(".*"), *folder.glob("viz/.*")]:  # no deeper: what is named may be anybody's folder
            if UNFINISHED.fullmatch(path.name):  # of a process that was killed
                path.unlink()
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"cannot write {error.filename or f'in {folder}'}: {error.strerror}; {standing(folder)}"
        ) from error
    finally:
        if descriptor is not None:
            os.close(descriptor)


def checkpoint_to_resume(resume: str | None, run_folder: Path) -> Path | None:
    """The checkpoint, or its folder, that a training goes on from: as asked, or where torchrun has started it again the
    one in its own folder. None: it begins. Raises FileNotFoundError where there is none to be "latest"."""
    if resume:
        return checkpoint_file.all_of_them()[0] if resume == "latest" else Path(resume)
    again = distributed.restarts() > 0 and checkpoint_file.in_folder(run_folder).exists()
    return run_folder if again else None


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another training is at work in {folder}") from None
    except OSError:  # some network file systems lock no folders: then nobody keeps two trainings apart
        pass


def standing(folder: Path) -> str:
    """Which checkpoint a broken-off training can go on from, as found on the disk."""
    try:
        return f"the last checkpoint, of step {checkpoint_file.load(folder)['step']}, is intact"
    except (OSError, ValueError):
        return "there is no checkpoint yet"
