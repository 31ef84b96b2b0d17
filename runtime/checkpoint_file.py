"""Checkpoint files: saving, verified loading, and finding the newest one."""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime import diffusers_folder, exported_folder
from runtime.atomic_file import atomic_file
from runtime.checkpoint_contents import excess_in_archive, excess_in_checkpoint

DEFAULT_NAME = "last.pt"
LATEST = "latest"  # in place of a path: the newest checkpoint
EXTENSIONS = (".pt", ".pth")
FORMAT = "moonwalk checkpoint 1"
OUTPUT_FOLDERS = ("outputs", "runs")  # searched for the newest checkpoint
PLACES = " or ".join(OUTPUT_FOLDERS)
NONE_FOUND = f"checkpoint yet below {PLACES}: run `python train.py` first, or name one"


# ---------------------------------------------------------------- names


def _is_checkpoint_name(path: Path) -> bool:
    return path.suffix in EXTENSIONS and not path.name.startswith(".")


def check_name(name: str) -> None:
    """Check that a checkpoint saved under this name would be found again.

    Raises:
        ValueError: `name` contains a folder, is hidden, or has another extension.
    """
    path = Path(name)
    if path.name != name or not _is_checkpoint_name(path):
        rule = f"must be a file name that ends in {' or '.join(EXTENSIONS)}"
        raise ValueError(f"ckpt_save_name {rule}, got {name!r}")


