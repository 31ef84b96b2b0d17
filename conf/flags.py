"""GNU-style flags beside Hydra overrides: `--num-samples 1000 --no-rerun` means `num_samples=1000 rerun=false`."""

import re
from collections.abc import Sequence
from dataclasses import fields

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from conf.config import COMMANDS
from conf.groups import GROUPS

# Hydra's own flags pass untouched (tests/test_flags.py compares this list with Hydra's parser).
HYDRA_FLAGS = {
    "--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r",
    "--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--experimental-rerun", "--info", "-i",
}  # fmt: skip
HYDRA_FLAGS_WITH_VALUE = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
    "--experimental-rerun",
}  # fmt: skip
# names that users of other repositories type, and what is meant
ALIASES = {"data_path": "dataset.root", "root": "dataset.root", "judge_samples": "eval_samples"}
# `main.py --train-ddpm-model` of older guides is `train.py` with these, unless others are chosen
TRAIN_DDPM_MODEL = "--train-ddpm-model"
DDPM_MODEL = {"dataset": "mnist", "model": "unet"}

NEGATIVE_NUMBER = re.compile(r"-\.?\d")
OPTIONS = {f.name: f for command in COMMANDS.values() for f in fields(command) if f.name not in GROUPS}
SWITCHES = {name for name, f in OPTIONS.items() if f.type is bool}
LISTS = {name for name, f in OPTIONS.items() if f.type == list[str]}  # whose commas are no sweep


def to_overrides(argv: Sequence[str]) -> list[str]:
    """Rewrite the arguments of a command into Hydra's own language.

    `--some-option VALUE` and `--some-option=VALUE` become `some_option=VALUE`, `--flag` becomes `flag=true`
    and `--no-flag` becomes `flag=false`; dots nest (`--model.hidden 64`). Hydra's flags are put in front,
    because Hydra itself fails on `seed=1 -m lr=1,2`.

    Raises:
        ValueError: a value is missing, or there is something that no option can be asked for.
    """
    hydra, overrides, rest = [], [], [word for word in argv if word != TRAIN_DDPM_MODEL]
    while rest:
        word = rest.pop(0)
        if word.split("=")[0] in HYDRA_FLAGS:
            hydra.append(word)
            if word in HYDRA_FLAGS_WITH_VALUE and rest:
                hydra.append(rest.pop(0))
        elif word.startswith("--") and len(word) > 2:
            overrides.append(_override(word, rest))
        elif word.startswith("~"):
            raise ValueError(f"{word}: an option cannot be taken away, only given another value")
        elif "=" not in word or word.startswith("-"):
            raise ValueError(f"{word}: write options as name=value or --name value")
        else:
            overrides.append(_quoted(*word.split("=", 1)))
    if "--hydra-help" in hydra:  # Hydra would look for our options among its own
        return hydra
    if TRAIN_DDPM_MODEL in argv:
        chosen = {word.split("=")[0] for word in overrides}
        overrides = [f"{group}={choice}" for group, choice in DDPM_MODEL.items() if group not in chosen] + overrides
    if {"dataset=file", "dataset=picture"} & set(overrides):  # their --data-path is a file
        overrides = [re.sub(r"^dataset\.root=", "dataset.path=", word) for word in overrides]
    return hydra + overrides


def _override(flag: str, rest: list[str]) -> str:
    """One override from a flag; takes its value from the front of `rest` where it has one."""
    name, equals, value = flag[2:].partition("=")
    name = name.replace("-", "_")
    if equals:
        return _quoted(name, value)
    switch = name.removeprefix("no_")
    if rest and _may_be_value(rest[0], of_switch=switch in SWITCHES):
        return _quoted(name, rest.pop(0))
    if switch in OPTIONS and switch not in SWITCHES:
        raise ValueError(f"{flag}: {switch} is not a switch but takes a value, as in {switch}=VALUE")
    return f"{switch}=false" if name != switch else f"{name}=true"


def _may_be_value(word: str, of_switch: bool) -> bool:
    """Whether a word behind a flag is its value, such as 3, -3, true or y=0.2, and not the next flag or override."""
    if "=" in word:
        return not of_switch and re.split(r"[.=]", word)[0].lstrip("+-") not in {*OPTIONS, *GROUPS, *ALIASES, "hydra"}
    return not word.startswith("-") or bool(NEGATIVE_NUMBER.match(word))


def _quoted(name: str, value: str) -> str:
    """`name=value`, the value in quotes where Hydra's grammar has no words for it (a path with a colon, say)."""
    if not name.lstrip("+").startswith("hydra"):
        name = name.lstrip("+")  # every option exists: there is none to add
    name = ALIASES.get(name, name)
    if name in LISTS and not value.startswith("["):
        value = f"[{value}]"
    if name in GROUPS and value in ("", "null"):
        raise ValueError(f"{name}= needs one of {', '.join(GROUPS[name])}")
    if (head := name.split(".")[0]) != name and head in OPTIONS:
        raise ValueError(f"unknown option {name}: {head} has no parts, as in {head}=VALUE")
    try:
        OverridesParser.create().parse_override(f"{name}={value}")
    except HydraException:
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{name}='{escaped}'"
    return f"{name}={value}"
