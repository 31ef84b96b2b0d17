"""Space and time: the paths of some samples through the plane, with time as the third axis.

Noise rises evenly in log-SNR from the clean data.
"""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from schedule import evenly_spaced
from viz.colours import DATA, LABEL, PREDICTION, noise_colours
from viz.recording.panel import NIGHT, Panel, Words, eye, time_columns
from viz.scene import LASTS_S, Process, Scene

PATHS = 14  # samples
CLEAN_POINTS = 500  # clean points below the paths
PIECES = 50  # of a path, each in the colour of its noise
HEIGHT = 8.0  # of the time axis
LABEL_ABOVE = 0.7  # so much above it stands the name of the process
ASIDE = {"forward": -4, "reverse": 4}  # x of the middle of each process
NOW_COLOUR = PREDICTION


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """Send for each process paths/SIDE/ways, data, label, and the current points in now."""
    for process in scene.processes:
        aside = np.array([ASIDE[process.side], 0, 0], np.float32)
        places = _places(scene, process, aside)
        _log_ways(rec, scene, process, places)
        _log_now(rec, scene, process, places)
        _log_label(rec, process, aside)
        if scene.data is not None:
            ground = np.pad(scene.data[:CLEAN_POINTS], ((0, 0), (0, 1))) + aside
            cloud = rr.Points3D(ground, colors=DATA, radii=rr.Radius.ui_points(1.0))
            rec.log(f"paths/{process.side}/data", cloud, static=True)


def _places(scene: Scene, process: Process, aside: NDArray) -> NDArray[np.float32]:
    """Return the paths in space and time, (S, PATHS, 3), moved by `aside` (3,)."""
    states = process.states[:, :PATHS]
    elapsed = scene.seconds(process) / LASTS_S
    noisy = elapsed if process.side == "forward" else 1 - elapsed
    heights = np.broadcast_to(HEIGHT * noisy[:, None, None], (*states.shape[:2], 1))
    return np.concatenate([states, heights], -1).astype(np.float32) + aside


def _log_ways(
    rec: rr.RecordingStream,
    scene: Scene,
    process: Process,
    places: NDArray[np.float32],
) -> None:
    """Send the whole paths, in pieces of the colour of their noise."""
    knots = np.array(evenly_spaced(0, len(places) - 1, PIECES + 1))
    begin = knots[:-1]
    end = knots[1:]
    pieces = np.stack([places[begin], places[end]], 2).reshape(-1, 2, 3)
    noise = scene.noise(process.steps)
    colours = noise_colours((noise[begin] + noise[end]) / 2)
    ways = rr.LineStrips3D(
        pieces,
        colors=np.repeat(colours, places.shape[1], 0),
        radii=rr.Radius.ui_points(0.6),
    )
    rec.log(f"paths/{process.side}/ways", ways, static=True)


def _log_now(
    rec: rr.RecordingStream,
    scene: Scene,
    process: Process,
    places: NDArray[np.float32],
) -> None:
    """Send where on their paths the samples are at each moment."""
    entity = f"paths/{process.side}/now"
    style = rr.Points3D.from_fields(colors=[NOW_COLOUR], radii=rr.Radius.ui_points(3.0))
    rec.log(entity, style, static=True)
    count, paths, _ = places.shape
    positions = rr.Points3D.columns(positions=places.reshape(-1, 3)).partition([paths] * count)
    rec.send_columns(entity, indexes=time_columns(scene, process), columns=positions)


def _log_label(rec: rr.RecordingStream, process: Process, aside: NDArray) -> None:
    """Send the name of a process, above its paths."""
    top = aside + np.array([0, 0, HEIGHT + LABEL_ABOVE])
    label = rr.Points3D(top, labels=[process.side], colors=LABEL, radii=0.0, show_labels=True)
    rec.log(f"paths/{process.side}/label", label, static=True)


def views(scene: Scene) -> list[rrb.View]:
    """Return the view of all paths."""
    return [
        rrb.Spatial3DView(
            origin="/paths",
            name="Paths",
            background=NIGHT,
            line_grid=False,
            eye_controls=eye([0, -12.5, 8], [0, 0, 3.6]),
        )
    ]


def words(scene: Scene) -> Words:
    """Return what to try."""
    return Words([], ["Tab *Paths*: space and time. Drag it around."])


PANEL = Panel(
    lambda scene: not scene.of_images and scene.dim == 2,
    log,
    "tabs",
    views,
    words=words,
)
