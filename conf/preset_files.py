"""Presets as YAML: their options with the lines that set them, and what is wrong with them.

Hydra composes the presets. Its errors name neither file nor line, so this check comes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, ValueType
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.config import COMMANDS, Train
from conf.groups import GROUPS, unknown_choice
from conf.help import groups_of
from conf.messages import advice, wrong_value
from conf.option import as_typed, check, did_you_mean
from conf.presets import CONF, EXPERIMENT, HEADER, SEARCH_PATH, preset_paths, presets_of, shown

# Sweeps whose values the command line lists.
LISTED_SWEEPS = (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP, ValueType.RANGE_SWEEP)
# What these options choose has to be known before the presets are read.
ONLY_TYPED = ("like", "resume", "include", "hydra", EXPERIMENT)
SELF = "_self_"  # in the defaults of a file: its own options


@dataclass(frozen=True)
class Setting:
    """What a preset sets an option to, or a group such as dataset, and where."""

    value: Any
    path: Path
    line: int  # from 1

    @property
    def place(self) -> str:
        return f"{shown(self.path)}, line {self.line}"


Settings = dict[str, Setting]  # by options such as lr, dataset or dataset.noise


def check_presets(command: str, overrides: Sequence[str], like: Train | None = None) -> None:
    """Check the presets that a command line chooses, each option by itself.

    overrides: of the command line, in Hydra's language.
    like: the options of another run that are the defaults.

    Raises:
        ValueError: a preset is unknown, is wrong, or contradicts another; the sentence says where.
        OSError: a preset cannot be read.
    """
    folders = search_path(overrides)
    for folder in folders:
        _check_folder(command, folder)
    paths = preset_paths(folders)
    typed = _typed(overrides)

    for names in chosen_presets(overrides):
        presets = {name: read_preset(_path(command, name, folders), paths) for name in names}
        together = _together(presets, typed)
        chosen = _chosen_members(command, typed, together, like)
        for option, setting in together.items():
            _check_setting(command, option, setting, chosen)


def epochs_without_steps(overrides: Sequence[str]) -> bool:
    """Whether the presets of a command line set num_epochs and not max_steps."""
    paths = preset_paths(search_path(overrides))
    names = [name for run in chosen_presets(overrides) for name in run if name in paths]
    options = {option for name in names for option in read_preset(paths[name], paths)}
    return "num_epochs" in options and "max_steps" not in options


def chosen_presets(overrides: Sequence[str]) -> list[list[str]]:
    """The names in experiment=NAME or experiment=[A,B], for each run of a sweep.

    Presets that only Hydra can list, as in glob(*), are left out.
    """
    override = _override(overrides, EXPERIMENT)
    if override is None:
        return []
    values = [override.value()]
    if override.is_sweep_override():
        if override.value_type not in LISTED_SWEEPS:
            return []
        values = list(override.sweep_iterator())
    return [_names(value) for value in values]


def search_path(overrides: Sequence[str]) -> list[str]:
    """The folders in hydra.searchpath=[file://DIR].

    Raises:
        ValueError: the value is no list of such folders.
    """
    override = _override(overrides, SEARCH_PATH)
    value = override.value() if override else []
    if not isinstance(value, list):
        raise ValueError(f"{SEARCH_PATH} takes a list: write {SEARCH_PATH}=[file://DIR]")
    folders = []
    for place in map(str, value):
        if not place.startswith("file://"):
            raise ValueError(f"{SEARCH_PATH}: presets are looked for in folders: write file://DIR, not {place}")
        folders.append(place.removeprefix("file://"))
    return folders


# ---------------------------------------------------------------- the command line


def _override(overrides: Sequence[str], name: str) -> Override | None:
    """The last override of that name; None where there is none."""
    words = [word for word in overrides if word.partition("=")[0] == name]
    return OverridesParser.create().parse_override(words[-1]) if words else None


def _names(value: Any) -> list[str]:
    """The names of presets in one value of experiment=."""
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    return [item.text if isinstance(item, QuotedString) else str(item) for item in values]


def _typed(overrides: Sequence[str]) -> dict[str, str]:
    """The values of the command line by their options."""
    return {word.partition("=")[0]: word.partition("=")[2] for word in overrides}


def _check_folder(command: str, folder: str) -> None:
    """Raises ValueError, FileNotFoundError where an added folder is missing or would replace options."""
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: name one that holds {EXPERIMENT}/NAME.yaml")
    for name in (f"{command}.yaml", *GROUPS, "hydra"):
        if (path / name).exists():
            raise ValueError(f"{path / name} would replace options of moonwalk: presets lie in {path / EXPERIMENT}")
    for own in preset_paths():
        if path.resolve() != CONF and (path / EXPERIMENT / f"{own}.yaml").exists():
            raise ValueError(f"{path / EXPERIMENT / own}.yaml has the name of a preset of moonwalk: rename it")


def _path(command: str, name: str, folders: Sequence[str]) -> Path:
    """The file of a preset. Raises ValueError where there is none of that name."""
    paths = preset_paths(folders)
    if name in paths:
        return paths[name]
    known = list(presets_of(command, folders))
    hint = did_you_mean(Path(name).stem, known)
    choose = f"choose one of {', '.join(known)}, or write" if known else "write"
    raise ValueError(f"{EXPERIMENT}={name} is unknown{hint}; {choose} {EXPERIMENT}/NAME.yaml and add --config-dir DIR")


# ---------------------------------------------------------------- one file


def read_preset(path: Path, paths: Mapping[str, Path], above: tuple[Path, ...] = ()) -> Settings:
    """What a preset sets, with what the presets in its defaults set before it.

    paths: all presets by their names.
    above: the presets that lead to this one.

    Raises:
        ValueError: the file is not as a preset has to be; the sentence says where.
        OSError: it cannot be read.
    """
    if path in above:
        raise ValueError(f"{shown(path)}: it is among its own defaults")
    text = _text(path)
    values, lines = _mapping(path, text)
    if HEADER.removeprefix("# ") not in text:
        raise ValueError(f"{shown(path)}, line 1: write {HEADER} there, so that Hydra knows where the options belong")

    own: Settings = {}
    for key, value in values.items():
        if key == "defaults":
            continue
        place = f"{shown(path)}, line {_line(lines, key)}"
        if "." in key:
            group, _, part = key.partition(".")
            raise ValueError(f"{place}: write '{part}:' below '{group}:', not {key}")
        if key not in GROUPS:
            own[key] = Setting(value, path, _line(lines, key))
            continue
        if not isinstance(value, dict):
            raise ValueError(f"{place}: choose it by '- override /{key}: {value}' below 'defaults:'")
        for part, inner in value.items():
            own[f"{key}.{part}"] = Setting(inner, path, _line(lines, key, part))

    settings: Settings = {}
    for entry, line in _defaults(path, values, lines):
        settings |= _default(path, entry, line, paths, (*above, path))
    return settings | own


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{shown(path)} is no text in UTF-8") from None


def _mapping(path: Path, text: str) -> tuple[dict[str, Any], dict[tuple[str, Any], int]]:
    """The values of a file by their keys, and the line of each key, of each key below it, and of each item."""
    try:
        values = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{shown(path)}{line}: it is no YAML ({error.problem})") from None
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{shown(path)}: it is no YAML ({reason})") from None
    if not isinstance(values, dict) or (node is not None and not isinstance(node, yaml.MappingNode)):
        raise ValueError(f"{shown(path)}, line 1: it is no list of options, one 'name: value' a line")

    lines: dict[tuple[str, Any], int] = {}
    for key, value in node.value if node else []:
        lines[key.value, None] = key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            for part, _ in value.value:
                lines[key.value, part.value] = part.start_mark.line + 1
        elif isinstance(value, yaml.SequenceNode):
            for i, item in enumerate(value.value):
                lines[key.value, i] = item.start_mark.line + 1
    return {str(key): value for key, value in values.items()}, lines


def _line(lines: Mapping[tuple[str, Any], int], key: str, part: Any = None) -> int:
    """The line of a key, or of a part of its value; that of the key or 1 where only YAML knows the line."""
    return lines.get((key, part), lines.get((key, None), 1))


def _defaults(path: Path, values: Mapping[str, Any], lines: Mapping[tuple[str, Any], int]) -> list[tuple[Any, int]]:
    """The entries of the list `defaults` of a file, with their lines."""
    defaults = values.get("defaults", [])
    if not isinstance(defaults, list):
        raise ValueError(f"{shown(path)}, line {_line(lines, 'defaults')}: defaults is a list, one '- ...' a line")
    return [(entry, _line(lines, "defaults", i)) for i, entry in enumerate(defaults)]


def _default(path: Path, entry: Any, line: int, paths: Mapping[str, Path], above: tuple[Path, ...]) -> Settings:
    """What one entry of the defaults sets: `override /dataset: mnist`, or the name of another preset."""
    place = f"{shown(path)}, line {line}"
    if entry == SELF:
        return {}
    if isinstance(entry, str) and entry in paths:
        return read_preset(paths[entry], paths, above)
    if isinstance(entry, dict) and len(entry) == 1:
        key, choice = next(iter(entry.items()))
        for group in GROUPS:
            if key == f"override /{group}" and choice in GROUPS[group]:
                return {group: Setting(choice, path, line)}
            if key == f"override /{group}":
                raise ValueError(f"{place}: {unknown_choice(group, str(choice))}")
    raise ValueError(
        f"{place}: the defaults of a preset are 'override /dataset: NAME', 'override /model: NAME' and names of presets"
    )


# ---------------------------------------------------------------- what is set


def _together(presets: Mapping[str, Settings], typed: Mapping[str, str]) -> Settings:
    """What several presets set. Raises ValueError where two set an option that is not typed differently."""
    together: Settings = {}
    for settings in presets.values():
        for option, setting in settings.items():
            other = together.get(option)
            if other and other.value != setting.value and option not in typed:
                raise ValueError(
                    f"{other.place} sets {option}={as_typed(other.value)}, and {setting.place} sets"
                    f" {option}={as_typed(setting.value)}: leave out one of the presets, or type {option}=VALUE"
                )
        together |= settings
    return together


def _chosen_members(
    command: str, typed: Mapping[str, str], settings: Settings, like: Train | None
) -> dict[str, str | None]:
    """The data set and the network; None where a sweep chooses several or the choice is unknown."""
    defaults = {f.name: f.default for f in fields(COMMANDS[command])}
    chosen: dict[str, str | None] = {}
    for group in groups_of(COMMANDS[command]):
        choice = getattr(like, group).name if like else defaults[group]
        if group in settings:
            choice = settings[group].value
        choice = typed.get(group, choice)
        chosen[group] = choice if choice in GROUPS[group] else None
    return chosen


def _check_setting(command: str, option: str, setting: Setting, chosen: Mapping[str, str | None]) -> None:
    """Raises ValueError where a preset sets what is no option, or a value that the option cannot have."""
    group, _, part = option.partition(".")
    if option in ONLY_TYPED:
        raise ValueError(f"{setting.place}: {option} cannot be set by a preset: type it")
    if option in chosen:
        return
    members = {name: GROUPS[name][choice] for name, choice in chosen.items() if choice}
    names = {f.name for f in fields(COMMANDS[command])}
    if part:
        known = group in names and (group not in members or part in {f.name for f in fields(members[group])})
        known = known and part != "name"
    else:
        known = option in names
    if not known:
        hint = advice(command, option)
        raise ValueError(f"{setting.place}: '{option}' is no option of {command}.py{hint}")
    if "${" in str(setting.value) or (part and group not in members):
        return  # its value is known once Hydra has composed all options

    options = OmegaConf.structured(COMMANDS[command](**{name: member() for name, member in members.items()}))
    try:
        OmegaConf.update(options, option, setting.value)
        check(OmegaConf.to_object(options))
    except OmegaConfBaseException as error:
        raise ValueError(f"{setting.place}: {option}{wrong_value(error)}") from None
    except ValueError as error:
        raise ValueError(f"{setting.place}: {error}") from None
