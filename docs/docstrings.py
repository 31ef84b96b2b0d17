"""Docstrings of moonwalk as reStructuredText, for the Python API of the site.

Sections such as `Args:` are those of napoleon. This module prepares what it and docutils would misunderstand.
"""

import inspect
import re
from collections.abc import Sequence
from typing import Any

from sphinx.application import Sphinx

KEPT = re.compile(r"(``.*?``|`[^`]*`|(?<!\w)\*\w+\*(?!\w))", re.DOTALL)  # code, and a *word* that is stressed
# Characters that begin or end markup in reStructuredText: |x|, a * b and x_. A "* " at the head of a line is a list.
MARKUP = re.compile(r"(\||(?<!^)\*|\*(?! )|(?<=\w)_(?!\w))", re.MULTILINE)
ALIAS = "Alias for field number"  # the docstring that Python gives to a field of a NamedTuple


def prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Prepare a docstring, in place."""
    heading = "Attributes:" if what == "class" else "Args:"
    lines[:] = escaped(joined(sectioned(lines, names_of(obj), heading)))


def skip_aliases(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of a NamedTuple, which the docstring of the class explains."""
    return True if str(getattr(obj, "__doc__", "")).startswith(ALIAS) else None


def readable_defaults(app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str):
    """Write `...` for the default of a dataclass field that is made anew for each object."""
    return (signature.replace("<factory>", "..."), returned) if signature else None


def names_of(obj: Any) -> set[str]:
    """The fields of a class, and the parameters of a class or function."""
    names = set[str](getattr(obj, "__annotations__", ()))
    try:
        return names | set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):  # a module, or a value
        return names


def sectioned(lines: Sequence[str], names: set[str], heading: str) -> list[str]:
    """Put each paragraph that explains fields or parameters below a heading, one of them in a line.

    Such a paragraph has the form "low, high: the limits. n: the number of rows."
    """
    if not names:
        return list(lines)
    one = "|".join(sorted(names))
    begins = re.compile(rf"(?:^|(?<=[.;] ))(?=(?:{one})(?:, (?:{one}))*: )")
    found: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        if begins.match(paragraph):
            text = " ".join(line.strip() for line in paragraph.split("\n"))
            parts = [part.strip() for part in begins.split(text) if part]
            found += [heading, *(f"    {part}" for part in parts), ""]
        else:
            found += [*paragraph.split("\n"), ""]
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
    app.connect("autodoc-process-signature", readable_defaults)
    app.connect("autodoc-skip-member", skip_aliases)
    return {"version": "1", "parallel_read_safe": True}
