"""GNU-style flags beside Hydra's overrides, and texts that mean what is typed.

`--num-samples 1000 --no-rerun` means `num_samples=1000 rerun=false`. Hydra's grammar reads 1.50 as
a number, true as a truth value, and a,b as two values. Where an option is a text, such a value is
put in quotes, so that Hydra passes on what the user typed.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from conf.config import COMMANDS
from conf.groups import FILE_ENDINGS, GROUPS
from conf.option import did_you_mean
from conf.presets import CONFIG_DIR_FLAGS, EXPERIMENT, SEARCH_PATH, added_folders, dataset_of_presets

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
CFG_VALUES = ("job", "hydra", "all")
INFO_VALUES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
CFG_FLAGS = {"--cfg", "-c"}
INFO_FLAGS = {"--info", "-i"}
PACKAGE_FLAGS = {"--package", "-p"}
FLAG_EXAMPLES = {
    **dict.fromkeys(CFG_FLAGS, "job"),
    **dict.fromkeys(PACKAGE_FLAGS, "dataset"),
    **dict.fromkeys(CONFIG_DIR_FLAGS, "DIR"),
}
SWEEP_FLAGS = {"-m", "--multirun"}
SWEEP_MODE = "hydra.mode=MULTIRUN"
RUN_FLAGS = {"-r", "--run", *SWEEP_FLAGS}
# Flags of Hydra that moonwalk refuses, and why.
ONE_CONFIGURATION = "the options are those of conf/config.py: write a preset, and add its folder by --config-dir DIR"
PICKLED = "a pickled job could run any code: write resume=RUN or like=RUN"
REFUSED_FLAGS = {
    **dict.fromkeys(("--config-path", "-cp", "--config-name", "-cn"), ONE_CONFIGURATION),
    "--experimental-rerun": PICKLED,
}

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
CHOSEN = {
    f"{group}.{f.name}": f for group, members in GROUPS.items() for member in members.values() for f in fields(member)
}


def _options_of(*types: object) -> set[str]:
    """The names of the options of one of these types that take any value, not one of some choices."""
    found: dict[str, Field] = {**OPTIONS, **CHOSEN}
    return {name for name, f in found.items() if f.type in types and not f.metadata["choices"]}


OPTIONAL_TEXTS = _options_of(str | None)  # here null is no text
TEXTS = _options_of(str) | OPTIONAL_TEXTS
# Options whose items are texts. labels= also takes a single one.
TEXT_LISTS = _options_of(list[str], list[str] | None) | {"labels"}
INTERPOLATION = re.compile(r"(\\*)\$\{")  # what OmegaConf would replace by another option

SWITCHES = {name for name, f in OPTIONS.items() if f.type is bool}
# Options whose commas separate the items of a list, not the values of a sweep.
LISTS = {name for name, f in OPTIONS.items() if f.type == list[str]}


class CommandLine(NamedTuple):
    """The arguments of a command in Hydra's language."""

    flags: list[str]  # of Hydra, each followed by its value if it takes one
    overrides: list[str]  # such as "lr=1e-3"

    @property
    def is_sweep(self) -> bool:
        return not SWEEP_FLAGS.isdisjoint(self.flags) or SWEEP_MODE in self.overrides

    @property
    def asks_hydra(self) -> bool:
        """Whether Hydra is asked for something other than runs, such as its version."""
        return not RUN_FLAGS.issuperset(self.flags)

    @property
    def resumes(self) -> bool:
        """Whether a training is to go on in its existing folder."""
        return self.chooses("resume")

    def chooses(self, option: str) -> bool:
        """Whether the option, such as like, has a value other than null."""
        return any(re.match(f"{option}=(?!null$)", word) for word in self.overrides)


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
    folders: list[str] = []
    rest = [word for word in argv if word != TRAIN_DDPM_MODEL]
    sweeps = any(word in SWEEP_FLAGS or word == SWEEP_MODE for word in argv)
    while rest:
        word = rest.pop(0)
        if word.split("=")[0] in HYDRA_FLAGS:
            flags += _hydra_flag(word, rest, folders)
        elif word.startswith("--") and len(word) > 2:
            overrides.append(_override(word, rest, sweeps))
        elif word.startswith("~"):
            raise ValueError(f"{word}: an option cannot be taken away, only given another value")
        elif "=" not in word or word.startswith("-"):
            raise ValueError(f"{word}: write options as name=value or --name value")
        else:
            name, _, value = word.partition("=")
            overrides.append(_quoted(name, value, sweeps))

    if not PACKAGE_FLAGS.isdisjoint(flags) and CFG_FLAGS.isdisjoint(flags):
        raise ValueError("--package chooses a part of what --cfg prints: add --cfg job")
    if "--hydra-help" in flags:  # Hydra would look for our options among its own
        return CommandLine(flags, [])
    if TRAIN_DDPM_MODEL in argv:
        chosen = {word.split("=")[0] for word in overrides}
        added = [f"{name}={value}" for name, value in DDPM_CHOICES.items() if name not in chosen]
        overrides = added + overrides
    overrides = _with_data_path(overrides, added_folders(argv))
    overrides = [word for word in overrides if word != f"{EXPERIMENT}=null"]  # the default, which Hydra refuses
    typed = {word.partition("=")[0] for word in overrides}
    if "num_epochs" in typed and "max_steps" not in typed and not typed.isdisjoint({EXPERIMENT, "like"}):
        overrides.append("max_steps=null")  # the user gives the length in epochs, whatever the preset or the run does
    return CommandLine(flags, _with_folders(overrides, folders))


