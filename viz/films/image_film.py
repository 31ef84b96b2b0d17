"""The film of a process of images: a grid of them, in rows of one class each where they have labels."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from viz.films.film_files import Frame
from viz.films.film_moments import noise_words, playing
from viz.image_grids import Sheet, arranged, grid_picture
from viz.scene import HELD_S, LASTS_S, Scene

FRAMES_PER_S, COLOURS = 5, 20  # noise does not compress, nor do many colours
TITLES = {"forward": "forward: images to noise", "reverse": "reverse: noise to images"}
MOST_PIXELS = 60_000  # of all images


def frames(scene: Scene) -> Iterator[Frame]:
    """The film, which lasts LASTS_S and HELD_S: a picture where a state begins, the last one held."""
    picture, end = painter(scene), round((LASTS_S + HELD_S) * FRAMES_PER_S)
    moments = {round(FRAMES_PER_S * float(second)) for second in scene.seconds(scene.processes[0])}
    for now, after in pairwise([*sorted(moments), end]):
        yield picture(now / FRAMES_PER_S), after - now


def how_many(images: int, pixels: int, kinds: int) -> int:
    """How many of so many images of so many pixels a film shows: those that fit, as many of each kind."""
    fit = min(images, max(16, MOST_PIXELS // pixels))
    return fit - fit % kinds if fit > kinds else fit


def painter(scene: Scene) -> Callable[[float], NDArray[np.uint8]]:
    """The picture (H, W, 3) after so many seconds."""
    process = scene.processes[0]
    _, n, _, h, w = process.states.shape
    n = how_many(n, h * w, 1 if scene.labels is None else len(np.unique(scene.labels)))
    grid = arranged(n, scene.labels, scene.classes)
    side = 36 if len(grid.cells) > 6 else 60
    what = TITLES[process.side] + (" of the label at the left" if grid.names else "")
    what += f", {scene.steered}" if scene.steered else ""
    sheet = None

    def picture(seconds: float) -> NDArray[np.uint8]:
        nonlocal sheet
        i = playing(scene, process, seconds)
        tiles = grid_picture(process.states[i, :n], grid, side)
        title = f"{what}\n{noise_words(int(process.steps[i]))}"
        sheet = sheet or Sheet(tiles, title, grid.names)
        return sheet.turn(tiles, title)

    return picture
