"""One sentence for each mistake that a user can make: what is wrong, and what is allowed."""

import difflib
import re
from dataclasses import fields

from hydra.errors import CompactHydraException, HydraException, MissingConfigException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from conf.config import COMMANDS
from conf.flags import HYDRA_FLAGS
from conf.groups import GROUPS, unknown_choice
from conf.help import groups_of
from registry.plugins import plugin_traceback

# Errors that a user can cause. Any other error is a fault of moonwalk and keeps its traceback.
EXPECTED = (ValueError, OSError, MemoryError, HydraException, OmegaConfBaseException)

LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm")  # which requirements/sweep.txt installs

# Hydra's errors about several values for an option without -m.
SEVERAL_VALUES = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'(?: requires --multirun)?")

# OmegaConf's error about a value that is no number, and the kinds of numbers.
WRONG_NUMBER = re.compile(r"Value '(.*)' of type '\w+' could not be converted to (Float|Integer)")
NUMBERS = {"Float": "number", "Integer": "whole number"}

# Where in its own source torch has raised an error.
LOCATION = re.compile(r"^.*DefaultCPUAllocator: ")

# Words that users of other repositories type, and the options that they may mean. The first one
# that the command has is suggested.
OPTIONS_MEANT = {
    "learning_rate": ("lr",),
    "epochs": ("num_epochs",),
    "batch": ("batch_size",),
    "steps": ("max_steps", "sampling_steps", "num_timesteps"),
    "timesteps": ("num_timesteps", "sampling_steps"),
    "samples": ("num_samples",),
    "eval_samples": ("num_samples",),
    "cfg_scale": ("guidance",),
    "arch": ("model",),
    "data": ("dataset",),
}


def sentence(name: str, error: BaseException) -> str:
    """What is wrong and what is allowed, in one line, for the user of command `name`."""
    cause = error.__cause__
    help = f"`python {name}.py --help all` lists what is allowed"

    if isinstance(error, InterpolationResolutionError):
        # A resolver has raised it, and OmegaConf keeps only the text.
        return _first_line(error).split("resolving interpolation: ")[-1]
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        option = str(cause.full_key)
        return f"unknown option {option}{advice(name, option)}; {help}"
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}{wrong_value(cause)}; {help}"
    if isinstance(error, MemoryError):
        return f"not enough memory ({_first_line(error)}): ask for fewer samples or rows, or smaller batches"
    if isinstance(error, MissingConfigException) and error.options:
        return _unknown_choice(error)
    if isinstance(error, HydraException) and type(error) is not CompactHydraException:
        several = SEVERAL_VALUES.fullmatch(_first_line(error))
        return _several_values(several[1]) if several else f"{_first_line(error)}; {help}"
    return in_one_line(error)


def last_words(error: BaseException) -> str:
    """What a program without options of Hydra ends with: one line, or the traceback of an error in an included file."""
    return plugin_traceback(error) or f"error: {in_one_line(error)}"


def in_one_line(error: BaseException) -> str:
    """What an error says, in one line; for an OSError, which file cannot be used and why."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot use {error.filename or 'a file'}: {error.strerror}"
    return " ".join(str(error).split())


def _several_values(word: str) -> str:
    """What to write instead of several values without -m, such as seed=1,2,3."""
    name, _, values = word.partition("=")
    return (
        f"{word} holds several values: write -m {word} for one run after the other,"
        f" {name}=[{values}] for a list, or quotes around a single value that holds commas"
    )


def as_expected(error: Exception) -> Exception:
    """The same error; torch's error for a lack of memory as a MemoryError, which is EXPECTED."""
    names = {cls.__name__ for cls in type(error).__mro__}
    lacks = "OutOfMemoryError" in names or "can't allocate memory" in str(error)
    if isinstance(error, RuntimeError) and lacks:
        return MemoryError(LOCATION.sub("", _first_line(error)))
    return error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def wrong_value(error: OmegaConfBaseException) -> str:
    """What is wrong with the value of an option, in words that follow its name."""
    message = _first_line(error)
    if "is not a ListConfig" in message:
        return f" takes a list: write its values in brackets, as in {error.full_key}=[A,B]"
    if "is not Optional" in message:
        return " needs a value, and null is none"
    number = WRONG_NUMBER.fullmatch(message)
    if number:
        value, kind = number.groups()
        return f" needs a {NUMBERS[kind]}; got {value}"
    return f": {message}"


def _unknown_choice(error: MissingConfigException) -> str:
    """The choices that there are, for a group such as dataset; or how to install a launcher."""
    missing = str(error.missing_cfg_file)
    for group in GROUPS:
        if missing.startswith(f"{group}/"):
            return unknown_choice(group, missing.removeprefix(f"{group}/"))
    group, _, choice = missing.rpartition("/")
    if group == "hydra/launcher" and choice in LAUNCHERS:
        return f"hydra/launcher={choice} needs more packages: `pip install -r requirements/sweep.txt`"
    return f"{group}={choice} is unknown; choose one of {', '.join(error.options or ())}"


# ---------------------------------------------------------------- advice on unknown options


def advice(name: str, unknown: str) -> str:
    """' (did you mean lr?)', or where the option belongs; '' where no option is similar.

    An option may belong to a data set, a network or another command.
    """
    own = _options_of_commands()[name]
    of_choices = _options_of_choices(name)

    choices = [choice for choice, options in of_choices.items() if unknown in options]
    if choices:
        return f": it belongs to {_listed(choices)}"
    for option in OPTIONS_MEANT.get(unknown, ()):
        if option in own:
            return f" (did you mean {option}?)"
    parts = [option for options in of_choices.values() for option in options if option.endswith(f".{unknown}")]
    if parts:
        return f" (did you mean {parts[0]}?)"
    others = [f"{other}.py" for other, names in _options_of_commands().items() if unknown in names]
    if others:
        return f": it belongs to {_listed(others)}"

    known = own + [option for options in of_choices.values() for option in options]
    flags = {flag.removeprefix("--"): flag for flag in HYDRA_FLAGS if flag.startswith("--")}
    similar = difflib.get_close_matches(unknown, [*known, *flags], n=1)
    if not similar:
        return ""
    return f" (did you mean {flags.get(similar[0], similar[0])}?)"


def _options_of_commands() -> dict[str, list[str]]:
    return {name: [f.name for f in fields(command)] for name, command in COMMANDS.items()}


def _options_of_choices(name: str) -> dict[str, list[str]]:
    """The options of all data sets and networks of a command, such as "dataset=moons": [...]."""
    found = {}
    for group in groups_of(COMMANDS[name]):
        for choice, member in GROUPS[group].items():
            found[f"{group}={choice}"] = [f"{group}.{f.name}" for f in fields(member)]
    return found


def _listed(names: list[str]) -> str:
    """'a, b and c'"""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