def _with_data_path(overrides: list[str], folders: Sequence[str]) -> list[str]:
    """The overrides, in which --data-path names a file or a folder as the data set takes it.

    folders: beside conf/, in whose folder `experiment` presets are looked for.
    """
    chosen = [word for word in overrides if word.startswith("dataset=")]
    if not chosen:
        # A table says by its name which data set it is.
        paths = [word.partition("=")[2].strip("'\"") for word in overrides if word.startswith("dataset.root=")]
        if any(path.lower().endswith(FILE_ENDINGS) for path in paths):
            chosen = ["dataset=file"]
            overrides = [*chosen, *overrides]
    if not chosen:
        presets = [word.partition("=")[2] for word in overrides if word.startswith(f"{EXPERIMENT}=")]
        chosen = [f"dataset={dataset_of_presets(value, folders)}" for value in presets]
    if not {"dataset=file", "dataset=picture"}.isdisjoint(chosen):
        # The --data-path of these two is a file.
        overrides = [re.sub(r"^dataset\.root=", "dataset.path=", word) for word in overrides]
    return overrides


def _with_folders(overrides: list[str], folders: Sequence[str]) -> list[str]:
    """The overrides with the folders of --config-dir in hydra.searchpath, where presets are looked for too."""
    places = [_in_quotes(f"file://{os.path.abspath(folder)}") for folder in folders]
    others = []
    for word in overrides:
        name, _, value = word.partition("=")
        if name.lstrip("+") != SEARCH_PATH:
            others.append(word)
        elif value.startswith("[") and value.endswith("]"):
            places = [*filter(None, [value[1:-1]]), *places]
        else:
            raise ValueError(f"{SEARCH_PATH} takes a list: write {SEARCH_PATH}=[file://DIR]")
    return [*others, f"{SEARCH_PATH}=[{','.join(places)}]"] if places else others


def _hydra_flag(word: str, rest: list[str], folders: list[str]) -> list[str]:
    """A flag of Hydra and, from the front of `rest`, its value if it takes one.

    folders: to which the folder of --config-dir is added instead.
    """
    flag, equals, value = word.partition("=")
    if flag in REFUSED_FLAGS:
        raise ValueError(f"{flag}: {REFUSED_FLAGS[flag]}")
    if flag not in HYDRA_FLAGS_WITH_VALUE | INFO_FLAGS:
        return [word]
    if not equals and rest and (flag not in INFO_FLAGS or rest[0] in INFO_VALUES):
        value = rest.pop(0)
    if flag in INFO_FLAGS and not value:
        value = "all"
    if not value:
        raise ValueError(f"{flag} needs a value, as in {flag} {FLAG_EXAMPLES[flag]}")
    if flag in CONFIG_DIR_FLAGS:
        folders.append(value)
        return []
    choices = CFG_VALUES if flag in CFG_FLAGS else INFO_VALUES if flag in INFO_FLAGS else ()
    if choices and value not in choices:
        raise ValueError(f"{flag} needs one of {', '.join(choices)}; got {value}{did_you_mean(value, choices)}")
    return [flag, value]


def _override(flag: str, rest: list[str], sweeps: bool) -> str:
    """One override from a flag and, from the front of `rest`, its value if it takes one.

    sweeps: whether commas separate the runs of a sweep.
    """
    name, equals, value = flag[2:].partition("=")
    name = name.replace("-", "_")
    if equals:
        return _quoted(name, value, sweeps)

    switch = name.removeprefix("no_")
    if rest and _may_be_value(rest[0], of_switch=switch in SWITCHES):
        value = rest.pop(0)
        _check_single(flag, name, value, rest)
        return _quoted(name, value, sweeps)
    if switch == EXPERIMENT:
        raise ValueError(f"{flag} needs the name of a preset, as in {EXPERIMENT}=NAME")
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
        return not of_switch and option not in {*OPTIONS, *GROUPS, *ALIASES, EXPERIMENT, "hydra"}
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


