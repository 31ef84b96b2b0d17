"""Pictures made of light: thin lines and dots on a dark ground. Light adds up where they cross."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from viz.style import NIGHT

Light = NDArray[np.float32]  # (H, W, 3): 0 is dark, and there is no upper end

DROP_SPACING = 0.5  # pixels between the drops of light that form a line
GLOW = 0.35  # share of the light that spreads
GLOW_SIZE = 10.0  # standard deviation, in pixels, of the Gaussian by which it spreads
GLOW_PIXEL = 4  # the glow is computed on squares of so many pixels, because nothing in it is sharp
GROUND = np.array([int(NIGHT[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def dark(height: int, width: int) -> Light:
    """Return a picture without light."""
    return np.zeros((height, width, 3), np.float32)


def drop(light: Light, at: NDArray, colours: NDArray) -> None:
    """Add light at single places of a picture, in place.

    Each drop is shared among the four pixels around it (bilinear weights). Drops outside of the
    picture are lost.

    Args:
        light: the picture.
        at: (K, 2), in pixels: x to the right and y down.
        colours: (K, 3), the amount of light.
    """
    corner = np.floor(at - 0.5).astype(np.int64)
    right, down = (at - 0.5 - corner).T
    for dx, weight_x in ((0, 1 - right), (1, right)):
        for dy, weight_y in ((0, 1 - down), (1, down)):
            _add(light, corner + [dx, dy], weight_x * weight_y, colours)


def _add(light: Light, pixels: NDArray, weights: NDArray, colours: NDArray) -> None:
    """Add weights (K,) times colours (K, 3) to pixels (K, 2), those within the picture."""
    height, width, _ = light.shape
    x, y = pixels.T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = ((y * width + x) * 3)[inside]
    weight = weights[inside]
    flat = light.reshape(-1)
    for channel in range(3):
        amount = weight * colours[inside, channel]
        np.add.at(flat, place + channel, amount.astype(np.float32))


def stroke(
    light: Light,
    start: NDArray,
    end: NDArray,
    colours: NDArray,
    spacing: float = DROP_SPACING,
) -> None:
    """Add straight lines to a picture, in place: each is a row of drops of equal light.

    Args:
        light: the picture.
        start, end: (K, 2), in pixels.
        colours: (K, 3), light per pixel of a line's length.
        spacing: pixels between two drops, at most.
    """
    length = np.linalg.norm(end - start, axis=1)
    count = np.maximum(1, np.ceil(length / spacing)).astype(np.int64)

    # One row for each drop: its line, and how far along that line it lies.
    line = np.repeat(np.arange(len(start)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    share = (np.arange(len(line)) - first + 0.5) / count[line]

    places = start[line] + share[:, None] * (end - start)[line]
    light_per_drop = colours * (length / count)[:, None]
    drop(light, places, light_per_drop[line])


def dots(light: Light, at: NDArray, colours: NDArray, radius: float) -> None:
    """Add round dots whose brightness falls as a Gaussian's, in place.

    Args:
        light: the picture.
        at: (K, 2), in pixels.
        colours: (K, 3), light in the middle of a dot.
        radius: standard deviation in pixels.
    """
    reach = int(np.ceil(2.5 * radius))
    for dx in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            brightness = np.exp(-(dx**2 + dy**2) / (2 * radius**2))
            drop(light, at + [dx, dy], colours * brightness)


def developed(light: Light) -> NDArray[np.uint8]:
    """Return the bytes (H, W, 3) of a picture, with a glow around what is bright."""
    return exposed(light + GLOW * _glow(light))


def exposed(light: NDArray) -> NDArray[np.uint8]:
    """Return the bytes (..., 3) of light (..., 3) on the ground; they never quite reach white."""
    return (GROUND + (255 - GROUND) * (1 - np.exp(-light)) + 0.5).astype(np.uint8)


def _glow(light: Light) -> Light:
    """Return the light spread by a Gaussian, (H, W, 3)."""
    height, width, _ = light.shape
    rows = height // GLOW_PIXEL
    columns = width // GLOW_PIXEL
    whole = light[: rows * GLOW_PIXEL, : columns * GLOW_PIXEL]
    coarse = whole.reshape(rows, GLOW_PIXEL, columns, GLOW_PIXEL, 3).mean((1, 3))

    size = GLOW_SIZE / GLOW_PIXEL
    spread = gaussian_filter(coarse, (size, size, 0))
    planes = []
    for channel in range(3):
        plane = Image.fromarray(spread[..., channel])
        planes.append(np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)))
    return np.stack(planes, -1)
