"""Images beside each other: which one goes where, and the pixels of them all. Arrays only; drawn elsewhere."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Grid(NamedTuple):
    """Which image stands where: indices (rows, columns), -1 for none; the name of each row, [] where none has one."""

    cells: NDArray[np.int64]
    names: list[str]


def arranged(count: int, labels: ArrayLike | None = None, classes: Sequence[str] = ()) -> Grid:
    """A grid for `count` images, about as high as wide. With labels (count,), every row holds one class."""
    blocks = {}
    for i, label in enumerate(np.zeros(count, int) if labels is None else np.asarray(labels)[:count]):
        blocks.setdefault(int(label), []).append(i)
    columns = _columns([len(block) for block in blocks.values()])
    rows, names = [], []
    for label, block in blocks.items():
        for first in range(0, len(block), columns):
            row = block[first : first + columns]
            rows.append(row + [-1] * (columns - len(row)))
            names += [] if labels is None else [classes[label]]
    return Grid(np.array(rows), names)


def _columns(sizes: list[int]) -> int:
    """Of the numbers of columns that leave few cells empty, the one that makes the grid most nearly a square."""
    possible = [-(-max(sizes) // parts) for parts in range(1, max(sizes) + 1)]
    return min(possible, key=lambda columns: abs(np.log(columns / sum(-(-size // columns) for size in sizes))))


def pixels(images: ArrayLike) -> NDArray[np.uint8]:
    """Images (..., C, H, W) in [-1, 1] as bytes (..., H, W, 1 or 3): grey, or the first three channels.

    Raises:
        ValueError: NaN or infinity, or no three dimensions.
    """
    images = np.asarray(images)
    if images.ndim < 3 or not images.size:
        raise ValueError(f"images have shape (..., C, H, W), not {images.shape}")
    if not np.isfinite(images).all():
        raise ValueError("the images hold NaN or infinity: there is nothing to show")
    shown = np.moveaxis(images[..., :3, :, :], -3, -1)
    if shown.shape[-1] == 2:  # no colour has two parts
        shown = np.concatenate([shown, np.full_like(shown[..., :1], -1)], -1)
    return ((np.clip(shown, -1, 1) + 1) * 127.5).round().astype(np.uint8)


def scaled(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Pictures (..., H, W, c) with the longer side about `side`: pixels become squares, or are left out."""
    longer = max(picture.shape[-3:-1])
    if longer > side:
        every = round(longer / side)
        return picture[..., ::every, ::every, :]
    return picture.repeat(side // longer, -3).repeat(side // longer, -2)


def tiled(tiles: NDArray[np.uint8], cells: NDArray[np.int64], gap: int, ground: Sequence[int]) -> NDArray[np.uint8]:
    """Tiles (N, h, w, c) at their cells, `gap` pixels of the colour `ground` (c,) around each."""
    (rows, columns), (_, h, w, c) = cells.shape, tiles.shape
    whole = np.empty((rows * (h + gap) + gap, columns * (w + gap) + gap, c), np.uint8)
    whole[:] = ground
    for (row, column), i in np.ndenumerate(cells):
        if i >= 0:
            y, x = gap + row * (h + gap), gap + column * (w + gap)
            whole[y : y + h, x : x + w] = tiles[i]
    return whole
