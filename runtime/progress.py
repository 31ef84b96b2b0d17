"""A progress bar around any iterator."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and show a bar on the terminal, which disappears at the end.

    Without a terminal, for example where stderr is a file, nothing is shown.
    """
    yield from tqdm(items, total=total, desc=what, disable=None, leave=False)
