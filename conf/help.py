"""The text of `python NAME.py --help`, made from the dataclasses alone, without Hydra and torch.

`--help` names the options that people set most and the presets, `--help all` explains every option,
and `--help GROUP` those of one group. With dataset=NAME or model=NAME in the line, the options of that data set
or network come last.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields

from conf.config import COMMANDS
from conf.groups import CHOICE_DEFAULTS, GROUPS, unknown_choice
from conf.option import allowed, as_typed, owner
from conf.presets import EXPERIMENT, added_folders, presets_of

INDENT = 26  # columns before the meaning of an option
WIDTH = 120
ALL = "all"

# The options that people set most, in the order of `--help`.
COMMON_OPTIONS = {
    "train": (
        *("dataset", "model", "num_epochs", "seed", "task_name"),
        *("num_samples", "batch_size", "lr", "schedule", "conditional", "eval_samples", "resume"),
    ),
    "inference": (
        *("checkpoint", "num_samples", "sampler", "sampling_steps", "seed", "labels", "guidance"),
        *("observe", "flow", "animation", "viewer", "rerun"),
    ),
    "evaluate": (
        *("checkpoint", "samples", "dataset", "num_samples", "sampler", "sampling_steps", "seed"),
        *("guidance", "spacing", "device", "figures", "style"),
    ),
    "compare": (
        *("checkpoint", "samplers", "evaluations", "num_samples", "seed"),
        *("rerun", "viewer", "device", "threads", "precision", "figures", "style"),
    ),
    "main": (
        *("dataset", "num_samples", "num_timesteps", "schedule", "seed", "beta_start", "beta_end"),
        *("save_plots", "compare_schedules", "rerun", "viewer", "animation"),
    ),
}


def help_text(name: str, arguments: Sequence[str] = ()) -> str:
    """The help of command `name` that the arguments of its command line ask for.

    Raises:
        ValueError: there is no such group, data set or network.
    """
    topic = _topic(arguments)
    folders = added_folders(arguments)
    if topic == ALL:
        return full_help(name, folders)
    if topic == EXPERIMENT:
        return "\n".join(_preset_lines(name, folders))
    if topic:
        return group_help(name, topic)
    return short_help(name, _choices(name, arguments), folders)


def short_help(name: str, choices: Sequence[tuple[str, str]] = (), folders: Sequence[str] = ()) -> str:
    """What the command does, its most common options, and the names of all others by group.

    choices: data sets and networks whose options are added, such as ("dataset", "spirals").
    folders: beside conf/, in whose folder `experiment` presets are looked for.
    """
    command = COMMANDS[name]
    options = {f.name: f for f in fields(command)}

    lines = [*_head(name), ""]
    for option in COMMON_OPTIONS[name]:
        lines += _described(options[option], _short_meaning(options[option]))

    lines += [
        "",
        f"All options by group; `python {name}.py --help GROUP` explains those of one group:",
        "",
    ]
    for title, members in sections(command).items():
        lines += _aligned(f"  {title}", ", ".join(f.name for f in members))
    lines += ["", *_preset_lines(name, folders)]
    lines += ["", *_wrapped(_pointers(name))]
    for group, choice in choices:
        lines += ["", *_choice_lines(group, choice)]
    return "\n".join(lines)


def full_help(name: str, folders: Sequence[str] = ()) -> str:
    """Every option of the command, of every data set and of every network."""
    command = COMMANDS[name]
    lines = _head(name)
    for title, options in sections(command).items():
        lines += ["", *_section_lines(title, options)]
    for group in groups_of(command):
        for choice in GROUPS[group]:
            lines += ["", *_choice_lines(group, choice)]
    lines += ["", *_preset_lines(name, folders)]
    lines += [
        "",
        "Several values, run one after the other: -m lr=1e-3,4e-3. Hydra's own flags: --hydra-help.",
    ]
    return "\n".join(lines)


def group_help(name: str, title: str) -> str:
    """The options of one group, such as "training".

    Raises:
        ValueError: the command has no such group.
    """
    groups = sections(COMMANDS[name])
    if title not in groups:
        raise ValueError(f"--help {title}: choose {ALL}, {EXPERIMENT} or one of {', '.join(groups)}")
    return "\n".join(_section_lines(title, groups[title]))


def groups_of(command: type) -> list[str]:
    """Those of dataset= and model= that the command has."""
    names = {f.name for f in fields(command)}
    return [group for group in GROUPS if group in names]


def sections(command: type) -> dict[str, list[Field]]:
    """The options by group. Those that only this command has come first, as the group "options"."""
    found: dict[str, list[Field]] = {"options": []}
    for f in fields(command):
        first_owner = owner(command, f.name)
        title = "options" if first_owner is command else str(first_owner.__doc__)
        found.setdefault(title, []).append(f)
    return {title: options for title, options in found.items() if options}


# ---------------------------------------------------------------- what the arguments ask for


def _topic(arguments: Sequence[str]) -> str:
    """The words behind --help, such as "all" or "run folder"; "" where there are none."""
    words: list[str] = []
    asked = False
    for word in arguments:
        if word in ("--help", "-h"):
            asked = True
        elif asked and "=" not in word and not word.startswith("-"):
            words.append(word)
        else:
            asked = False
    return " ".join(words)


def _choices(name: str, arguments: Sequence[str]) -> list[tuple[str, str]]:
    """The data set and the network that the arguments choose, such as ("dataset", "spirals")."""
    groups = groups_of(COMMANDS[name])
    found = []
    for word, following in zip(arguments, [*arguments[1:], ""]):
        group, equals, choice = word.removeprefix("--").partition("=")
        if group not in groups:
            continue
        if not equals:
            choice = following
        if choice not in GROUPS[group]:
            raise ValueError(unknown_choice(group, choice))
        found.append((group, choice))
    return found


# ---------------------------------------------------------------- lines


def _head(name: str) -> list[str]:
    purpose = textwrap.dedent(f"    {COMMANDS[name].__doc__}").strip()
    return [purpose, "", f"python {name}.py [option=value | --option value] ..."]


def _pointers(name: str) -> str:
    """Where to read on."""
    groups = groups_of(COMMANDS[name])
    of_choice = ""
    if groups:
        examples = {"dataset": "dataset=spirals", "model": "model=mlp"}
        words = " ".join(examples[group] for group in groups)
        of_choice = f" `python {name}.py {words} --help` adds the options of these choices."
        if name == "train":
            of_choice += f" {', '.join(CHOICE_DEFAULTS)} also change other defaults, which this help then shows."
    return (
        f"`python {name}.py --help {ALL}` explains every option.{of_choice}"
        " Several values, run one after the other: -m seed=1,2,3."
    )


def _preset_lines(name: str, folders: Sequence[str]) -> list[str]:
    """The presets whose options the command has, each with the comment of its file."""
    presets = presets_of(name, folders)
    if not presets:
        return [f"Presets of options, experiment=NAME: none; write {EXPERIMENT}/NAME.yaml and add --config-dir DIR"]
    of_run = "; like=RUN takes the options of a run" if name == "train" else ""
    lines = [f"Presets of options, by experiment=NAME{of_run}; what you type takes precedence:", ""]
    for preset, meaning in presets.items():
        lines += _aligned(f"  {preset}", meaning or "(its file begins with no comment)")
    return lines


def _section_lines(title: str, options: Sequence[Field]) -> list[str]:
    lines = [title]
    for f in options:
        lines += _described(f, _full_meaning(f))
    return lines


def _choice_lines(group: str, choice: str) -> list[str]:
    """The options of a data set or a network, and what it changes in those of a training."""
    name_field, *options = fields(GROUPS[group][choice])
    lines = [f"{group}={choice}: {name_field.metadata['help']}"]
    for f in options:
        lines += _described(f, _full_meaning(f), prefix=f"{group}.")
    others = CHOICE_DEFAULTS.get(choice)
    if others:
        changes = ", ".join(f"{name}={as_typed(value)}" for name, value in others.items())
        lines += _wrapped(f"also sets {changes}", "  ", " " * 12)
    return lines


def _described(f: Field, meaning: str, prefix: str = "") -> list[str]:
    """`  name=default   meaning`, wrapped."""
    default = f.default if f.default_factory is MISSING else f.default_factory()
    typed = as_typed(default).replace(", ", ",")
    return _aligned(f"  {prefix}{f.name}={typed}", meaning)


def _full_meaning(f: Field) -> str:
    """The help of an option with the values that it may have."""
    values = f"one of {', '.join(GROUPS[f.name])}" if f.name in GROUPS else allowed(f.metadata)
    return f"{f.metadata['help']} [{values}]" if values else f.metadata["help"]


def _short_meaning(f: Field) -> str:
    """The first clause of the help, the clause that explains the default, and the choices."""
    first, *others = f.metadata["help"].split("; ")
    clauses = [first] + [clause for clause in others if clause.startswith("default: ")]
    choices = list(GROUPS[f.name] if f.name in GROUPS else f.metadata["choices"])
    if choices:
        clauses[-1] += f" [one of {', '.join(choices)}]"
    return "; ".join(clauses)


def _aligned(head: str, text: str) -> list[str]:
    """The text beside its head, in a column of its own."""
    first = f"{head:<{INDENT}}" if len(head) < INDENT - 1 else f"{head}  "
    return _wrapped(text, first, " " * INDENT)


def _wrapped(text: str, first_indent: str = "", indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first_indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
