"""What can be chosen by name: one row for each sampler, schedule, prediction target, loss weight and posterior method.

A row says everything about its member: its defaults, one line of help, and where its code stands, as "module:name".
The code is imported when it is first used. So `--help` is made from these rows in milliseconds, without torch.
"""

from pkgutil import resolve_name
from typing import Any, Protocol


class Row(Protocol):
    """What all rows have. code: "module:name"; help: one line."""

    @property
    def code(self) -> str: ...

    @property
    def help(self) -> str: ...


def implementation(row: Row) -> Any:
    """The function or class that a row names, imported now if it was not before."""
    return resolve_name(row.code)
