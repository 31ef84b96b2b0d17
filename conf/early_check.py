"""Checks of a command line that need no torch, made before a command imports it.

Unknown options, wrong values and missing files are therefore answered in about a second. What needs
torch or the content of a file is checked later, where it is used. The functions of the upper layers
that open a file raise the same sentences, for callers other than commands.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from conf.config import Compare, Evaluate, Inference, Main, Train, check_source
from conf.flags import CommandLine
from conf.folders import LATEST, check_checkpoint, check_folder_is_free, claim_folder
from conf.like import options_like
from conf.preset_files import LISTED_SWEEPS, check_presets
from conf.store import checked, composed
from points.tables import ARRAY_ENDINGS, column_index, column_names, read_any_table

# Data sets that need a file or a folder, and what is said where it is not given.
MISSING_OPTION = {
    "file": "dataset=file needs dataset.path=FILE: a .csv, .npy or .npz file, or a table of numbers",
    "picture": "dataset=picture needs dataset.path=FILE, a picture with something dark on white",
    "images": "dataset=images needs dataset.root=DIR, a folder that holds a folder of images for each class",
}
SMALL_TABLE_BYTES = 20_000_000  # are read in less than a second


def check_early(name: str, line: CommandLine, continues: bool) -> None:
    """Compose the options of a command line for command `name`; check them and the files they name.

    continues: whether the run goes on in an existing folder.

    Raises:
        ValueError, OSError, HydraException, OmegaConfBaseException: a mistake of the user.
    """
    if line.asks_hydra:
        return
    if line.is_sweep:
        check_presets(name, line.overrides, options_like(name, line.overrides))
        # Each run of a sweep checks its own values, so that a failing run costs no other.
        composed(name, _without_sweeps(line.overrides))
        folder = _named_folder("hydra.sweep.dir", line.overrides)
        if folder:
            claim_folder(folder, "hydra.sweep.dir")
        return
    check_files(checked(composed(name, line.overrides)), continues)
    folder = _named_folder("hydra.run.dir", line.overrides)
    if folder and not continues:
        if name == "train":
            check_folder_is_free(folder, "a run", "hydra.run.dir")
        claim_folder(folder, "hydra.run.dir")


def _named_folder(option: str, overrides: Sequence[str]) -> str | None:
    """The value of hydra.run.dir or hydra.sweep.dir; None where it is not given, or where Hydra has to compute it."""
    named = [word for word in overrides if word.startswith(f"{option}=")]
    if not named or "${" in named[-1]:
        return None
    return str(OverridesParser.create().parse_override(named[-1]).value())


def _without_sweeps(overrides: Sequence[str]) -> list[str]:
    """The overrides of a sweep's first run, without those whose values only a sweeper knows."""
    parser = OverridesParser.create()
    first = []
    for word in overrides:
        override = parser.parse_override(word)
        if not override.is_sweep_override():
            first.append(word)
        elif override.value_type in LISTED_SWEEPS:
            value = next(override.sweep_string_iterator())
            first.append(f"{override.key_or_group}={value}")
    return first


# ---------------------------------------------------------------- files and folders


def check_files(options: Any, continues: bool) -> None:
    """Check that the files and folders exist that the options of a command name.

    Raises:
        ValueError, FileNotFoundError: one does not, or a new run has a folder that holds another.
    """
    if isinstance(options, Train):
        _check_training(options, continues)
    if isinstance(options, Main):
        _check_dataset(options.dataset)
    if isinstance(options, Inference | Compare):
        check_checkpoint(options.checkpoint)
        _check_dataset(options.dataset)
    if isinstance(options, Evaluate):
        _check_evaluation(options)


def _check_training(options: Train, continues: bool) -> None:
    if options.resume:
        # The training goes on with its own data set, in its own folder.
        check_checkpoint(None if options.resume == LATEST else options.resume)
        return
    if options.task_name and not continues:
        check_folder_is_free(options.task_name, "a run")
    _check_dataset(options.dataset)


def _check_evaluation(options: Evaluate) -> None:
    check_source(options)
    if options.samples:
        _check_file(options.samples)
        _check_dataset(options.dataset)
    else:
        check_checkpoint(options.checkpoint)
        _check_dataset(options.dataset)


def _check_dataset(dataset: Any) -> None:
    """Raises ValueError, FileNotFoundError where a data set lacks its file or folder."""
    place = getattr(dataset, "path", None) or getattr(dataset, "root", None)
    if dataset.name in MISSING_OPTION and not place:
        raise ValueError(MISSING_OPTION[dataset.name])
    if hasattr(dataset, "path"):
        _check_file(dataset.path)
    if dataset.name == "file":
        check_table(dataset.path, dataset.label, dataset.columns, dataset.missing)
    if hasattr(dataset, "root") and dataset.root:
        check_image_folder(dataset.root)
    if hasattr(dataset, "test_root") and dataset.test_root:
        check_image_folder(dataset.test_root)


def _check_file(path: str) -> None:
    if not Path(path).exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def check_image_folder(root: str) -> None:
    """Raises FileNotFoundError where there is no such folder of images."""
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"there is no folder {root}: name one that holds a folder of images for each class, or"
            " prepare MNIST with"
            f" `python scripts/prepare_mnist.py --source FOLDER_OR_URL --out {root}`"
        )


# ---------------------------------------------------------------- tables


def check_table(path: str, label: str | None, columns: Sequence[str] | None, missing: str) -> None:
    """Raises ValueError where a table cannot be learnt.

    Small texts are read for this. Of larger ones only the beginning is read, for the names of the columns.
    """
    is_text = Path(path).suffix.lower() not in ARRAY_ENDINGS
    if is_text and Path(path).is_file() and Path(path).stat().st_size <= SMALL_TABLE_BYTES:
        read_any_table(path, label, columns, missing)
    else:
        check_columns(path, label, columns or [])


def check_columns(path: str, label: str | None, columns: Sequence[str]) -> None:
    """Raises ValueError where a text table lacks one of the columns.

    What else may be wrong with the file is found where it is read.
    """
    if label is None and not columns:
        return
    try:
        names = column_names(path)
    except ValueError:
        return
    if names is None:
        return
    if label is not None:
        column_index(names, label, "dataset.label", path)
    for column in columns:
        column_index(names, str(column), "dataset.columns", path)
