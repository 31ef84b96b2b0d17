"""Grids of images: x_t and, in reverse, the predicted x_0. The viewer enlarges pixels sharply."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from viz.colours import LABEL
from viz.image_grids import Grid, arranged, pixels, tiled
from viz.recording.panel import NIGHT, Panel, Words, time_columns
from viz.scene import Scene

GAP_SHARE = 0.12  # gap between images, as a share of an image's side
LETTER_SHARE = 0.3  # space for each letter of a name, as a share of an image's side
EDGE_SHARE = 0.03  # space around the grid, as a share of its side
TEXT_SHARE = 0.35  # of a row: the height of its name; the viewer writes a little below a point
NAMES = {"forward": "Forward: x_t, images to noise", "reverse": "x_t: from noise to images"}
PREDICTED_NAME = "x_0: the network's prediction of the end"


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """Send SIDE/x_t and, if x_0 is predicted, SIDE/x_0, and the rows' names beside each."""
    side = scene.processes[0].side
    grid = _grid(scene)
    for name, states in _films(scene).items():
        entity = f"{side}/{name}"
        _log_film(rec, entity, scene, _pictures(states, grid))
        if grid.names:
            _log_names(rec, f"{entity}/names", scene)


def _films(scene: Scene) -> dict[str, NDArray]:
    """Return the states (S, N, C, H, W) to show, by the names of their entities."""
    films = {"x_t": scene.processes[0].states}
    if scene.predictions is not None:
        _, films["x_0"] = scene.predictions
    return films


def _grid(scene: Scene) -> Grid:
    """Return which image stands where."""
    count = scene.processes[0].states.shape[1]
    return arranged(count, scene.labels, scene.classes)


def _size(scene: Scene) -> tuple[int, int, int]:
    """Return height and width of a picture, and the width of the names at its left, in pixels."""
    h, w = scene.processes[0].states.shape[-2:]
    grid = _grid(scene)
    rows, columns = grid.cells.shape
    gap = _gap(h, w)
    letters = max((len(name) for name in grid.names), default=0)
    margin = round(LETTER_SHARE * max(h, w) * letters)
    return rows * (h + gap) + gap, columns * (w + gap) + gap, margin


def _gap(h: int, w: int) -> int:
    """Return the pixels between images of that height and width."""
    return max(1, round(GAP_SHARE * max(h, w)))


def _pictures(states: NDArray, grid: Grid) -> NDArray[np.uint8]:
    """Return a picture of the whole grid for each state, (S, H', W', 1 or 3)."""
    tiles = pixels(states)
    ground = NIGHT if tiles.shape[-1] == 3 else NIGHT[:1]
    gap = _gap(*states.shape[-2:])
    return np.stack([tiled(state, grid.cells, gap, ground) for state in tiles])


def _log_film(
    rec: rr.RecordingStream,
    entity: str,
    scene: Scene,
    pictures: NDArray[np.uint8],
) -> None:
    """Send one picture for each state, on all clocks."""
    _, height, width, channels = pictures.shape
    image_format = rr.components.ImageFormat(
        width,
        height,
        color_model=rr.ColorModel.L if channels == 1 else rr.ColorModel.RGB,
        channel_datatype=rr.ChannelDatatype.U8,
    )
    style = rr.Image.from_fields(format=image_format, magnification_filter="nearest")
    rec.log(entity, style, static=True)
    columns = rr.Image.columns(buffer=[picture.tobytes() for picture in pictures])
    time = time_columns(scene, scene.processes[0])
    rec.send_columns(entity, indexes=time, columns=columns)


def _log_names(rec: rr.RecordingStream, entity: str, scene: Scene) -> None:
    """Send the names of the rows, at their left."""
    height, _, margin = _size(scene)
    names = _grid(scene).names
    count = len(names)
    x = np.full(count, -margin / 2)
    y = (np.arange(count) + TEXT_SHARE) * height / count
    text = rr.Points2D(
        np.stack([x, y], 1),
        labels=names,
        colors=LABEL,
        radii=0.0,
        show_labels=True,
    )
    rec.log(entity, text, static=True)


def views(scene: Scene) -> list[rrb.View]:
    """Return a view of x_t, and one of the predicted x_0."""
    side = scene.processes[0].side
    height, width, margin = _size(scene)
    edge = EDGE_SHARE * max(height, width)
    bounds = rrb.VisualBounds2D(
        x_range=[-margin - edge, width + edge],
        y_range=[-edge, height + edge],
    )
    names = {"x_t": NAMES[side], "x_0": PREDICTED_NAME}
    views = []
    for film in _films(scene):
        view = rrb.Spatial2DView(
            origin=f"/{side}/{film}",
            name=names[film],
            background=NIGHT,
            visual_bounds=bounds,
        )
        views.append(view)
    return views


def words(scene: Scene) -> Words:
    """Return what the grids show, and what to try."""
    if scene.processes[0].side == "forward":
        sees = [
            "**Forward**: each step adds a little noise to every pixel, until nothing of the images is left.",
        ]
        tries = [
            "Until when can you still recognise the images? That is where the network has its work to do.",
        ]
    else:
        sees = [
            "**Left**, x_t: pure noise becomes images, step by step.",
            "**Right**, the prediction of x_0: what the network, given only x_t, predicts under the noise.",
        ]
        tries = [
            "Early on, the prediction is a blurred mean of all that is still possible. When does it become one image?",
            "Switch the clock to `t` and play: the images dissolve into noise again.",
        ]
    if scene.labels is not None:
        rows = scene.row_words
        if scene.guidance_text:
            rows += f", {scene.guidance_text}"
        sees.append(f"{rows}.")
    return Words(sees, tries)


PANEL = Panel(lambda scene: scene.of_images, log, views=views, words=words)
