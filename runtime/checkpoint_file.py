"""Checkpoints: saved whole or not at all, checked where they are loaded, and the newest one found."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.atomic_file import atomic_file

NAME = "last.pt"
ENDINGS = (".pt", ".pth")
FORMAT = "moonwalk checkpoint 1"
FOLDERS = ("outputs", "runs")  # where `newest` looks
NONE_YET = f"checkpoint yet below {' or '.join(FOLDERS)}: run `python train.py` first, or name one"


def _named_like_one(path: Path) -> bool:
    return path.suffix in ENDINGS and not path.name.startswith(".")


def check_name(name: str) -> None:
    """Raises ValueError where `name` is no file name that the newest checkpoint is looked for under."""
    if Path(name).name != name or not _named_like_one(Path(name)):
        raise ValueError(f"ckpt_save_name must be a file name that ends in {' or '.join(ENDINGS)}, got {name!r}")


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, plain containers, numbers, text) to `path`, which holds the old state or the new one."""
    with atomic_file(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that `save` wrote, or the one in a run folder. Everything arrives on the CPU.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: it is damaged (checksums are verified), not finite, or no checkpoint of moonwalk.
    """
    path = Path(path)
    if path.is_dir():
        path = in_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint at {path}; `python train.py` makes one")
    try:
        state = torch.load(_verified(path), map_location="cpu", weights_only=True)
    except Exception as error:  # the disk has done its part: whatever goes wrong now, the bytes are its cause
        raise ValueError(f"the checkpoint {path} is damaged or no checkpoint at all") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of this version of moonwalk ({FORMAT})")
    if name := not_finite(state):
        raise ValueError(f"the checkpoint {path} is of a training that had diverged: {name} is not finite")
    return state


def _verified(path: Path) -> io.BytesIO:
    """The archive of a checkpoint, each part read against its checksum, and written anew for torch: its own reader
    verifies none, and trusts a directory in which a bit may have flipped."""
    whole = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive, zipfile.ZipFile(whole, "w") as copy:
        parts = archive.namelist()
        if len({*parts}) < len(parts):
            raise zipfile.BadZipFile("two parts of one name")
        for part in parts:
            copy.writestr(part, archive.read(part))
    whole.seek(0)
    return whole


def not_finite(state: Mapping[Any, Any]) -> str | None:
    """The dotted name of the first tensor that holds NaN or infinity, such as "net.out.weight"; None: all is well."""
    return next((name for name, tensor in _tensors(state) if not tensor.isfinite().all()), None)


def _tensors(state: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{key}.")


def asked_or_newest(asked: str | None) -> tuple[Path, dict[str, Any]]:
    """The checkpoint, or run folder, that is asked for and what it holds; None: the newest. Raises as load, newest."""
    return (Path(asked), load(asked)) if asked else newest()


def newest(root: str | Path = ".") -> tuple[Path, dict[str, Any]]:
    """The newest readable checkpoint below outputs/ and runs/, and what it holds.

    Read once: a training that runs may replace it at any moment.

    Raises:
        FileNotFoundError: there is none.
    """
    for path in all_of_them(root):
        try:
            return path, load(path)
        except (ValueError, FileNotFoundError) as error:
            print(f"passed over: {error}")
    raise FileNotFoundError(f"no readable {NONE_YET}")


def all_of_them(root: str | Path = ".") -> list[Path]:
    """Whatever is named like a checkpoint below outputs/ and runs/, the newest first, unread.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (found := [*filter(_named_like_one, newest_first("*.pt*", root))]):
        raise FileNotFoundError(f"no {NONE_YET}")
    return found


def in_folder(folder: Path) -> Path:
    """The checkpoint of a run folder, whatever its ckpt_save_name was: the newest file that ends like one."""
    found = filter(_named_like_one, folder.iterdir())
    return max(found, key=lambda path: path.stat().st_mtime, default=folder / NAME)


def folder_of(path: Path) -> Path:
    """The run folder of a checkpoint, which may be named by it or by its folder."""
    return path if path.is_dir() else path.parent


def newest_first(pattern: str, root: str | Path = ".") -> list[Path]:
    """All files of such a name below outputs/ and runs/, the one written last first."""
    found = [path for folder in FOLDERS for path in (Path(root) / folder).rglob(pattern)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
