"""Presets: files of options that experiment=NAME chooses, as `--help` lists them.

They lie in conf/experiment/, and in the folder `experiment` of each folder that the user adds by
--config-dir or hydra.searchpath. This module finds the files and reads no YAML, so that the help
needs neither Hydra nor OmegaConf. preset_files.py reads them.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from conf.config import COMMANDS

EXPERIMENT = "experiment"  # the option, and the folder of the files
CONF = Path(__file__).resolve().parent
HEADER = "# @package _global_"  # with it, Hydra takes the options of a file as those of the command
CONFIG_DIR_FLAGS = ("--config-dir", "-cd")
SEARCH_PATH = "hydra.searchpath"

ADDED_FOLDER = re.compile(r"file://([^,\]'\"]+)")
OPTION_LINE = re.compile(r"^(\w+)\s*:", re.MULTILINE)
DATASET_LINE = re.compile(r"^\s*-\s*override\s+/dataset\s*:\s*(\w+)", re.MULTILINE)
GROUP_LINE = re.compile(r"^\s*-\s*override\s+/?(\w+)\s*:", re.MULTILINE)


def preset_paths(added: Iterable[str | Path] = ()) -> dict[str, Path]:
    """Every preset by its name; of two with one name, the one that Hydra takes, which is the first.

    added: folders beside conf/ that hold a folder `experiment`.
    """
    found: dict[str, Path] = {}
    for folder in [CONF, *map(Path, added)]:
        presets = folder / EXPERIMENT
        for path in sorted(presets.rglob("*.yaml")):
            name = path.relative_to(presets).with_suffix("").as_posix()
            found.setdefault(name, path)
    return found


def presets_of(command: str, added: Iterable[str | Path] = ()) -> dict[str, str]:
    """The comment of each preset whose options are options of the command, by its name."""
    names = {f.name for f in fields(COMMANDS[command])}
    found = {}
    for name, path in preset_paths(added).items():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            found[name] = f"{shown(path)} cannot be read"
            continue
        used = {*OPTION_LINE.findall(text), *GROUP_LINE.findall(text)} - {"defaults"}
        if used <= names:
            found[name] = comment(text)
    return found


def comment(text: str) -> str:
    """The first comment line of a preset that is not for Hydra; "" where there is none."""
    for line in text.splitlines():
        words = line.strip()
        if words and not words.startswith("#"):
            break
        if words and "@package" not in words:
            return words.lstrip("# ")
    return ""


def dataset_of_presets(names: str, added: Iterable[str | Path] = ()) -> str | None:
    """The data set that the presets in a value of experiment=, such as [a,b], choose; None for none."""
    paths = preset_paths(added)
    for name in re.split(r"[\[\],'\"\s]+", names):
        if name in paths and paths[name].is_file():
            found = DATASET_LINE.search(paths[name].read_text(encoding="utf-8", errors="replace"))
            if found:
                return found[1]
    return None


def added_folders(arguments: Sequence[str]) -> list[str]:
    """The folders that the arguments of a command line add, as typed."""
    found = []
    for word, following in zip(arguments, [*arguments[1:], ""]):
        name, equals, value = word.partition("=")
        if name in CONFIG_DIR_FLAGS:
            found.append(value if equals else following)
        elif name.lstrip("+") == SEARCH_PATH:
            found += ADDED_FOLDER.findall(value)
    return found


def shown(path: Path) -> str:
    """The path as a user knows it: from the working directory, or from the repository."""
    absolute = Path(os.path.abspath(path))
    for folder in (Path.cwd(), CONF.parent):
        if absolute.is_relative_to(folder):
            return str(absolute.relative_to(folder))
    return str(absolute)
