"""What is drawn as a point set: a text's letters, a picture's dark pixels. Each pixel is a Gaussian of the mixture."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from images.image_files import read_image
from points.mixture import GaussianMixture

MOST = 4000  # pixels: a drawing with more is drawn or averaged more coarsely
PAPER = 0.05  # darkness up to which a pixel counts as white, such as a JPEG's traces
LARGEST, SMALLEST = 48, 10  # font sizes, in pixels


def text(noise: float, text: str) -> list[GaussianMixture]:
    """The ink of a text's letters in Pillow's own font, as large as MOST pixels allow; a line is 1 high.

    noise: standard deviation, in pixels.

    Raises:
        ValueError: nothing to draw, a letter that the font does not have, or too much text.
    """
    unknown = _written("\U0010ffff", LARGEST).tobytes()
    if missing := [c for c in text if not c.isspace() and _written(c, LARGEST).tobytes() == unknown]:
        raise ValueError(f"dataset.text cannot be drawn: the font has no {missing[0]!r}; use Latin letters")
    if not text.strip():
        raise ValueError("dataset.text holds no letter that can be drawn: set for example dataset.text=HELLO")
    if len(text) <= MOST:
        for size in range(LARGEST, SMALLEST - 1, -2):
            ink = np.asarray(_written(text, size)) / 255
            if not (ink > PAPER).any():
                raise ValueError(f"dataset.text={text!r} holds no letter that can be drawn")
            if (ink > PAPER).sum() <= MOST:
                return [_pixels(ink, 1 / size, noise)]
    raise ValueError(f"dataset.text is too long to be drawn with {MOST:,} pixels: shorten its {len(text):,} letters")


def _written(text: str, size: int) -> Image.Image:
    """Grey, white on black."""
    font = ImageFont.load_default(size)
    box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font)
    left, top, right, bottom = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
    page = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(page).multiline_text((-left, -top), text, fill=255, font=font)
    return page


def picture(noise: float, path: str | None) -> list[GaussianMixture]:
    """A picture's dark pixels, each with its darkness as weight; its longer side spans -1 to 1.

    Where more than MOST pixels are dark, squares of them are averaged. noise: standard deviation, in pixels then.

    Raises:
        ValueError: no path, a file that is not a picture, or a picture without dark pixels.
        FileNotFoundError: no such file.
    """
    if not path:
        raise ValueError("dataset=picture needs dataset.path=FILE, a picture with something dark on white")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    try:
        pixels = read_image(path)
    except Exception as error:  # decoders raise all sorts of errors
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    whole = Image.fromarray(1 - pixels.mean(0, dtype=np.float32) / 255)
    ink, width = np.asarray(whole), whole.width
    while (count := int((ink > PAPER).sum())) > MOST:
        width = max(1, min(width - 1, int(width * math.sqrt(MOST / count))))
        height = max(1, round(whole.height * width / whole.width))
        ink = np.asarray(whole.resize((width, height), Image.Resampling.BOX))
    if not count:
        raise ValueError(f"{path} holds no dark pixels: all of it is white")
    return [_pixels(ink, 2 / max(ink.shape), noise)]


def _pixels(ink: np.ndarray, side: float, noise: float) -> GaussianMixture:
    """Darkness (H, W) in 0..1 as a mixture around the pixels' middles, (0, 0) in the middle of all; y points up."""
    row, column = (ink > PAPER).nonzero()
    height, width = ink.shape
    middles = np.stack([column - (width - 1) / 2, (height - 1) / 2 - row], 1) * side
    weights = ink[row, column].astype(np.float64)
    return GaussianMixture(torch.from_numpy(middles), (noise * side) ** 2, torch.from_numpy(weights / weights.sum()))
