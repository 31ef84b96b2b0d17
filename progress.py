"""A progress bar around any iterator; silent where nobody looks (output into a pipe or a file)."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def shown(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    yield from tqdm(items, total=total, desc=what, disable=None, leave=False)
