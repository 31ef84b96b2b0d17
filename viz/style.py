"""The background of figures and films, light or dark, and the colours that follow from it."""

import re
from collections.abc import Sequence
from typing import SupportsInt

import numpy as np
from matplotlib import rcdefaults, rcParams, style
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray

STYLES = {"light": "default", "dark": "dark_background"}
COLOURFUL = 80  # between the channels of a pixel: from there on it is a colour, and no grey
NIGHT = "#0d1016"  # a soft black, which is also the background of recordings
NIGHT_GRID = "#5a6170"  # fainter than the curves, as on a light background


def use(name: str) -> None:
    """Draw every later figure in one style.

    Args:
        name: a key of STYLES.
    """
    rcdefaults()
    style.use(STYLES[name])
    if name == "dark":
        rcParams["figure.facecolor"] = NIGHT
        rcParams["axes.facecolor"] = NIGHT
        rcParams["savefig.facecolor"] = NIGHT
        rcParams["grid.color"] = NIGHT_GRID
    rcParams["svg.fonttype"] = "none"  # text remains text, which can be searched and edited
    rcParams["pdf.fonttype"] = 42  # the same for PDF


def literal(text: str) -> str:
    """Return a text of the user, such as a label, that matplotlib shows as it is.

    A `$` begins no formula. Legends leave out what begins with `_`, so a space comes before that.
    """
    shown = f" {text}" if text.startswith("_") else text
    return shown.replace("$", r"\$")


def literal_markdown(text: str) -> str:
    """Return a text of the user that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!<>&|~$])", r"\\\1", text)


def shortened(text: str, letters: int) -> str:
    """Return a text of the user in one line of at most so many letters; of a longer one the middle is left out."""
    line = " ".join(text.split())
    if len(line) <= letters:
        return line
    end = letters // 3
    return f"{line[: letters - end - 1]}…{line[-end:]}"


def label_text(classes: Sequence[str], label: SupportsInt) -> str:
    """Return 'label NAME' for an index into the names of the labels."""
    return f"label {literal(classes[int(label)])}"


def ink() -> str:
    """Return the colour of text and axes: black on a light background, white on a dark one."""
    return str(rcParams["text.color"])


def paper() -> str:
    """Return the colour of the background."""
    return str(rcParams["figure.facecolor"])


def is_dark() -> bool:
    """Whether figures have a dark background."""
    return ink() != "black"


def greys() -> str:
    """Return the name of a colour map from the colour of the background to its opposite."""
    return "Greys_r" if is_dark() else "Greys"


def darkened(pixels: NDArray[np.uint8], keep: ArrayLike) -> NDArray[np.uint8]:
    """Return a picture on a white ground as it looks on a dark one: white becomes NIGHT, colours stay.

    Args:
        pixels: (H, W, 3).
        keep: the colour between the images of a grid. The grid, as far as this colour reaches, stays as it is.
    """
    colours = pixels.astype(float)
    luma = colours @ [0.299, 0.587, 0.114]
    night = 255 * np.array(to_rgb(NIGHT))
    flipped = np.maximum(colours + (255 - 2 * luma)[..., None], night)
    share = (np.ptp(colours, axis=-1, keepdims=True) / COLOURFUL).clip(0, 1)
    dark = (share * colours + (1 - share) * flipped).clip(0, 255).astype(np.uint8)
    rows, columns = np.nonzero((pixels == np.asarray(keep, np.uint8)).all(2))
    if len(rows):
        grid = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        between_grids = (pixels[grid] == 255).all((0, 2))  # white columns, which belong to the ground
        dark[grid] = np.where(between_grids[None, :, None], dark[grid], pixels[grid])
    return dark
