"""What a recording of images holds: grids of x_t and, in reverse, of the guesses of x_0, on the clocks of points.

The grids are logged pixel by pixel; the viewer enlarges them without blurring.
"""

import numpy as np
import rerun as rr
from numpy.typing import NDArray

from metrics.scene import Process, Scene
from viz.colours import LABEL
from viz.recording import layout, surroundings, words
from viz.tiles import Grid, pixels, tiled

GAP_SHARE = 0.12  # of an image's side
LETTER_SHARE = 0.3  # of an image's side: what is left free for each letter of a name


def log_images(scene: Scene, grid: Grid, *, rec: rr.RecordingStream) -> None:
    """Record a process of images, states (S, N, C, H, W) in [-1, 1], each at its place in the grid.

    Raises:
        ValueError: NaN, or states that are no images.
    """
    process = scene.processes[0]
    films = {"x_t": _pictures(process.states, grid)}
    if scene.guesses is not None:
        films["x_0"] = _pictures(scene.guesses[1], grid)
    height, width = films["x_t"].shape[1:3]
    side = max(process.states.shape[-2:])
    margin = round(LETTER_SHARE * side * max(map(len, grid.names), default=0))
    rec.send_blueprint(layout.of_images(scene, height, width, margin))
    for name, pictures in films.items():
        _log_film(rec, f"{process.side}/{name}", process, pictures)
        if grid.names:
            _log_names(rec, f"{process.side}/{name}/names", grid.names, height, margin)
    surroundings.log_curves(rec, scene)
    surroundings.log_words(rec, scene, words.about_images(scene, named=bool(grid.names)))


def _pictures(states: NDArray, grid: Grid) -> NDArray[np.uint8]:
    """(S, H', W', 1 or 3): a picture of the whole grid for each state."""
    tiles = pixels(states)
    gap = max(1, round(GAP_SHARE * max(states.shape[-2:])))
    ground = layout.NIGHT if tiles.shape[-1] == 3 else layout.NIGHT[:1]
    return np.stack([tiled(some, grid.cells, gap, ground) for some in tiles])


def _log_film(rec: rr.RecordingStream, entity: str, process: Process, pictures: NDArray[np.uint8]) -> None:
    """One picture for each state, on both clocks."""
    _, height, width, channels = pictures.shape
    model = rr.ColorModel.L if channels == 1 else rr.ColorModel.RGB
    style = rr.components.ImageFormat(width, height, color_model=model, channel_datatype=rr.ChannelDatatype.U8)
    rec.log(entity, rr.Image.from_fields(format=style, magnification_filter="nearest"), static=True)
    columns = rr.Image.columns(buffer=[picture.tobytes() for picture in pictures])
    rec.send_columns(entity, indexes=surroundings.clocks(process.story, process.steps), columns=columns)


def _log_names(rec: rr.RecordingStream, entity: str, names: list[str], height: int, margin: int) -> None:
    """The rows' names at their left."""
    y = (np.arange(len(names)) + 0.35) * height / len(names)  # the viewer writes a little below a point
    where = np.stack([np.full(len(names), -margin / 2), y], 1)
    rec.log(entity, rr.Points2D(where, labels=names, colors=LABEL, radii=0.0, show_labels=True), static=True)