def _quoted(name: str, value: str, sweeps: bool) -> str:
    """`name=value`, with the value in quotes where Hydra's grammar cannot read it or would change it.

    A path with a colon is such a value, and the text 1.50.
    """
    if not name.lstrip("+").startswith("hydra"):
        name = name.lstrip("+")  # every option exists: none can be added
    name = ALIASES.get(name, name)
    if name in LISTS and not value.startswith("["):
        value = f"[{value}]"
    if name == EXPERIMENT and not value:
        raise ValueError(f"{name}= needs the name of a preset, as in {EXPERIMENT}=NAME")
    if name in GROUPS and value in ("", "null"):
        raise ValueError(f"{name}= needs one of {', '.join(GROUPS[name])}")
    head = name.split(".")[0]
    if head != name and head in OPTIONS:
        raise ValueError(f"unknown option {name}: {head} has no parts, as in {head}=VALUE")

    if name in TEXTS:
        return f"{name}={_text_value(name, value, sweeps)}"
    if name in TEXT_LISTS:
        return f"{name}={_text_list(name, value, sweeps)}"
    override = _parsed(name, value)
    if override is None:
        return f"{name}={_in_quotes(value)}"
    if name == EXPERIMENT and isinstance(override.value(), bool | int | float):
        return f"{name}={_in_quotes(value)}"  # a file may have a number as its name
    if name in GROUPS and isinstance(override.value(), bool | int | float):
        raise ValueError(f"{name}={value} is no name: it needs one of {', '.join(GROUPS[name])}")
    return f"{name}={value}"


# ---------------------------------------------------------------- texts


def _parsed(name: str, value: str) -> Override | None:
    """What Hydra's grammar makes of a value; None where it cannot read it."""
    try:
        return OverridesParser.create().parse_override(f"{name}={value}")
    except HydraException:
        return None


def _text_value(name: str, value: str, sweeps: bool) -> str:
    """The value of a text option in Hydra's language, or the values of a sweep over such texts."""
    if value == "null" and name in OPTIONAL_TEXTS:
        return value
    override = _parsed(name, value)
    if sweeps and override is not None and override.is_sweep_override():
        if override.value_type != ValueType.SIMPLE_CHOICE_SWEEP:  # such as choice(a,b)
            return value
        return ",".join(_literal(name, text.strip()) for text in _split(value))
    return _literal(name, value)


def _text_list(name: str, value: str, sweeps: bool) -> str:
    """The value of a list of texts, such as [a,1.50], in Hydra's language."""
    override = _parsed(name, value)
    if override is not None and override.is_sweep_override():
        if not sweeps or override.value_type != ValueType.SIMPLE_CHOICE_SWEEP:
            return value
        return ",".join(_text_list(name, each.strip(), sweeps=False) for each in _split(value))
    if value == "null":
        return value
    if not (value.startswith("[") and value.endswith("]")):
        return _literal(name, value)
    inner = value[1:-1].strip()
    items = [_literal(name, item.strip()) for item in _split(inner)] if inner else []
    return f"[{','.join(items)}]"


def _literal(name: str, text: str) -> str:
    """A text in Hydra's language: in quotes, unless it is so already or Hydra does not change it."""
    if text == "???":
        raise ValueError(f"{name}=??? cannot be given: Hydra takes ??? for a missing value")
    override = _parsed(name, text)
    if override is not None:
        value = override.value()
        is_quoted = text[:1] in ("'", '"')
        is_unchanged = isinstance(value, str) and value == text and "${" not in text
        if is_quoted or is_unchanged:
            return text
    return _in_quotes(text)


def _in_quotes(text: str) -> str:
    """The text in quotes of Hydra, in which OmegaConf replaces nothing."""
    escaped = INTERPOLATION.sub(lambda found: f"{found[1]}{found[1]}\\${{", text)
    return QuotedString(escaped, Quote.single).with_quotes()


def _split(text: str) -> list[str]:
    """Split at the commas outside of quotes and brackets."""
    parts = [""]
    quote = ""
    depth = 0
    for i, letter in enumerate(text):
        is_escaped = i > 0 and text[i - 1] == "\\"
        if quote:
            quote = "" if letter == quote and not is_escaped else quote
        elif letter in "'\"" and not parts[-1].strip():  # quotes begin a value, unlike in it's
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth <= 0:
            parts.append("")
            continue
        parts[-1] += letter
    return parts
