"""Point sets that are drawings: the letters of a text, or the dark pixels of a picture.

Each dark pixel is one Gaussian of the mixture.
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from images.decoding import read_image
from points.fonts import Face, find_face, is_invisible, missing_letters, missing_sentence, sized_font
from points.mixture import GaussianMixture

MAX_PIXELS = 4000  # dark pixels; a drawing with more is drawn in a smaller font, or averaged
WHITE_LEVEL = 0.05  # darkness up to which a pixel is white: JPEG leaves such traces
MAX_FONT_SIZE = 48  # pixels
MIN_FONT_SIZE = 10


def text(noise: float, text: str, font: str | None = None) -> list[GaussianMixture]:
    """Return a text's letters as one mixture, with one Gaussian for each dark pixel.

    The text is written as large as MAX_PIXELS allow. A line of text has height 1.

    Args:
        noise: standard deviation in pixels.
        text: what is written; "\\n" begins a new line.
        font: a font file, or the family of an installed font; default: DejaVu Sans.

    Raises:
        ValueError: nothing to draw, letters that the font does not have, too much text, or no such
            font.
    """
    face = find_face(font)
    _check_letters(text, face)
    if len(text) <= MAX_PIXELS:
        for size in range(MAX_FONT_SIZE, MIN_FONT_SIZE - 1, -2):
            ink = _written(text, face, size)
            dark_pixels = (ink > WHITE_LEVEL).sum()
            if dark_pixels == 0:
                raise ValueError(f"dataset.text={text!r} holds no letter that can be drawn")
            if dark_pixels <= MAX_PIXELS:
                return [_pixel_mixture(ink, 1 / size, noise)]
    advice = f"shorten its {len(text):,} letters"
    raise ValueError(f"dataset.text is too long to be drawn with {MAX_PIXELS:,} pixels: {advice}")


def _check_letters(text: str, face: Face) -> None:
    if not any(not letter.isspace() and not is_invisible(letter) for letter in text):
        advice = "set for example dataset.text=HELLO"
        raise ValueError(f"dataset.text holds no letter that can be drawn: {advice}")
    largest = sized_font(face, MAX_FONT_SIZE)
    missing = missing_letters(text, largest)
    if missing:
        raise ValueError(missing_sentence(missing, largest))


def _written(text: str, face: Face, size: int) -> np.ndarray:
    """Return the darkness (H, W) of a text that is written black on white, or in its colours.

    A font of bitmaps has a single size. Its text is reduced to the size that is asked for.
    """
    font = sized_font(face, size)
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font)
    left = math.floor(box[0])
    top = math.floor(box[1])
    width = max(1, math.ceil(box[2]) - left)
    height = max(1, math.ceil(box[3]) - top)
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    draw.multiline_text((-left, -top), text, fill="black", font=font, embedded_color=True)
    if font.size != size:
        ratio = size / font.size
        smaller = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        page = page.resize(smaller, Image.Resampling.BOX)
    return 1 - np.asarray(page.convert("L")) / 255


def picture(noise: float, path: str | None) -> list[GaussianMixture]:
    """Return a picture's dark pixels as one mixture, weighted by their darkness.

    The longer side of the picture spans -1 to 1. If more than MAX_PIXELS are dark, the picture is
    reduced by averaging squares of pixels.

    Args:
        noise: standard deviation, in pixels of the reduced picture.
        path: an image file.

    Raises:
        ValueError: no path, a file that is not a picture, or a picture without dark pixels.
        FileNotFoundError: no such file.
    """
    if not path:
        advice = "a picture with something dark on white"
        raise ValueError(f"dataset=picture needs dataset.path=FILE, {advice}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    try:
        pixels = read_image(path)
    except Exception as error:  # decoders raise many types of errors
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error

    darkness = 1 - pixels.mean(0, dtype=np.float32) / 255
    ink = _reduced(darkness)
    if not (ink > WHITE_LEVEL).any():
        raise ValueError(f"{path} holds no dark pixels: all of it is white")
    return [_pixel_mixture(ink, 2 / max(ink.shape), noise)]


def _reduced(darkness: np.ndarray) -> np.ndarray:
    """Average squares of pixels (H, W) until at most MAX_PIXELS are dark."""
    original = Image.fromarray(darkness)
    longest = max(original.size)
    side = longest  # of the reduced picture: the longer one, which shrinks in every round
    ink = np.asarray(original)
    while True:
        dark_pixels = int((ink > WHITE_LEVEL).sum())
        if dark_pixels <= MAX_PIXELS:
            return ink
        estimate = int(side * math.sqrt(MAX_PIXELS / dark_pixels))
        side = min(side - 1, estimate)
        width = max(1, round(original.width * side / longest))
        height = max(1, round(original.height * side / longest))
        ink = np.asarray(original.resize((width, height), Image.Resampling.BOX))


def _pixel_mixture(ink: np.ndarray, side: float, noise: float) -> GaussianMixture:
    """Return a mixture with one Gaussian at the centre of each dark pixel.

    Args:
        ink: darkness in 0..1, shape (H, W). The centre of the array becomes the origin, and y
            points up.
        side: of a pixel, in data units.
        noise: standard deviation, in pixels.
    """
    row, column = (ink > WHITE_LEVEL).nonzero()
    height, width = ink.shape
    x = column - (width - 1) / 2
    y = (height - 1) / 2 - row
    centres = np.stack([x, y], 1) * side
    darkness = ink[row, column].astype(np.float64)
    weights = darkness / darkness.sum()
    variance = (noise * side) ** 2
    return GaussianMixture(torch.from_numpy(centres), variance, torch.from_numpy(weights))
