"""The options of a resumed training: those that it began with, and the few that may differ."""

import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.config import Evaluation, Run, Train
from conf.groups import GROUPS
from conf.include import Included
from conf.machine import Machine
from conf.option import as_typed, check, owner
from conf.pictures import Pictures
from conf.recording import Watching
from registry.plugins import missing_row

# The options of these classes do not change what is learned, so a resumed training may have other
# values of them.
MAY_CHANGE = (Run, Evaluation, Watching, Pictures, Machine, Included)
LENGTH = {"max_steps", "num_epochs"}  # may grow; training.learner checks that
# Where the data lie. They may be moved, because training.resume compares the data themselves.
PLACES = ("path", "root", "test_root")
INTERPOLATION = re.compile(r"(\\*)\$\{")  # with the backslashes before it, which OmegaConf reads too
REMOVED = {"cuda_graph"}  # options of older versions, which never changed what is learned
# Options that older versions lack, with values that have their effect.
ADDED = {"shards": 1, "batches": "shuffled"}
# The same for the options of data sets and networks.
ADDED_TO_MEMBERS: dict[str, Any] = {"columns": None, "missing": "error", "font": None, "size": None}


def resumed_options(asked: Train, typed: set[str], begun: object, run: Path) -> Train:
    """The options with which a training goes on.

    asked: the options of the command line.
    typed: the names of those that the user gave a value.
    begun: the options in the checkpoint of the run folder `run`. They hold, except for typed
    options that may change.

    Raises:
        ValueError: a typed option may not change, or `begun` holds no options; the sentence says
            which.
        FileNotFoundError: the data have been moved, and the options do not say where they are.
    """
    elsewhere = asked.task_name and Path(asked.task_name).absolute() != run.absolute()
    if "task_name" in typed and elsewhere:
        raise ValueError(f"resume={run} goes on in that folder, not in task_name={asked.task_name}")
    old = options_of_run(begun, f"the checkpoint of {run} cannot be resumed: it")
    fixed = fixed_options() - LENGTH

    changed: dict[str, Any] = {}
    moved: dict[str, str] = {}
    for name in sorted(typed):
        option, _, part = name.partition(".")
        if option == "dataset" and part in PLACES and hasattr(old.dataset, part):
            moved[part] = getattr(asked.dataset, part)
        elif option in fixed:
            difference = _difference(asdict(old), asdict(asked), name)
            if difference:
                raise ValueError(f"resume={run} was trained with {difference}, and keeps that: leave out {name}=")
        else:
            changed[option] = getattr(asked, option)

    if "num_epochs" in typed and "max_steps" not in typed and asked.num_epochs != old.num_epochs:
        changed["max_steps"] = None  # the user now gives the length in epochs
    changed["resume"] = None
    changed["dataset"] = replace(old.dataset, **moved)
    _check_places(changed["dataset"])
    return replace(old, **changed)


def _check_places(dataset: Any) -> None:
    """Raises FileNotFoundError where the data are no longer at their place."""
    for part in PLACES:
        place = getattr(dataset, part, None)
        if place and not Path(place).exists():
            option = f"dataset={dataset.name} dataset.{part}"
            raise FileNotFoundError(f"there are no data at {place}: say where they are now by {option}=PLACE")


def fixed_options() -> set[str]:
    """The options of a training that a resumed one must keep. Two of them are its LENGTH."""
    return {f.name for f in fields(Train) if not issubclass(owner(Train, f.name), MAY_CHANGE)}


def options_of_run(begun: object, refusal: str) -> Train:
    """The options in a checkpoint, held against types and limits as those of a command line are.

    Raises:
        ValueError: they are not those of this version; the sentence begins with `refusal`.
    """
    if not isinstance(begun, Mapping) or not begun:
        raise ValueError(f"{refusal} lacks its options")
    missing = missing_row(begun)
    if missing:
        raise ValueError(f"{refusal} was trained with {missing}")
    values = literal({**ADDED, **begun})
    for name in REMOVED:
        values.pop(name, None)
    missing = sorted(fixed_options() - values.keys())
    if missing:
        names = ", ".join(missing)
        raise ValueError(f"{refusal} lacks {names}, as if from another version of moonwalk")

    try:
        for group, members in GROUPS.items():
            values[group] = _chosen_member(members, values[group])
        old: Any = OmegaConf.to_object(OmegaConf.structured(Train(**values)))  # resolves no ${...}: see literal
        check(old)
    except (TypeError, ValueError, OmegaConfBaseException) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{refusal} holds options that are not those of this version of moonwalk: {reason}") from error
    return old


def literal(value: Any) -> Any:
    """The same value, whose texts OmegaConf takes as they are.

    It would resolve `${oc.env:HOME}` in a text, so that a checkpoint could read the environment.
    """
    if isinstance(value, str):
        return INTERPOLATION.sub(r"\1\1\\${", value)
    if isinstance(value, Mapping):
        return {key: literal(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [literal(part) for part in value]
    return value


def _chosen_member(members: Mapping[str, type], options: object) -> Any:
    """The dataclass of a data set or a network, such as Moons, made from all of its options."""
    if not isinstance(options, Mapping) or options.get("name") not in members:
        raise ValueError(f"none of {', '.join(members)} is chosen")
    member = members[options["name"]]
    known = {f.name for f in fields(member)}
    added = {name: value for name, value in ADDED_TO_MEMBERS.items() if name in known}
    missing = sorted(known - added.keys() - options.keys())
    if missing:
        raise ValueError(f"{options['name']} without {', '.join(missing)}")
    return member(**{**added, **options})


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> str | None:
    """'lr=0.008, not lr=0.001' where the option differs; None where it is the same.

    name: an option such as lr, or model.hidden of a network. If another network was chosen, which
    may lack the option, the difference is that of the networks' names.
    """
    group, _, part = name.partition(".")
    if group not in GROUPS:
        before = old[group]
        after = new[group]
    elif part in old[group]:
        before = old[group][part]
        after = new[group][part]
    else:
        name = group
        before = old[group]["name"]
        after = new[group]["name"]
    return None if before == after else f"{name}={as_typed(before)}, not {name}={as_typed(after)}"
