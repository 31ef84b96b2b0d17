"""Grids of images: the cell of each image, the pixels of a grid, and figures with names."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import ArrayLike, NDArray

from runtime.arrays import numbers
from viz.colours import GROUND
from viz.style import literal, paper

DPI = 120  # that of stills.save, so that each pixel of a tile becomes whole pixels of the file
SHOWN = 400  # images in a grid, at most
COMPARED = 100  # images on each side of `beside_real`, at most
TITLE = 10  # points: size of the title's letters
NAME = 8.5  # points, 14 pixels: size of the names' letters
LINE = 20  # pixels from one line of the title to the next
EDGE = 14  # pixels around a sheet
GAP = 3  # pixels between tiles
BETWEEN_GRIDS = 24  # pixels between the two grids of `beside_real`
STRIP_SIDE = 72  # pixels of an image in the pictures of the forward process

# A title is broken at WIDER times the width of the grid, but never below NARROWEST pixels.
WIDER = 1.2
NARROWEST = 420


class Grid(NamedTuple):
    """Which image stands in which cell.

    cells: indices (rows, columns), -1 for an empty cell.
    names: the name of each row; empty if rows have no names.
    """

    cells: NDArray[np.int64]
    names: list[str]


def arranged(count: int, labels: ArrayLike | None = None, classes: Sequence[str] = ()) -> Grid:
    """Arrange `count` images in a grid about as high as wide.

    Args:
        count: number of images.
        labels: (count,), if given; each row then holds images of one label only.
        classes: the names of the labels.
    """
    indices_by_label = _indices_by_label(count, labels)
    columns = _columns([len(indices) for indices in indices_by_label.values()])
    rows = []
    names = []
    for label, indices in indices_by_label.items():
        for first in range(0, len(indices), columns):
            row = indices[first : first + columns]
            empty = [-1] * (columns - len(row))
            rows.append(row + empty)
            if labels is not None:
                names.append(literal(classes[label]))
    return Grid(np.array(rows), names)


def _indices_by_label(count: int, labels: ArrayLike | None) -> dict[int, list[int]]:
    """Return the indices of the images of each label, in order; all below 0 without labels."""
    if labels is None:
        return {0: list(range(count))}
    by_label: dict[int, list[int]] = {}
    for i, label in enumerate(np.asarray(labels)[:count]):
        by_label.setdefault(int(label), []).append(i)
    return by_label


def _columns(sizes: list[int]) -> int:
    """Return the number of columns for blocks of these sizes, each of which begins a new row.

    Among the numbers that leave few cells empty it is the one with the squarest grid.
    """

    def distance_from_square(columns: int) -> float:
        rows = sum(math.ceil(size / columns) for size in sizes)
        return abs(np.log(columns / rows))

    largest = max(sizes)
    possible = [math.ceil(largest / parts) for parts in range(1, largest + 1)]
    return min(possible, key=distance_from_square)


# ---------------------------------------------------------------- pixels


def pixels(images: ArrayLike) -> NDArray[np.uint8]:
    """Convert images in [-1, 1] to bytes.

    Args:
        images: (..., C, H, W). Values outside of [-1, 1] are clipped.

    Returns:
        (..., H, W, 1) for grey images, else (..., H, W, 3): the first three channels.

    Raises:
        ValueError: NaN or infinity, or fewer than three dimensions.
    """
    values = numbers(images, "images")
    if not values.is_floating_point():
        values = values.float()
    values = values.numpy()
    if values.ndim < 3 or not values.size:
        raise ValueError(f"images have shape (..., C, H, W), not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("the images hold NaN or infinity: there is nothing to show")
    shown = np.moveaxis(values[..., :3, :, :], -3, -1)
    if shown.shape[-1] == 2:  # a colour needs a third channel: the lowest value
        third = np.full_like(shown[..., :1], -1)
        shown = np.concatenate([shown, third], -1)
    return ((np.clip(shown, -1, 1) + 1) * 127.5).round().astype(np.uint8)


def scaled(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scale pictures (..., H, W, c) such that the longer side has about `side` pixels.

    Pixels become squares, or are left out; no value is blended.
    """
    longer = max(picture.shape[-3:-1])
    if longer > side:
        every = round(longer / side)
        return picture[..., ::every, ::every, :]
    factor = side // longer
    return picture.repeat(factor, -3).repeat(factor, -2)


