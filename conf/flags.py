"""GNU-style flags beside Hydra's overrides.

`--num-samples 1000 --no-rerun` means `num_samples=1000 rerun=false`.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from conf.config import COMMANDS
from conf.groups import GROUPS

# Hydra's own flags. tests/conf/test_flags.py compares both lists with Hydra's parser.
HYDRA_FLAGS = {
    *("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p"),
    *("--run", "-r", "--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp"),
    *("--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun", "--info", "-i"),
}
HYDRA_FLAGS_WITH_VALUE = {
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--experimental-rerun"),
}
SWEEP_FLAGS = {"-m", "--multirun"}
RUN_FLAGS = {"-r", "--run", *SWEEP_FLAGS}
CONFIG_FILE_FLAGS = {"--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}

# Names that users of other repositories type, and the options that they mean.
ALIASES = {"data_path": "dataset.root", "root": "dataset.root", "judge_samples": "eval_samples"}
# `main.py --train-ddpm-model` of older guides is `train.py` with these choices, unless the line
# holds others.
TRAIN_DDPM_MODEL = "--train-ddpm-model"
DDPM_CHOICES = {"dataset": "mnist", "model": "unet", "ckpt_save_name": "test_001.pth"}

NEGATIVE_NUMBER = re.compile(r"-\.?\d")
OPTIONS = {f.name: f for command in COMMANDS.values() for f in fields(command)}
for group in GROUPS:
    del OPTIONS[group]
SWITCHES = {name for name, f in OPTIONS.items() if f.type is bool}
# Options whose commas separate the items of a list, not the values of a sweep.
LISTS = {name for name, f in OPTIONS.items() if f.type == list[str]}


class CommandLine(NamedTuple):
    """The arguments of a command in Hydra's language."""

    flags: list[str]  # of Hydra, each followed by its value if it takes one
    overrides: list[str]  # such as "lr=1e-3"

    @property
    def is_sweep(self) -> bool:
        return not SWEEP_FLAGS.isdisjoint(self.flags) or "hydra.mode=MULTIRUN" in self.overrides

    @property
    def asks_hydra(self) -> bool:
        """Whether Hydra is asked for something other than runs, such as its version."""
        return not RUN_FLAGS.issuperset(self.flags)

    @property
    def resumes(self) -> bool:
        """Whether a training is to go on in its existing folder."""
        return any(re.match("resume=(?!null$)", word) for word in self.overrides)


def to_overrides(argv: Sequence[str]) -> list[str]:
    """The flags and then the overrides of `command_line`, as one list of arguments for Hydra.

    Hydra itself fails on `seed=1 -m lr=1,2`, so its flags come first.
    """
    line = command_line(argv)
    return line.flags + line.overrides


