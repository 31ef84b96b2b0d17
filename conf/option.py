"""What an option is: a dataclass field with its help and its limits; and the check of what a user gave."""

import math
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from functools import partial
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
    may_change: bool = False,
) -> Any:
    """A dataclass field with its help, its range (`low` and `high` belong to it) or its choices.

    aliases: other names of choices. may_change: a training may be resumed with another value.
    """
    limits = {"low": low, "high": high, "above": above, "below": below, "choices": tuple(choices)}
    metadata = {"help": help, "aliases": aliases or {}, "may_change": may_change, **limits}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


free = partial(option, may_change=True)


def fixed_options(command: type) -> set[str]:
    """The options of a command that must stay as they were where a training is resumed."""
    return {f.name for f in fields(command) if not f.metadata["may_change"]}


def typed_as(value: Any) -> str:
    """A value as one types it: null, true."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


# ---------------------------------------------------------------- the check


def check(options: Any, prefix: str = "") -> None:
    """Replace aliases of choices by what they stand for, and hold every value, or each of a list, against its limits.

    Raises:
        ValueError: an option is out of its range or not among its choices; the sentence names both.
    """
    for f in fields(options):
        value, name = getattr(options, f.name), prefix + f.name
        if is_dataclass(value):
            check(value, f"{name}.")
            continue
        many = isinstance(value, list)
        values = [f.metadata["aliases"].get(v, v) if isinstance(v, str) else v for v in (value if many else [value])]
        for v in values:
            if v is not None and not _allows(f.metadata, v):
                raise ValueError(f"{'each of ' * many}{name} must be {allowed(f.metadata)}; got {v!r}")
        if f.metadata["aliases"]:
            setattr(options, f.name, values if many else values[0])


def _allows(limits: Mapping[str, Any], value: object) -> bool:
    if limits["choices"]:
        return bool(value) and all(v in limits["choices"] for v in (value if isinstance(value, list) else [value]))
    if not isinstance(value, int | float):
        return True
    return math.isfinite(value) and (
        (limits["low"] is None or value >= limits["low"])
        and (limits["high"] is None or value <= limits["high"])
        and (limits["above"] is None or value > limits["above"])
        and (limits["below"] is None or value < limits["below"])
    )


def allowed(limits: Mapping[str, Any]) -> str:
    """What a value may be, in words: 'at least 1', 'above 0 and below 1', 'one of auto, file'; '' for anything."""
    if limits["choices"]:
        return "one of " + ", ".join(limits["choices"])
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    return " and ".join(f"{word} {_plain(limits[key])}" for key, word in words.items() if limits[key] is not None)


def _plain(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"
