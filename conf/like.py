"""The options of another run as the defaults of a new training: like=RUN.

A run's options are what it learns, from which data and seed, and how many samples it evaluates.
Where it ran is not taken: run folder, recording, pictures and machine.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from conf.config import Train
from conf.folders import CHECKPOINT_FOLDERS, LATEST, check_checkpoint, is_checkpoint_name
from conf.groups import GROUPS
from conf.preset_files import epochs_without_steps
from conf.resumed import fixed_options, literal, options_of_run
from runtime.checkpoint_contents import options_in_checkpoint

TAKEN = fixed_options() | {"eval_samples"}


def options_like(command: str, overrides: Sequence[str]) -> Train | None:
    """The options of the run in like=RUN, ready for Hydra; None without like=.

    command: its name; only a training takes like=.
    overrides: of its command line, in Hydra's language.

    Raises:
        ValueError: several runs are named, or the run's options are not those of this version.
        OSError: there is no such run, or its checkpoint cannot be read.
    """
    words = [word for word in overrides if word.startswith("like=")]
    if not words or command != "train":
        return None
    override = OverridesParser.create().parse_override(words[-1])
    if override.is_sweep_override():
        raise ValueError(f"{words[-1]}: a sweep begins with the options of one run: name one")
    run = override.value()
    if run is None:
        return None

    path = checkpoint_path(str(run))
    old = options_of_run(options_in_checkpoint(path), f"like={run} cannot be used: the checkpoint {path}")
    values = {name: getattr(old, name) for name in TAKEN}
    for group in GROUPS:
        member = values[group]
        values[group] = type(member)(**literal(asdict(member)))
    if epochs_without_steps(overrides):
        values["max_steps"] = None  # the presets give the length in epochs
    scalars = {name: literal(value) for name, value in values.items() if name not in GROUPS}
    return Train(**{**values, **scalars})


def checkpoint_path(run: str) -> Path:
    """The checkpoint of a run, given its folder, its checkpoint or `latest`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the folder is that of an exported model.
    """
    check_checkpoint(None if run == LATEST else run)
    if run == LATEST:
        files = [path for folder in CHECKPOINT_FOLDERS for path in Path(folder).rglob("*.pt*")]
    elif Path(run).is_dir():
        files = list(Path(run).iterdir())
    else:
        return Path(run)
    checkpoints = [path for path in files if is_checkpoint_name(path)]
    if not checkpoints:
        raise ValueError(f"like={run}: that is the folder of a model, not of a run: name the run that it comes from")
    return max(checkpoints, key=lambda path: path.lstat().st_mtime)