def command_line(argv: Sequence[str]) -> CommandLine:
    """Rewrite the arguments of a command into Hydra's own language.

    `--some-option VALUE` and `--some-option=VALUE` become `some_option=VALUE`, `--flag` becomes
    `flag=true` and `--no-flag` becomes `flag=false`. Dots nest: `--model.hidden 64`.

    Raises:
        ValueError: a value is missing, or there is something that no option can be asked for.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = [word for word in argv if word != TRAIN_DDPM_MODEL]
    while rest:
        word = rest.pop(0)
        if word.split("=")[0] in HYDRA_FLAGS:
            flags += _hydra_flag(word, rest)
        elif word.startswith("--") and len(word) > 2:
            overrides.append(_override(word, rest))
        elif word.startswith("~"):
            raise ValueError(f"{word}: an option cannot be taken away, only given another value")
        elif "=" not in word or word.startswith("-"):
            raise ValueError(f"{word}: write options as name=value or --name value")
        else:
            name, _, value = word.partition("=")
            overrides.append(_quoted(name, value))

    if "--hydra-help" in flags:  # Hydra would look for our options among its own
        return CommandLine(flags, [])
    if TRAIN_DDPM_MODEL in argv:
        chosen = {word.split("=")[0] for word in overrides}
        added = [f"{name}={value}" for name, value in DDPM_CHOICES.items() if name not in chosen]
        overrides = added + overrides
    if not {"dataset=file", "dataset=picture"}.isdisjoint(overrides):
        # The --data-path of these two is a file.
        overrides = [re.sub(r"^dataset\.root=", "dataset.path=", word) for word in overrides]
    return CommandLine(flags, overrides)


def _hydra_flag(word: str, rest: list[str]) -> list[str]:
    """A flag of Hydra and, from the front of `rest`, its value if it takes one."""
    flag = word.split("=")[0]
    if flag in CONFIG_FILE_FLAGS:
        raise ValueError(f"{flag}: options are not read from files; write them as name=value")
    if word in HYDRA_FLAGS_WITH_VALUE and rest:
        return [word, rest.pop(0)]
    return [word]


def _override(flag: str, rest: list[str]) -> str:
    """One override from a flag and, from the front of `rest`, its value if it takes one."""
    name, equals, value = flag[2:].partition("=")
    name = name.replace("-", "_")
    if equals:
        return _quoted(name, value)

    switch = name.removeprefix("no_")
    if rest and _may_be_value(rest[0], of_switch=switch in SWITCHES):
        value = rest.pop(0)
        _check_single(flag, name, value, rest)
        return _quoted(name, value)
    if switch in GROUPS:
        raise ValueError(f"{flag} needs one of {', '.join(GROUPS[switch])}, as in {switch}=NAME")
    if switch in OPTIONS and switch not in SWITCHES:
        raise ValueError(f"{flag}: {switch} is not a switch but takes a value, as in {switch}=VALUE")
    return f"{name}=true" if name == switch else f"{switch}=false"


def _may_be_value(word: str, of_switch: bool) -> bool:
    """Whether the word behind a flag is its value, such as 3, -3, true or y=0.2.

    Otherwise it is the next flag or override.
    """
    if "=" in word:
        option = re.split(r"[.=]", word)[0].lstrip("+-")
        return not of_switch and option not in {*OPTIONS, *GROUPS, *ALIASES, "hydra"}
    return not word.startswith("-") or bool(NEGATIVE_NUMBER.match(word))


def _check_single(flag: str, name: str, value: str, rest: Sequence[str]) -> None:
    """Raises ValueError where more values follow the first, as in `--lr 1e-3 8e-3`."""
    values = [value]
    for word in rest:
        if "=" in word or not _may_be_value(word, of_switch=False):
            break
        values.append(word)
    if len(values) > 1:
        joined = ",".join(values)
        raise ValueError(
            f"{flag} takes one value: write -m {name}={joined} for one run after the other,"
            f" or {name}=[{joined}] for a list"
        )


def _quoted(name: str, value: str) -> str:
    """`name=value`, with the value in quotes where Hydra's grammar cannot read it.

    A path with a colon is such a value.
    """
    if not name.lstrip("+").startswith("hydra"):
        name = name.lstrip("+")  # every option exists: none can be added
    name = ALIASES.get(name, name)
    if name in LISTS and not value.startswith("["):
        value = f"[{value}]"
    if name in GROUPS and value in ("", "null"):
        raise ValueError(f"{name}= needs one of {', '.join(GROUPS[name])}")
    head = name.split(".")[0]
    if head != name and head in OPTIONS:
        raise ValueError(f"unknown option {name}: {head} has no parts, as in {head}=VALUE")

    try:
        override = OverridesParser.create().parse_override(f"{name}={value}")
    except HydraException:
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{name}='{escaped}'"
    if name in GROUPS and isinstance(override.value(), bool | int | float):
        raise ValueError(f"{name}={value} is no name: it needs one of {', '.join(GROUPS[name])}")
    return f"{name}={value}"
