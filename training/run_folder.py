"""The run folder: one training at a time uses it, and leaves no unfinished files in it."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from points.large import UnusableRowError
from runtime import checkpoint_file, distributed

try:
    import fcntl
except ImportError:  # on Windows nothing prevents two trainings in one folder
    fcntl: Any = None

DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
# Names that atomic_file.temporary_path gives. An unfinished recording is worth keeping.
UNFINISHED = re.compile(r"\..+\.(pt|pth|json|png|gif)\.\d+")


@contextmanager
def locked_run_folder(folder: Path, new: bool) -> Iterator[None]:
    """Lock a run folder while its training runs. Of several processes the first one holds the lock.

    The kernel releases the lock when the process ends, however it ends.

    Raises:
        ValueError: another training runs there; or this one is new, and there has been one before.
        UnusableRowError: a file of points cannot be read on, in a sentence that names the last
            checkpoint.
        OSError: there is no such folder; or the disk is full, in a sentence that names it, too.
    """
    with _named_with_last_checkpoint(folder):
        if not distributed.is_first():
            yield
            return

        descriptor = os.open(folder, os.O_RDONLY) if fcntl else None
        try:
            if descriptor is not None:
                _lock(descriptor, folder)
            if new and set(os.listdir(folder)) - {".hydra"}:
                raise ValueError(f"{folder} already holds a run; choose another task_name")
            _remove_unfinished_files(folder)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)


@contextmanager
def _named_with_last_checkpoint(folder: Path) -> Iterator[None]:
    """Add the last checkpoint to the sentence of a full disk, or of points that cannot be read.

    Each of several processes may meet such an error, and any one of them reports it.
    """
    try:
        yield
    except UnusableRowError as error:
        raise UnusableRowError(f"{error}; {last_checkpoint_summary(folder)}") from error
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        where = error.filename or f"in {folder}"
        checkpoint = last_checkpoint_summary(folder)
        raise OSError(f"cannot write {where}: {error.strerror}; {checkpoint}") from error


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another training is at work in {folder}") from None
    except OSError:  # some network file systems cannot lock folders
        pass


def _remove_unfinished_files(folder: Path) -> None:
    """Remove what a killed training was writing. Other folders below may hold files of the user."""
    for path in [*folder.glob(".*"), *folder.glob("viz/.*")]:
        if UNFINISHED.fullmatch(path.name):
            path.unlink()


def checkpoint_to_resume(resume: str | None, run_folder: Path) -> Path | None:
    """The checkpoint, or its folder, from which a training goes on; None for a new training.

    Args:
        resume: the option: a path, "latest" or None. Where torchrun has started the training again,
            None stands for the checkpoint in the training's own folder.

    Raises:
        FileNotFoundError: there is no checkpoint that could be the latest.
    """
    if resume == checkpoint_file.LATEST:
        return checkpoint_file.find_checkpoints()[0]
    if resume:
        return Path(resume)
    if distributed.restart_count() > 0 and checkpoint_file.checkpoint_in_folder(run_folder).exists():
        return run_folder
    return None


def last_checkpoint_summary(folder: Path) -> str:
    """A clause that says which checkpoint on the disk an interrupted training can go on from."""
    try:
        step = checkpoint_file.load(folder)["step"]
    except (OSError, ValueError):
        return "there is no checkpoint yet"
    return f"the last checkpoint, of step {step}, is intact"
