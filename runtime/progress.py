"""Progress bars, around any iterator or by hand."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and show a bar on the terminal, which disappears at the end.

    Without a terminal, for example where stderr is a file, nothing is shown.
    """
    yield from steady_bar(items, total=total, desc=what, leave=False)


def steady_bar(items: Iterable[Item] | None = None, **options: Any) -> tqdm:
    """Return a bar of tqdm with these options that shows elapsed time by the monotonic clock.

    tqdm itself reads the time of day. Where somebody sets that back, its bars stand still until the
    old time is reached again.
    """
    bar = tqdm(items, disable=None, **options)
    setattr(bar, "_time", time.monotonic)  # noqa: B010 (no attribute that tqdm declares)
    bar.start_t = bar.last_print_t = time.monotonic()
    return bar