# ---------------------------------------------------------------- saving and loading


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` to `path`; a crash leaves the old file or the new one.

    Args:
        path: the file; its folder exists.
        state: tensors, plain containers, numbers and text.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_file(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file, the checkpoint in a run folder, or a model folder. All tensors arrive on the CPU.

    A model folder is one that scripts/export.py has written, or diffusers. It has the parts of a checkpoint that
    sampling needs.

    Raises:
        FileNotFoundError: there is no such file, or a model folder lacks one.
        OSError: the file cannot be read.
        ValueError: the file is damaged, asks for more memory than it has bytes, holds NaN or
            infinity, or is not a checkpoint of moonwalk.
    """
    path = Path(path)
    if path.is_dir():
        read_folder = _reader_of_model_folder(path)
        if read_folder:
            return _checked_finite(read_folder(path), path)
        path = checkpoint_in_folder(path)
    return _checked_finite(_load_file(path), path)


def _checked_finite(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Raises ValueError where a tensor of the state read from `path` holds NaN or infinity."""
    name = first_non_finite(state)
    if name is not None:
        cause = f"of a training that had diverged: {name} is not finite"
        raise ValueError(f"the checkpoint {path} is {cause}")
    return state


def _reader_of_model_folder(folder: Path) -> Callable[[Path], dict[str, Any]] | None:
    """The function that reads a model folder; None for a run folder."""
    names = {path.name for path in folder.iterdir()}
    if any(_is_checkpoint_name(Path(name)) for name in names):
        return None
    if exported_folder.is_exported(folder):
        return exported_folder.load
    return diffusers_folder.load if names.intersection(diffusers_folder.FILES) else None


def _load_file(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        raise ValueError(f"{path} holds weights alone: name the folder of the model, in which its options lie as well")
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint at {path}; `python train.py` makes one")
    if not path.is_file():
        raise ValueError(f"{path} is no checkpoint: it is a device or a pipe, not a file")

    with path.open("rb") as file:  # once, because a running training may replace it at any moment
        try:
            excess, state = _bounded_state(file)
        except Exception as error:  # damaged bytes raise many types of error in zipfile and torch
            message = f"the checkpoint {path} is damaged or no checkpoint at all"
            raise ValueError(message) from error

    if excess:
        raise ValueError(f"the checkpoint {path} is damaged: it {excess}")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of this version of moonwalk ({FORMAT})")
    return state


def _bounded_state(file: io.BufferedReader) -> tuple[str | None, Any]:
    """Return None and the content of a checkpoint, or in what it exceeds its file, and None."""
    excess = excess_in_archive(file)
    if excess:
        return excess, None
    archive = _verified_archive(file)
    excess = excess_in_checkpoint(archive)
    if excess:
        return excess, None
    archive.seek(0)
    return None, torch.load(archive, map_location="cpu", weights_only=True)


def _verified_archive(file: io.BufferedReader) -> io.BytesIO:
    """Copy a zip archive while zipfile verifies the checksum of each member.

    torch.load verifies no checksum, and trusts a directory in which a bit may have flipped. It
    therefore reads this copy.

    Raises:
        zipfile.BadZipFile: a checksum is wrong, or two members share a name.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(copy, "w") as target:
        names = source.namelist()
        distinct = {name.lower() for name in names}  # torch does not tell capitals from small letters
        if len(distinct) < len(names):
            raise zipfile.BadZipFile("two members share a name")
        for name in names:
            target.writestr(name, source.read(name))
    copy.seek(0)
    return copy


def first_non_finite(state: Mapping[Any, Any]) -> str | None:
    """Return the dotted name of the first tensor that holds NaN or infinity, or None.

    Such a name is "net.out.weight", for state["net"]["out.weight"].
    """
    for name, tensor in _named_tensors(state):
        if not tensor.isfinite().all():
            return name
    return None


def _named_tensors(state: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in state.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _named_tensors(value, f"{prefix}{key}.")


# ---------------------------------------------------------------- finding


def load_or_newest(asked: str | None) -> tuple[Path, dict[str, Any]]:
    """Load the named checkpoint or run folder, or for None the newest checkpoint.

    Returns:
        The path and the state. The path is as given, so it may be a folder.

    Raises:
        FileNotFoundError, ValueError: as `load` and `newest`.
    """
    if asked:
        return Path(asked), load(asked)
    return load_newest()


def load_newest(root: str | Path = ".") -> tuple[Path, dict[str, Any]]:
    """Load the newest readable checkpoint below outputs/ and runs/ of the folder `root`.

    Returns:
        Its path and its state. They belong together: the file is read once, because a running
        training may replace it at any moment.

    Raises:
        FileNotFoundError: there is none.
    """
    for path in find_checkpoints(root):
        try:
            return path, load(path)
        except ValueError as error:
            print(f"passed over: {error}")
        except OSError as error:
            print(f"passed over: the checkpoint {path} cannot be read ({error.strerror or error})")
    raise FileNotFoundError(f"no readable {NONE_FOUND}")


def find_checkpoints(root: str | Path = ".") -> list[Path]:
    """List all files below outputs/ and runs/ that are named like checkpoints, newest first.

    Raises:
        FileNotFoundError: there is none.
    """
    found = [path for path in files_newest_first("*.pt*", root) if _is_checkpoint_name(path)]
    if not found:
        raise FileNotFoundError(f"no {NONE_FOUND}")
    return found


def checkpoint_in_folder(folder: Path) -> Path:
    """Return the newest file in a run folder that is named like a checkpoint.

    Its name depends on ckpt_save_name. Without such a file this is the path of last.pt.
    """
    found = [path for path in folder.iterdir() if _is_checkpoint_name(path)]
    return max(found, key=_modification_time, default=folder / DEFAULT_NAME)


def run_folder_path(path: Path) -> Path:
    """Return the run folder of a checkpoint, given the path of either."""
    return path if path.is_dir() else path.parent


def files_newest_first(pattern: str, root: str | Path = ".") -> list[Path]:
    """List all files below outputs/ and runs/ whose names match `pattern`, newest first."""
    found: list[Path] = []
    for folder in OUTPUT_FOLDERS:
        found += (Path(root) / folder).rglob(pattern)
    return sorted(found, key=_modification_time, reverse=True)


def _modification_time(path: Path) -> float:
    """When a file was written; for a link to nothing, when the link was made."""
    try:
        return path.stat().st_mtime
    except OSError:
        return path.lstat().st_mtime
