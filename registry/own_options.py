"""The options of a data set or a network that a user has added, read from the signature of its function."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

# What an option may be; each of them also with null.
TYPES = (bool, int, float, str, list[int], list[float], list[str])
ANNOTATIONS = (*TYPES, *(each | None for each in TYPES))
# Names of options that all data sets or networks have, or that the functions that call them use.
RESERVED = {"name", "n_samples", "num_samples", "seed", "embed", "dims", "num_timesteps", "num_labels", "prediction"}


class OwnOption(NamedTuple):
    """An option: its name, the type of its values, and its default."""

    name: str
    type: Any
    default: Any


def own_options(function: Callable[..., Any], given: int) -> tuple[OwnOption, ...]:
    """The parameters of a function or class behind the first `given` ones, which moonwalk passes by position.

    Raises:
        ValueError: a parameter has no default, or one that no option can have.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that only a type checker knows
        signature = inspect.signature(function)
    found = []
    for parameter in [*signature.parameters.values()][given:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in RESERVED:
            raise ValueError(f"its option {parameter.name} needs another name")
        kind = _type(parameter)
        if kind is None:
            rule = "a number, a text, true or false, or a list of these"
            raise ValueError(f"its option {parameter.name} needs a default that is {rule}")
        found.append(OwnOption(parameter.name, kind, parameter.default))
    return tuple(found)


def _type(parameter: inspect.Parameter) -> Any:
    """The type of an option, by its annotation or its default; None where it can be none."""
    default = parameter.default
    if default is parameter.empty:
        return None
    if parameter.annotation in ANNOTATIONS:
        return parameter.annotation
    if isinstance(default, list) and default:
        kind = list[type(default[0])]
    else:
        kind = type(default)
    return kind if kind in TYPES else None
