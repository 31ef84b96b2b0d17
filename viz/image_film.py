"""Short films of images: a grid of them turns from noise into pictures, or back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metrics.scene import Process
from viz import films as animation
from viz.image_grids import Sheet, grid_picture
from viz.tiles import arranged

LASTS_S = 4  # at least; few states are shown more slowly
PIXELS, FRAMES, COLOURS = 60_000, 40, 20  # noise does not compress: pixels of all images, frames, shades
TITLES = {"forward": "forward: images to noise", "reverse": "reverse: noise to images"}
NAMED = " of the label at the left"


def check_options(track_samples: list[int] | None, save_trajectory: bool) -> None:
    """Raises ValueError where options of points are given to images."""
    if track_samples or save_trajectory:
        raise ValueError("track_samples and save_trajectory belong to points; images have their film and recording")


def save(process: Process, labels: NDArray | None, classes: list[str], folder: Path, kind: str) -> None:
    """The film of a process in a run folder, where one is asked for: kind is none, gif or mp4."""
    if kind != "none":
        print(f"animation:  {animate(process, labels, classes, folder / f'{process.side}.{kind}')}")


def animate(process: Process, labels: NDArray | None, classes: list[str], path: Path) -> Path:
    """Write the film of a process of images (S, N, C, H, W) to FILE.gif or FILE.mp4. Raises OSError where it cannot."""
    pictures = list(frames(process, labels, classes))
    frames_per_s = min(animation.FRAMES_PER_S, -(-len(pictures) // LASTS_S))
    return animation.write(pictures, path, frames_per_s, colours=COLOURS)


def frames(process: Process, labels: NDArray | None, classes: list[str]) -> Iterator[NDArray[np.uint8]]:
    """The pictures (H, W, 3): states evenly chosen, in rows of one class each where there are labels."""
    s, n, _, h, w = process.states.shape
    n = min(n, max(16, PIXELS // (h * w)))
    grid = arranged(n, labels, classes)
    side = 36 if len(grid.cells) > 6 else 60
    sheet = None
    for i in np.linspace(0, s - 1, min(s, FRAMES)).round().astype(int):
        picture = grid_picture(process.states[i, :n], grid, side)
        what = TITLES[process.side] + (NAMED if grid.names else "")
        title = f"{what}\nnoised {process.steps[i]} times"
        sheet = sheet or Sheet(picture, title, grid.names)
        yield sheet.turn(picture, title)
