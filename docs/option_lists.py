"""Directives of the site that list options: of a command, of data sets and networks, and of scripts.

    ```{options} train
    ```

They are made from the dataclasses in conf/ and the parsers of conf/script_parsers.py, as `--help` is.
"""

from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from conf.config import COMMANDS
from conf.groups import CHOICE_DEFAULTS, GROUPS
from conf.help import sections
from conf.option import allowed, as_typed
from conf.script_parsers import PROGRAMS


def default_of(option: Field) -> str:
    """The default of an option, as a user types it."""
    default = option.default if option.default_factory is MISSING else option.default_factory()
    return as_typed(default).replace(", ", ",")


def limits_of(option: Field) -> str:
    """What the value of an option may be, such as "at least 1"; "" for anything."""
    if option.name in GROUPS:
        return "one of " + ", ".join(GROUPS[option.name])
    return allowed(option.metadata)


def option_list(options: Sequence[Field], owner: str, prefix: str = "") -> nodes.definition_list:
    """Each option with its default, and below it its meaning and its limits.

    owner: the command or group, the beginning of the anchors.
    prefix: "dataset." for the options of a data set.
    """
    entries = nodes.definition_list(classes=["options"])
    for option in options:
        typed = f"{prefix}{option.name}={default_of(option)}"
        term = nodes.term("", "", nodes.literal("", typed), ids=[f"{owner}-{option.name}"])
        meaning = nodes.definition("", nodes.paragraph("", option.metadata["help"]))
        limits = limits_of(option)
        if limits:
            meaning += nodes.paragraph("", limits, classes=["limits"])
        entries += nodes.definition_list_item("", term, meaning)
    return entries


def section(title: str, name: str, *contents: nodes.Node) -> nodes.section:
    """A section with its heading and its anchor."""
    return nodes.section("", nodes.title("", title), *contents, ids=[nodes.make_id(name)], names=[name])


class Options(Directive):
    """`{options} train`: all options of a command, by group."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (name,) = self.arguments
        found: list[nodes.Node] = []
        for title, options in sections(COMMANDS[name]).items():
            heading = title[0].upper() + title[1:]
            found.append(section(heading, f"{name}-options-{title}", option_list(options, name)))
        return found


class Choices(Directive):
    """`{choices} dataset`: all data sets with their options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (group,) = self.arguments
        found: list[nodes.Node] = []
        for choice, kind in GROUPS[group].items():
            head, *options = fields(kind)
            contents: list[Any] = [nodes.paragraph("", f"{head.metadata['help']}")]
            if options:
                contents.append(option_list(options, f"{group}-{choice}", f"{group}."))
            others = CHOICE_DEFAULTS.get(choice)
            if others:
                changes = " ".join(f"{name}={as_typed(value)}" for name, value in others.items())
                contents.append(nodes.paragraph("", "It also sets ", nodes.literal("", changes)))
            found.append(section(f"{group}={choice}", f"{group}-{choice}", *contents))
        return found


class Scripts(Directive):
    """`{scripts}`: the help of all programs in scripts/ and loss/."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for name, (parser, _) in PROGRAMS.items():
            help_text = parser().format_help()
            found.append(section(parser().prog, f"program-{name}", nodes.literal_block(help_text, help_text)))
        return found


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("options", Options)
    app.add_directive("choices", Choices)
    app.add_directive("scripts", Scripts)
    return {"version": "1", "parallel_read_safe": True}
