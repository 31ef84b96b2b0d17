"""What an option is: a dataclass field with its help and its limits; and the check of what a person gave."""

import math
from dataclasses import asdict, field, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its help, its range (`low` and `high` belong to it) or its choices."""
    metadata = {"help": help, "low": low, "high": high, "above": above, "below": below, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


# ---------------------------------------------------------------- from Hydra to plain dictionaries


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The composed configuration as a plain dictionary of exactly the declared options.

    Raises:
        ValueError: an option is out of its range or not among its choices; the sentence names both.
    """
    options = OmegaConf.to_object(cfg)
    _check(options)
    return asdict(options)


def _check(options: Any, prefix: str = "") -> None:
    for f in fields(options):
        value, name = getattr(options, f.name), prefix + f.name
        if is_dataclass(value):
            _check(value, f"{name}.")
        elif value is not None and not _allows(f.metadata, value):
            raise ValueError(f"{name} must be {allowed(f.metadata)}; got {value!r}")


def _allows(limits: Any, value: Any) -> bool:
    if limits["choices"]:
        return value in limits["choices"]
    if not isinstance(value, int | float):
        return True
    return math.isfinite(value) and (
        (limits["low"] is None or value >= limits["low"])
        and (limits["high"] is None or value <= limits["high"])
        and (limits["above"] is None or value > limits["above"])
        and (limits["below"] is None or value < limits["below"])
    )


def allowed(limits: Any) -> str:
    """What a value may be, in words: 'at least 1', 'above 0 and below 1', 'one of auto, file'; '' for anything."""
    if limits["choices"]:
        return "one of " + ", ".join(limits["choices"])
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    return " and ".join(f"{word} {limits[key]:g}" for key, word in words.items() if limits[key] is not None)
