"""The options of a training that goes on: those that it was begun with, and what may differ from them."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.config import Train
from conf.groups import GROUPS
from conf.option import check, fixed_options, typed_as

REMOVED = {"cuda_graph"}  # options of older versions that never changed what a training learns: left out
LENGTH = {"max_steps", "num_epochs"}  # may grow, which training.resume checks


def resumed_options(asked: Train, typed: set[str], begun: object, run: Path) -> Train:
    """`begun`, the options in the checkpoint of `run`, with those that the user has `typed` and that may change.

    Raises:
        ValueError: one may not, or `begun` are no options; the sentence says which.
    """
    if "task_name" in typed and asked.task_name and Path(asked.task_name).absolute() != run.absolute():
        raise ValueError(f"resume={run} goes on in that folder, not in task_name={asked.task_name}")
    old, fixed = _begun_with(begun, run), fixed_options(Train) - LENGTH
    for name in sorted(typed):
        group = name.split(".")[0]
        if group in fixed and (difference := _difference(asdict(old), asdict(asked), name)):
            raise ValueError(f"resume={run} was trained with {difference}, and keeps that: leave out {name}=")
    new = {name: getattr(asked, name) for name in typed - GROUPS.keys() - fixed if "." not in name}
    if "num_epochs" in typed and "max_steps" not in typed and asked.num_epochs != old.num_epochs:
        new["max_steps"] = None  # the user counts in epochs now
    return replace(old, **{**new, "resume": None})


def _begun_with(begun: object, run: Path) -> Train:
    """The options in a checkpoint, held against types and limits as those of a command line are."""
    cannot = f"the checkpoint of {run} cannot be resumed: it"
    if not isinstance(begun, Mapping) or not begun:
        raise ValueError(f"{cannot} lacks its options")
    begun = {"shards": 1, **begun}  # older ones have none: they computed each batch in one part
    begun = {name: value for name, value in begun.items() if name not in REMOVED}
    if missing := sorted(fixed_options(Train) - begun.keys()):
        raise ValueError(f"{cannot} lacks {', '.join(missing)}, as if from another version of moonwalk")
    try:
        groups = {group: _member(members, begun[group]) for group, members in GROUPS.items()}
        old: Any = OmegaConf.to_object(OmegaConf.structured(Train(**{**begun, **groups})))
        check(old)
    except (TypeError, ValueError, OmegaConfBaseException) as error:
        what = str(error).partition("\n")[0]
        raise ValueError(f"{cannot} holds options that are not those of this version of moonwalk: {what}") from error
    return old


def _member(members: Mapping[str, type], options: object) -> Any:
    """The choice of a group, such as Moons, with all of its options."""
    if not isinstance(options, Mapping) or options.get("name") not in members:
        raise ValueError(f"none of {', '.join(members)} is chosen")
    member = members[options["name"]]
    if missing := sorted({f.name for f in fields(member)} - options.keys()):
        raise ValueError(f"{options['name']} without {', '.join(missing)}")
    return member(**options)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> str | None:
    """'lr=0.008, not lr=0.001': where an option, a dotted one too, differs; of a group, the name of what was chosen."""
    group, _, part = name.partition(".")
    if group not in GROUPS:
        was, now = old[group], new[group]
    elif part in old[group]:
        was, now = old[group][part], new[group][part]
    else:
        name, was, now = group, old[group]["name"], new[group]["name"]
    return None if was == now else f"{name}={typed_as(was)}, not {name}={typed_as(now)}"
