"""An option is a dataclass field with its help and its limits.

`check` holds the values of a user against the limits.
"""

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, field, fields, is_dataclass
from typing import Any


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Mapping[str, object] | tuple[str, ...] = (),
    aliases: Mapping[str, str] | None = None,
) -> Any:
    """A dataclass field with its help and the values that it may have.

    help: what the option means. `--help` prints the part before the first semicolon, `--help all`
    prints all of it.
    low, high: the smallest and the largest value.
    above, below: limits that the value must not reach.
    choices: the only values.
    aliases: other names of some choices.
    """
    metadata = {
        "help": help,
        "low": low,
        "high": high,
        "above": above,
        "below": below,
        "choices": tuple(choices),
        "aliases": aliases or {},
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def owner(command: type, name: str) -> type:
    """The class that declares an option first: the command itself or one of its bases."""
    return [cls for cls in command.__mro__ if name in inspect.get_annotations(cls)][-1]


def as_typed(value: Any) -> str:
    """A value as a user types it, such as null or true."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---------------------------------------------------------------- the check


def check(options: Any, prefix: str = "") -> None:
    """Replace aliases of choices by the choices, and hold every value, or each of a list, against
    its limits.

    Raises:
        ValueError: an option is out of its range or not among its choices; the sentence names both.
    """
    for f in fields(options):
        value = getattr(options, f.name)
        name = f"{prefix}{f.name}"
        if is_dataclass(value):
            check(value, f"{name}.")
        elif isinstance(value, list):
            setattr(options, f.name, [_checked(f, item, f"each of {name}") for item in value])
        else:
            setattr(options, f.name, _checked(f, value, name))


def _checked(f: Field, value: Any, name: str) -> Any:
    """A single value, as the choice that it is an alias of.

    Raises ValueError where the option does not allow it.
    """
    if isinstance(value, str):
        value = f.metadata["aliases"].get(value, value)
    if value is not None and not _allows(f.metadata, value):
        known = [*f.metadata["choices"], *f.metadata["aliases"]]
        raise ValueError(f"{name} must be {allowed(f.metadata)}; got {value!r}{did_you_mean(value, known)}")
    return value


def _allows(limits: Mapping[str, Any], value: object) -> bool:
    if limits["choices"]:
        return value in limits["choices"]
    if not isinstance(value, int | float):
        return True
    if not math.isfinite(value):
        return False
    if limits["low"] is not None and value < limits["low"]:
        return False
    if limits["high"] is not None and value > limits["high"]:
        return False
    if limits["above"] is not None and value <= limits["above"]:
        return False
    return limits["below"] is None or value < limits["below"]


def allowed(limits: Mapping[str, Any]) -> str:
    """What a value may be, such as 'at least 1' or 'one of auto, file'; '' for anything."""
    if limits["choices"]:
        return "one of " + ", ".join(limits["choices"])
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    parts = []
    for key, word in words.items():
        if limits[key] is not None:
            parts.append(f"{word} {_plain(limits[key])}")
    return " and ".join(parts)


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """' (did you mean adams?)', with the most similar of the known words; '' where none is similar."""
    similar = difflib.get_close_matches(str(value), known, n=1)
    return f" (did you mean {similar[0]}?)" if similar else ""


def _plain(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"
