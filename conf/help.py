"""What `python NAME.py --help` prints, made from the dataclasses alone: neither Hydra nor torch is imported for it."""

import inspect
import textwrap
from dataclasses import MISSING, Field, fields
from typing import Any

from conf.config import COMMANDS
from conf.groups import GROUPS, PRESETS
from conf.option import allowed

INDENT, WIDTH = 26, 120


def help_text(name: str) -> str:
    command = COMMANDS[name]
    lines = [textwrap.dedent(f"    {command.__doc__}").strip()]
    lines += ["", f"python {name}.py [option=value | --option value] ..."]
    for title, options in sections(command).items():
        lines += ["", title, *(line for f in options for line in _described(f))]
    for group in groups_of(command):
        for choice, member in GROUPS[group].items():
            lines += ["", f"{group}={choice}: {fields(member)[0].metadata['help']}"]
            lines += [line for f in fields(member)[1:] for line in _described(f, f"{group}.")]
            if preset := PRESETS.get(choice):
                sets = "also sets " + ", ".join(f"{k}={_value(v)}" for k, v in preset.items())
                lines += textwrap.wrap(sets, WIDTH, initial_indent="  ", subsequent_indent=" " * 12)
    lines += ["", "Several values, run one after the other: -m lr=1e-3,4e-3. Hydra's own flags: --hydra-help."]
    return "\n".join(lines)


def groups_of(command: type) -> list[str]:
    """Those of dataset= and model= that the command has."""
    return [group for group in GROUPS if group in {f.name for f in fields(command)}]


def sections(command: type) -> dict[str, list[Field]]:
    """The options under their headings; those that only this command has come first, under "options"."""
    found: dict[str, list[Field]] = {"options": []}
    for f in fields(command):
        owner = [cls for cls in command.__mro__ if f.name in inspect.get_annotations(cls)][-1]
        title = "options" if owner is command else str(owner.__doc__)
        found.setdefault(title, []).append(f)
    return {title: options for title, options in found.items() if options}


def _described(f: Field, prefix: str = "") -> list[str]:
    """`  name=default   meaning [limits]`, wrapped."""
    default = f.default_factory() if f.default_factory is not MISSING else f.default
    head = f"  {prefix}{f.name}={_value(default)}".replace(", ", ",")
    text = f.metadata["help"]
    if f.name in GROUPS:
        text += f" [one of {', '.join(GROUPS[f.name])}]"
    elif limits := allowed(f.metadata):
        text += f" [{limits}]"
    first = f"{head:<{INDENT}}" if len(head) < INDENT - 1 else f"{head}  "
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * INDENT, break_on_hyphens=False)


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
