"""Docstrings of moonwalk as reStructuredText, for the Python API of the site.

Sections such as `Args:` are those of napoleon. This module prepares what it and docutils would misunderstand.
"""

import re
from collections.abc import Sequence
from typing import Any

from sphinx.application import Sphinx

KEPT = re.compile(r"(``.*?``|`[^`]*`|(?<!\w)\*\w+\*(?!\w))", re.DOTALL)  # code, and a *word* that is stressed
# Characters that begin or end markup in reStructuredText: |x|, a * b and x_. A "* " at the head of a line is a list.
MARKUP = re.compile(r"(\||(?<!^)\*|\*(?! )|(?<=\w)_(?!\w))", re.MULTILINE)
NAMED = re.compile(r"(\w+(?:, \w+)*): \S")  # "low, high: the limits"
ALIAS = "Alias for field number"  # the docstring that Python gives to a field of a NamedTuple


def prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Prepare a docstring, in place."""
    lines[:] = escaped(joined(sectioned(lines, names_of(obj))))


def skip_aliases(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of a NamedTuple, which the docstring of the class explains."""
    return True if str(getattr(obj, "__doc__", "")).startswith(ALIAS) else None


def names_of(obj: Any) -> set[str]:
    """The fields of a class, and the parameters of a function."""
    names = set(getattr(obj, "__annotations__", ()))
    constructor = getattr(obj, "__init__", None)
    return names | set(getattr(constructor, "__annotations__", ()))


def sectioned(lines: Sequence[str], names: set[str]) -> list[str]:
    """Put a paragraph that explains fields or parameters, one in each line, below a heading."""
    found: list[str] = []
    inside = False
    for before, line in zip(["", *lines], lines):
        explained = NAMED.match(line)
        begins = explained is not None and set(explained[1].split(", ")) <= names
        if begins and not before.strip():
            found.append("Attributes:")
            inside = True
        if not line.strip():
            inside = False
        found.append(f"    {line}" if inside else line)
    return found


def joined(lines: Sequence[str]) -> list[str]:
    """Join a line that is indented for looks to the line before it. Lists and sections keep their lines."""
    found: list[str] = []
    for line in lines:
        before = found[-1] if found else ""
        is_text = bool(before) and not before.startswith((" ", "*")) and not before.endswith(":")
        if is_text and line.startswith(" ") and line.strip():
            found[-1] = f"{before} {line.strip()}"
        else:
            found.append(line)
    return found


def escaped(lines: Sequence[str]) -> list[str]:
    """Escape the characters that are no markup in our docstrings."""
    parts = KEPT.split("\n".join(lines))
    for i in range(0, len(parts), 2):
        parts[i] = MARKUP.sub(r"\\\1", parts[i])
    return "".join(parts).split("\n")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon, which has 500
    app.connect("autodoc-skip-member", skip_aliases)
    return {"version": "1", "parallel_read_safe": True}
