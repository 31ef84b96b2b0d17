"""Pictures made of light: thin lines and dots on a dark ground, whose brightness adds up where they cross."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from viz.style import NIGHT

Light = NDArray[np.float32]  # (H, W, 3), 0 where it is dark, without an upper end

STEP = 0.5  # pixels between the drops that a line is made of
GLOW, GLOW_SIZE, COARSE = 0.35, 10.0, 4  # share of the light that spreads; over so many pixels; drawn so much coarser
GROUND = np.array([int(NIGHT[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def dark(height: int, width: int) -> Light:
    return np.zeros((height, width, 3), np.float32)


def drop(light: Light, at: NDArray, colours: NDArray) -> None:
    """Add light `colours` (K, 3) at places `at` (K, 2), x to the right and y down in pixels, in place.

    Each is shared between the four pixels around it. What falls outside of the picture is lost.
    """
    height, width, _ = light.shape
    corner = np.floor(at - 0.5).astype(np.int64)
    right, down = (at - 0.5 - corner).T
    for i, across in ((0, 1 - right), (1, right)):
        for j, along in ((0, 1 - down), (1, down)):
            x, y = corner[:, 0] + i, corner[:, 1] + j
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            place, share = ((y * width + x) * 3)[inside], (across * along)[inside]
            for channel in range(3):
                np.add.at(light.reshape(-1), place + channel, (share * colours[inside, channel]).astype(np.float32))


def stroke(light: Light, start: NDArray, end: NDArray, colours: NDArray, step: float = STEP) -> None:
    """Add straight lines from `start` to `end`, both (K, 2), of light `colours` (K, 3) per pixel of their length."""
    length = np.linalg.norm(end - start, axis=1)
    count = np.maximum(1, np.ceil(length / step)).astype(np.int64)
    row = np.repeat(np.arange(len(start)), count)
    share = (np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[row]
    drop(light, start[row] + share[:, None] * (end - start)[row], (colours * (length / count)[:, None])[row])


def dots(light: Light, at: NDArray, colours: NDArray, radius: float) -> None:
    """Add round dots of light `colours` (K, 3) in their middle, whose brightness falls as a Gaussian's."""
    reach = int(np.ceil(2.5 * radius))
    for dx in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            drop(light, at + [dx, dy], colours * np.exp(-(dx**2 + dy**2) / (2 * radius**2)))


def developed(light: Light) -> NDArray[np.uint8]:
    """The picture (H, W, 3): with a glow around what is bright, over the ground."""
    return exposed(light + GLOW * _glow(light))


def exposed(light: NDArray) -> NDArray[np.uint8]:
    """The colours (..., 3) that light leaves on the ground; they never quite reach white."""
    return (GROUND + (255 - GROUND) * (1 - np.exp(-light)) + 0.5).astype(np.uint8)


def _glow(light: Light) -> Light:
    """The light spread by a Gaussian, computed on fewer pixels, as nothing in it is sharp."""
    height, width, _ = light.shape
    h, w = height // COARSE, width // COARSE
    coarse = light[: h * COARSE, : w * COARSE].reshape(h, COARSE, w, COARSE, 3).mean((1, 3))
    spread = gaussian_filter(coarse, (GLOW_SIZE / COARSE, GLOW_SIZE / COARSE, 0))
    planes = [Image.fromarray(spread[..., c]).resize((width, height), Image.Resampling.BILINEAR) for c in range(3)]
    return np.stack([np.asarray(plane) for plane in planes], -1)