def tiled(
    tiles: NDArray[np.uint8],
    cells: NDArray[np.int64],
    gap: int,
    ground: Sequence[int],
) -> NDArray[np.uint8]:
    """Put tiles into their cells.

    Args:
        tiles: (N, h, w, c).
        cells: (rows, columns), indices of tiles, -1 for none.
        gap: pixels around each tile.
        ground: the colour (c,) of the gaps and of empty cells.

    Returns:
        (rows * (h + gap) + gap, columns * (w + gap) + gap, c).
    """
    rows, columns = cells.shape
    _, h, w, c = tiles.shape
    whole = np.empty((rows * (h + gap) + gap, columns * (w + gap) + gap, c), np.uint8)
    whole[:] = ground
    for (row, column), i in np.ndenumerate(cells):
        if i >= 0:
            top = gap + row * (h + gap)
            left = gap + column * (w + gap)
            whole[top : top + h, left : left + w] = tiles[i]
    return whole


def grid_picture(images: ArrayLike, grid: Grid, side: int = 44) -> NDArray[np.uint8]:
    """Return the pixels (H', W', 3) of a grid of images.

    Args:
        images: (N, C, H, W) in [-1, 1].
        grid: which image stands where.
        side: about how many pixels the longer side of an image takes.
    """
    tiles = scaled(pixels(images), side)
    coloured = np.broadcast_to(tiles, (*tiles.shape[:-1], 3))
    return tiled(coloured, grid.cells, GAP, GROUND)


def table_picture(images: NDArray, side: int = 56) -> NDArray[np.uint8]:
    """Return the pixels (H', W', 3) of images (R, K, C, H, W) in rows and columns."""
    rows, columns = images.shape[:2]
    cells = np.arange(rows * columns).reshape(rows, columns)
    return grid_picture(images.reshape(-1, *images.shape[2:]), Grid(cells, []), side)


# ---------------------------------------------------------------- sheets


