"""What can be chosen by name: one row for each sampler, schedule, prediction target, network, point set and so on.

A row says everything about its member: its defaults, one line of help, and where its code stands, as "module:name".
The code is imported when it is first used. So `--help` is made from these rows in milliseconds, without torch.

`register_sampler` and the functions beside it add rows from files of a user (docs/plugins.md).
"""

from pkgutil import resolve_name
from typing import Any, Protocol

from registry.plugins import (
    register_callback,
    register_loss_weight,
    register_metric,
    register_network,
    register_points,
    register_posterior,
    register_sampler,
    register_schedule,
    register_spacing,
    register_target,
)

__all__ = [
    "Row",
    "implementation",
    "register_callback",
    "register_loss_weight",
    "register_metric",
    "register_network",
    "register_points",
    "register_posterior",
    "register_sampler",
    "register_schedule",
    "register_spacing",
    "register_target",
]


class Row(Protocol):
    """What all rows have. code: "module:name", or the object itself in a row that a user has added; help: one line."""

    @property
    def code(self) -> Any: ...

    @property
    def help(self) -> str: ...


def implementation(row: Row) -> Any:
    """The function, class or other object of a row, imported now if it was not before."""
    return resolve_name(row.code) if isinstance(row.code, str) else row.code
