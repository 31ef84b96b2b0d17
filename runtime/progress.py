"""A progress bar around any iterator; silent where nobody looks (output into a pipe or a file)."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from runtime import distributed

Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items as they come, with a bar on the terminal that goes away at the end; only in the first process."""
    yield from tqdm(items, total=total, desc=what, disable=None if distributed.is_first() else True, leave=False)