class Sheet:
    """A matplotlib Figure of a grid, drawn pixel by pixel, with a title and names.

    `turn` changes what it shows, which is faster than a new figure.

    Args:
        picture: (H, W, 3), as `tiled` makes it.
        title: one or several lines; long ones are broken.
        rows, columns: the names of rows and columns, or none.
    """

    def __init__(
        self,
        picture: NDArray[np.uint8],
        title: str,
        rows: Sequence[str] = (),
        columns: Sequence[str] = (),
    ) -> None:
        height, width = picture.shape[:2]
        left = EDGE + _widest_name(rows)
        self.widest = max(NARROWEST, WIDER * (left + width))
        lines = _broken(title, self.widest)
        top = 16 + LINE * (len(lines) + bool(columns))
        title_width = max(_width(line, TITLE) for line in lines)
        whole_width = max(left + width + EDGE, title_width + 2 * EDGE)
        whole_height = top + height + EDGE

        self.figure = Figure(figsize=(whole_width / DPI, whole_height / DPI), dpi=DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        box = (
            left / whole_width,
            EDGE / whole_height,
            width / whole_width,
            height / whole_height,
        )
        ax = self.figure.add_axes(box, frameon=False, xticks=[], yticks=[])
        self.image = ax.imshow(picture, interpolation="nearest", aspect="auto")
        self.title = self.figure.text(
            EDGE / whole_width,
            1 - 10 / whole_height,
            "\n".join(lines),
            va="top",
            size=TITLE,
            linespacing=1.25,
        )
        _name_rows(ax, rows, height)
        _name_columns(ax, columns, width)

    def turn(self, picture: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
        """Show another picture of the same shape; return the pixels (H, W, 3) of the sheet."""
        self.image.set_data(picture)
        self.title.set_text("\n".join(_broken(title, self.widest)))
        self.canvas.draw()
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


def _widest_name(names: Sequence[str]) -> int:
    """Return the width in pixels of the longest line of the names; 0 if there are none."""
    widest = 0
    for name in names:
        for line in name.split("\n"):
            widest = max(widest, _width(line, NAME))
    return widest


def _name_rows(ax: Axes, names: Sequence[str], height: int) -> None:
    """Write the names of the rows at the left of a picture of that height."""
    for i, name in enumerate(names):
        middle = (i + 0.5) / len(names) * (height - GAP) + GAP / 2
        ax.text(-7, middle, name, ha="right", va="center", size=NAME, linespacing=1.2)


def _name_columns(ax: Axes, names: Sequence[str], width: int) -> None:
    """Write the names of the columns above a picture of that width."""
    for i, name in enumerate(names):
        middle = (i + 0.5) / len(names) * (width - GAP) + GAP / 2
        ax.text(middle, -5, name, ha="center", va="bottom", size=NAME)


def _broken(title: str, widest: float) -> list[str]:
    """Return the lines of a title; lines wider than `widest` pixels are broken between words."""
    lines = []
    for line in title.split("\n"):
        lines.append("")
        for word in line.split(" "):
            longer = f"{lines[-1]} {word}".lstrip()
            if lines[-1] and _width(longer, TITLE) > widest:
                lines.append(word)
            else:
                lines[-1] = longer
    return lines


def _width(text: str, size: float) -> int:
    """Return the width in pixels of a line of text, whose letters have `size` points."""
    font = FontProperties(size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return math.ceil(1.02 * width * DPI / 72)  # rendered letters are a little wider


# ---------------------------------------------------------------- figures


def samples(
    images: NDArray,
    labels: NDArray | None,
    classes: Sequence[str],
    guidance_text: str = "",
) -> Figure:
    """Draw generated images, at most SHOWN of them.

    Args:
        images: (N, C, H, W) in [-1, 1].
        labels: the condition (N,) of each image, if any; each row then holds one label.
        classes: the names of the labels.
        guidance_text: how sampling was guided, in words for the title.
    """
    total = len(images)
    grid = arranged(min(total, SHOWN), labels, classes)
    count = f"{total:,} images"
    if total > SHOWN:
        count = f"the first {SHOWN} of {total:,} images"
    title = f"{count} made by the network"
    if grid.names:
        title += "\neach row is conditioned on the label at its left"
    if guidance_text:
        title += f", {guidance_text}"
    return Sheet(grid_picture(images[:SHOWN], grid), title, grid.names).figure


def data(images: NDArray, labels: ArrayLike | None, classes: Sequence[str], title: str) -> Figure:
    """Draw real images (N, C, H, W), with labels (N,) in rows of one label each."""
    grid = arranged(len(images), labels, classes)
    return Sheet(grid_picture(images, grid), title, grid.names).figure


def beside_real(generated: NDArray, real: NDArray) -> Figure:
    """Draw generated images at the left and as many real, unseen ones at the right.

    Args:
        generated, real: (N, C, H, W) in [-1, 1]; at most COMPARED of each are shown.
    """
    count = min(COMPARED, len(generated), len(real))
    grid = arranged(count)
    left = grid_picture(generated[:count], grid)
    right = grid_picture(real[:count], grid)
    background = np.multiply(255, to_rgb(paper()))
    between = np.full((len(left), BETWEEN_GRIDS, 3), background, np.uint8)
    title = f"left: {count} of {len(generated):,} generated images; right: {count} real ones, never seen in training"
    return Sheet(np.concatenate([left, between, right], 1), title).figure


def table(
    images: NDArray,
    title: str,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    side: int = 56,
) -> Figure:
    """Draw images (R, K, C, H, W) in rows and columns that have names."""
    return Sheet(table_picture(images, side), title, rows, columns).figure


def forward_strip(states: NDArray, steps: Sequence[int]) -> Figure:
    """Draw the forward process (S, N, C, H, W) of a few images, one in each row.

    Args:
        states: states[i] are the images after steps[i] forward steps.
        steps: numbers of forward steps, rising to T.
    """
    title = f"forward process: clean images after 0, pure noise after {steps[-1]} forward steps"
    return table(states.swapaxes(0, 1), title, columns=_step_names(steps), side=STRIP_SIDE)


def schedules(states: Mapping[str, Sequence[NDArray]], steps: Sequence[int]) -> Figure:
    """Draw the same image with the same noise under every schedule.

    Args:
        states: states[name][i] is the image (C, H, W) after steps[i] forward steps.
        steps: numbers of forward steps.
    """
    title = "the same image with the same noise, under every schedule"
    images = np.array([*states.values()])
    return table(images, title, list(states), _step_names(steps), side=STRIP_SIDE)


def _step_names(steps: Sequence[int]) -> list[str]:
    return [f"step {step}" for step in steps]
