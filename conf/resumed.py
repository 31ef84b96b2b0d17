"""The options of a training that goes on: those that it was begun with, and what may differ from them."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from conf.config import Train
from conf.groups import GROUPS
from conf.option import fixed_options

LENGTH = {"max_steps", "num_epochs"}  # may grow, which runtime.resume checks


def resumed_options(asked: Train, typed: set[str], begun: Mapping[str, Any], run: Path) -> Train:
    """`begun`, the options in the checkpoint of `run`, with those that the user has `typed` and that may change.

    Raises:
        ValueError: one may not, or `begun` are no options; the sentence says which.
    """
    if "task_name" in typed and Path(asked.task_name or "").absolute() != run.absolute():
        raise ValueError(f"resume={run} goes on in that folder, not in task_name={asked.task_name}")
    new = asdict(asked)
    try:
        return _merged(asked, typed, begun, new, run)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the checkpoint of {run} cannot be resumed: it lacks its options ({error})") from error


def _merged(asked: Train, typed: set[str], begun: Mapping[str, Any], new: dict[str, Any], run: Path) -> Train:
    for name in sorted(typed):
        was, now = _value(begun, name), _value(new, name)
        if name.split(".")[0] in fixed_options(Train) - LENGTH and was != now:
            raise ValueError(f"resume={run} was trained with {name}={was}, not {name}={now}")
    stay = {name: begun[name] for name in new if name in begun and name not in typed - GROUPS.keys()}
    if "num_epochs" in typed and "max_steps" not in typed and new["num_epochs"] != begun["num_epochs"]:
        stay["max_steps"] = None  # the user counts in epochs now
    for group, members in GROUPS.items():
        member = members[begun[group]["name"]]
        stay[group] = member(**{f.name: begun[group][f.name] for f in fields(member) if f.name in begun[group]})
    return replace(asked, **stay, resume=None)


def _value(options: Mapping[str, Any], name: str) -> Any:
    """Of an option, a dotted one too; of a group the name of what was chosen."""
    for part in name.split("."):
        options = options.get(part) if isinstance(options, Mapping) else None  # pyright: ignore
    return options["name"] if isinstance(options, Mapping) else options
