"""Images beside each other: which one goes where, the pixels of them all, and stills with names beside them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import ArrayLike, NDArray

from runtime.arrays import numbers
from viz.colours import GROUND
from viz.style import paper

DPI = 120  # that of stills.save, so that a tile's pixel becomes a whole number of the picture's
SHOWN = 400  # images in a grid, at most
TITLE, NAME, LINE = 10, 8, 20  # points; pixels from one line of the title to the next
GAP = 3
NARROWEST, WIDER = 420, 1.2  # pixels that a title may have in any case, and how much wider than the picture it may be


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
    values = numbers(images, "images")
    values = (values if values.is_floating_point() else values.float()).numpy()
    if values.ndim < 3 or not values.size:
        raise ValueError(f"images have shape (..., C, H, W), not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("the images hold NaN or infinity: there is nothing to show")
    shown = np.moveaxis(values[..., :3, :, :], -3, -1)
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


def grid_picture(images: ArrayLike, grid: Grid, side: int = 44) -> NDArray[np.uint8]:
    """Images (N, C, H, W) in [-1, 1] at their cells, each about `side` pixels large: (H', W', 3)."""
    tiles = scaled(pixels(images), side)
    return tiled(np.broadcast_to(tiles, (*tiles.shape[:-1], 3)), grid.cells, GAP, GROUND)


# ---------------------------------------------------------------- sheets


class Sheet:
    """A matplotlib Figure of tiles, drawn pixel by pixel; `turn` changes what it shows, quickly.

    picture: (H, W, 3) as `tiled` makes it. rows, columns: their names, or none. title: may have several lines.
    """

    def __init__(
        self, picture: NDArray[np.uint8], title: str, rows: Sequence[str] = (), columns: Sequence[str] = ()
    ) -> None:
        height, width = picture.shape[:2]
        left = 14 + max((_width(line, NAME) for name in rows for line in name.split("\n")), default=0)
        self.widest = max(NARROWEST, WIDER * (left + width))
        lines = _broken(title, self.widest)
        top = 16 + LINE * (len(lines) + bool(columns))
        whole = max(left + width + 14, 28 + max(_width(line, TITLE) for line in lines)), top + height + 14
        self.figure = Figure(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        box = (left / whole[0], 14 / whole[1], width / whole[0], height / whole[1])
        ax = self.figure.add_axes(box, frameon=False, xticks=[], yticks=[])
        self.image = ax.imshow(picture, interpolation="nearest", aspect="auto")
        at, words = (14 / whole[0], 1 - 10 / whole[1]), "\n".join(lines)
        self.title = self.figure.text(*at, words, va="top", size=TITLE, linespacing=1.25)
        for i, name in enumerate(rows):
            at = (i + 0.5) / len(rows) * (height - GAP) + GAP / 2
            ax.text(-7, at, name, ha="right", va="center", size=NAME, linespacing=1.2)
        for i, name in enumerate(columns):
            at = (i + 0.5) / len(columns) * (width - GAP) + GAP / 2
            ax.text(at, -5, name, ha="center", va="bottom", size=NAME)

    def turn(self, picture: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
        """Show another picture of the same shape; returns the pixels of the whole sheet (H, W, 3)."""
        self.image.set_data(picture)
        self.title.set_text("\n".join(_broken(title, self.widest)))
        self.canvas.draw()
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


def _broken(title: str, widest: float) -> list[str]:
    """The lines of a title, and those that are wider than so many pixels broken between words."""
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
    """Pixels that a line of `size` points takes."""
    wide, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return math.ceil(1.02 * wide * DPI / 72)  # on the grid of pixels letters are a little wider


def samples(images: NDArray, labels: NDArray | None, classes: Sequence[str], steered: str = "") -> Figure:
    """Generated images (N, C, H, W), in rows of one class each where they are conditional."""
    grid = arranged(min(len(images), SHOWN), labels, classes)
    count = f"{len(images):,} images" if len(images) <= SHOWN else f"the first {SHOWN} of {len(images):,} images"
    labelled = "\neach row is conditioned on the label at its left" if grid.names else ""
    labelled += f", {steered}" if steered else ""
    return Sheet(grid_picture(images[:SHOWN], grid), f"{count} made by the network{labelled}", grid.names).figure


def data(images: NDArray, labels: ArrayLike | None, classes: Sequence[str], title: str) -> Figure:
    """Real images (N, C, H, W), in rows of one class each where they have labels."""
    grid = arranged(len(images), labels, classes)
    return Sheet(grid_picture(images, grid), title, grid.names).figure


def beside_real(generated: NDArray, real: NDArray) -> Figure:
    """Generated images (N, C, H, W) at the left, as many real unseen ones at the right: 10 x 10 of each at most."""
    count = min(100, len(generated), len(real))
    grid = arranged(count)
    left, right = (grid_picture(images[:count], grid) for images in (generated, real))
    between = np.full((len(left), 24, 3), np.multiply(255, to_rgb(paper())), np.uint8)
    title = f"left: {count} of {len(generated):,} generated images; right: {count} real ones, never seen in training"
    return Sheet(np.concatenate([left, between, right], 1), title).figure


def table(images: NDArray, title: str, rows: Sequence[str] = (), columns: Sequence[str] = (), side: int = 56) -> Figure:
    """Images (R, K, C, H, W) in rows and columns that have names."""
    return Sheet(table_picture(images, side), title, rows, columns).figure


def table_picture(images: NDArray, side: int = 56) -> NDArray[np.uint8]:
    """The tiles of images (R, K, C, H, W), row by row."""
    cells = np.arange(images.shape[0] * images.shape[1]).reshape(images.shape[:2])
    return grid_picture(images.reshape(-1, *images.shape[2:]), Grid(cells, []), side)


def forward_strip(states: NDArray, steps: Sequence[int]) -> Figure:
    """The forward process (S, N, C, H, W) of a few images, a row each, after steps[i] forward steps."""
    title = f"forward process: clean images after 0, pure noise after {steps[-1]} forward steps"
    return table(states.swapaxes(0, 1), title, columns=[f"step {step}" for step in steps], side=72)


def schedules(states: Mapping[str, Sequence[NDArray]], steps: Sequence[int]) -> Figure:
    """The same image and the same noise under every schedule: states[name][i] (C, H, W) after steps[i]."""
    title = "the same image with the same noise, under every schedule"
    return table(np.array([*states.values()]), title, list(states), [f"step {step}" for step in steps], side=72)
