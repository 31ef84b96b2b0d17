"""The film of a process of images: a grid, with labels in rows of one class each."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from viz.films.film_files import Frame
from viz.films.film_moments import noise_words, playing
from viz.image_grids import Sheet, arranged, grid_picture
from viz.scene import HELD_S, LASTS_S, Scene

FRAMES_PER_S = 5
COLOURS = 20  # of the palette: noise is hard to compress, and so are many colours
TITLES = {"forward": "forward: images to noise", "reverse": "reverse: noise to images"}
MAX_PIXELS = 60_000  # of all images together
MIN_IMAGES = 16  # are shown even where they have more pixels
SMALL_SIDE = 36  # pixels of an image in a grid of many rows
LARGE_SIDE = 60  # and in one of at most FEW_ROWS
FEW_ROWS = 6


def frames(scene: Scene) -> Iterator[Frame]:
    """Yield a picture for each state, shown until the next begins; the last is held.

    The film takes LASTS_S and HELD_S seconds.
    """
    picture = painter(scene)
    seconds = scene.seconds(scene.processes[0])
    moments = {round(FRAMES_PER_S * float(second)) for second in seconds}
    end = round((LASTS_S + HELD_S) * FRAMES_PER_S)
    for frame, next_frame in pairwise([*sorted(moments), end]):
        yield picture(frame / FRAMES_PER_S), next_frame - frame


def how_many(images: int, pixels: int, kinds: int) -> int:
    """Return how many images a film shows.

    Args:
        images: how many there are.
        pixels: of one image.
        kinds: the number of classes, of each of which equally many are shown if possible.
    """
    fit = min(images, max(MIN_IMAGES, MAX_PIXELS // pixels))
    if fit > kinds:
        return fit - fit % kinds
    return fit


def painter(scene: Scene) -> Callable[[float], NDArray[np.uint8]]:
    """Return a function of the second that gives the picture (H, W, 3)."""
    process = scene.processes[0]
    _, count, _, height, width = process.states.shape
    kinds = 1 if scene.labels is None else len(np.unique(scene.labels))
    count = how_many(count, height * width, kinds)
    grid = arranged(count, scene.labels, scene.classes)
    side = SMALL_SIDE if len(grid.cells) > FEW_ROWS else LARGE_SIDE
    heading = TITLES[process.side]
    if grid.names:
        heading += " of the label at the left"
    if scene.guidance_text:
        heading += f", {scene.guidance_text}"
    sheet = None

    def picture(second: float) -> NDArray[np.uint8]:
        nonlocal sheet
        i = playing(scene, process, second)
        tiles = grid_picture(process.states[i, :count], grid, side)
        title = f"{heading}\n{noise_words(int(process.steps[i]))}"
        if sheet is None:
            sheet = Sheet(tiles, title, grid.names)
        return sheet.turn(tiles, title)

    return picture
