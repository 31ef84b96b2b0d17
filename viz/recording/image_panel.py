"""Grids of images: x_t and, in reverse, the guesses of x_0. Logged pixel by pixel; the viewer enlarges them sharply."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from viz.colours import LABEL
from viz.image_grids import Grid, arranged, pixels, tiled
from viz.recording.panel import NIGHT, Panel, Words, clocks
from viz.scene import Scene

GAP_SHARE = 0.12  # of an image's side
LETTER_SHARE = 0.3  # of an image's side: what is left free for each letter of a name
NAMES = {"forward": "Forward: x_t, images to noise", "reverse": "x_t: from noise to images"}
GUESS = "x_0: the network's guess of the end"


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """SIDE/x_t and, where there are guesses, SIDE/x_0, on all clocks; the rows' names beside each."""
    process, grid = scene.processes[0], _grid(scene)
    films = {"x_t": process.states} | ({} if scene.guesses is None else {"x_0": scene.guesses[1]})
    for name, states in films.items():
        _log_film(rec, f"{process.side}/{name}", scene, _pictures(states, grid))
        if grid.names:
            _log_names(rec, f"{process.side}/{name}/names", scene)


def _grid(scene: Scene) -> Grid:
    return arranged(scene.processes[0].states.shape[1], scene.labels, scene.classes)


def _size(scene: Scene) -> tuple[int, int, int]:
    """Height and width of a picture, and of the margin for names at its left, in pixels."""
    (h, w), grid = scene.processes[0].states.shape[-2:], _grid(scene)
    (rows, columns), gap = grid.cells.shape, _gap(h, w)
    margin = round(LETTER_SHARE * max(h, w) * max(map(len, grid.names), default=0))
    return rows * (h + gap) + gap, columns * (w + gap) + gap, margin


def _gap(h: int, w: int) -> int:
    return max(1, round(GAP_SHARE * max(h, w)))


def _pictures(states: NDArray, grid: Grid) -> NDArray[np.uint8]:
    """(S, H', W', 1 or 3): a picture of the whole grid for each state."""
    tiles = pixels(states)
    ground = NIGHT if tiles.shape[-1] == 3 else NIGHT[:1]
    return np.stack([tiled(some, grid.cells, _gap(*states.shape[-2:]), ground) for some in tiles])


def _log_film(rec: rr.RecordingStream, entity: str, scene: Scene, pictures: NDArray[np.uint8]) -> None:
    """One picture for each state, on all clocks."""
    _, height, width, channels = pictures.shape
    model = rr.ColorModel.L if channels == 1 else rr.ColorModel.RGB
    style = rr.components.ImageFormat(width, height, color_model=model, channel_datatype=rr.ChannelDatatype.U8)
    rec.log(entity, rr.Image.from_fields(format=style, magnification_filter="nearest"), static=True)
    columns = rr.Image.columns(buffer=[picture.tobytes() for picture in pictures])
    rec.send_columns(entity, indexes=clocks(scene, scene.processes[0]), columns=columns)


def _log_names(rec: rr.RecordingStream, entity: str, scene: Scene) -> None:
    """The rows' names at their left."""
    (height, _, margin), names = _size(scene), _grid(scene).names
    y = (np.arange(len(names)) + 0.35) * height / len(names)  # the viewer writes a little below a point
    where = np.stack([np.full(len(names), -margin / 2), y], 1)
    rec.log(entity, rr.Points2D(where, labels=names, colors=LABEL, radii=0.0, show_labels=True), static=True)


def views(scene: Scene) -> list[rrb.View]:
    side, (height, width, margin) = scene.processes[0].side, _size(scene)
    gap = 0.03 * max(height, width)
    bounds = rrb.VisualBounds2D(x_range=[-margin - gap, width + gap], y_range=[-gap, height + gap])
    names = {"x_t": NAMES[side]} | ({} if scene.guesses is None else {"x_0": GUESS})
    style = {"background": NIGHT, "visual_bounds": bounds}
    return [rrb.Spatial2DView(origin=f"/{side}/{of}", name=name, **style) for of, name in names.items()]


def words(scene: Scene) -> Words:
    if scene.processes[0].side == "forward":
        sees = ["**Forward**: each step adds a little noise to every pixel, until nothing of the images is left."]
        tries = ["Until when can you still recognise the images? That is where the network has its work to do."]
    else:
        sees = [
            "**Left**, x_t: pure noise becomes images, step by step.",
            "**Right**, the guess of x_0: what the network, given only x_t, believes is under the noise.",
        ]
        tries = [
            "Early on, the guess is a blurred mean of all that is still possible. When does it make up its mind?",
            "Switch the clock to `t` and play: the images dissolve into noise again.",
        ]
    rows = [f"{scene.row_words}, {scene.steered}." if scene.steered else f"{scene.row_words}."]
    return Words(sees + rows * (scene.labels is not None), tries)


PANEL = Panel(lambda scene: scene.of_images, log, views=views, words=words)
