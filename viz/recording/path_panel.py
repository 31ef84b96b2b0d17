"""Space-time: the whole paths of some samples through the plane, noise rising evenly in log-SNR from the clean data."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from schedule import evenly_spaced
from viz.colours import DATA, LABEL, PREDICTION, noise_colours
from viz.recording.panel import NIGHT, Panel, Words, clocks, eye
from viz.scene import LASTS_S, Process, Scene

PATHS = 14  # samples
GROUND = 500  # clean points under them
SLABS = 50  # pieces of a path, each in the colour of its noise
HEIGHT = 8.0  # of the time axis
ASIDE = {"forward": -4, "reverse": 4}


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """paths/SIDE/ways, data, label, and in now the points where they are now; for each process."""
    for process in scene.processes:
        aside = np.array([ASIDE[process.side], 0, 0], np.float32)
        _log_paths(rec, scene, process, aside)
        if scene.data is not None:
            ground = np.pad(scene.data[:GROUND], ((0, 0), (0, 1))) + aside
            cloud = rr.Points3D(ground, colors=DATA, radii=rr.Radius.ui_points(1.0))
            rec.log(f"paths/{process.side}/data", cloud, static=True)


def _log_paths(rec: rr.RecordingStream, scene: Scene, process: Process, aside: NDArray) -> None:
    noise = scene.noise(process.steps)
    entity, states = f"paths/{process.side}", process.states[:, :PATHS]
    gone = scene.seconds(process) / LASTS_S
    noisy = gone if process.side == "forward" else 1 - gone
    heights = np.broadcast_to(HEIGHT * noisy[:, None, None], (*states.shape[:2], 1))
    at = np.concatenate([states, heights], -1).astype(np.float32) + aside  # (S, paths, 3)
    knots = np.array(evenly_spaced(0, len(at) - 1, SLABS + 1))
    strips = np.stack([at[knots[:-1]], at[knots[1:]]], 2)  # (slabs, paths, 2, 3)
    colours = np.repeat(noise_colours((noise[knots[:-1]] + noise[knots[1:]]) / 2), at.shape[1], 0)
    ways = rr.LineStrips3D(strips.reshape(-1, 2, 3), colors=colours, radii=rr.Radius.ui_points(0.6))
    rec.log(f"{entity}/ways", ways, static=True)

    style = rr.Points3D.from_fields(colors=[PREDICTION], radii=rr.Radius.ui_points(3.0))
    rec.log(f"{entity}/now", style, static=True)
    positions = rr.Points3D.columns(positions=at.reshape(-1, 3)).partition([at.shape[1]] * len(at))
    rec.send_columns(f"{entity}/now", indexes=clocks(scene, process), columns=positions)
    top = aside + np.array([0, 0, HEIGHT + 0.7])
    rec.log(
        f"{entity}/label",
        rr.Points3D(top, labels=[process.side], colors=LABEL, radii=0.0, show_labels=True),
        static=True,
    )


def views(scene: Scene) -> list[rrb.View]:
    options = {"origin": "/paths", "name": "Paths", "background": NIGHT, "line_grid": False}
    return [rrb.Spatial3DView(**options, eye_controls=eye([0, -12.5, 8], [0, 0, 3.6]))]


def words(scene: Scene) -> Words:
    return Words([], ["Tab *Paths*: space and time. Drag it around."])


PANEL = Panel(lambda scene: not scene.of_images and scene.dim == 2, log, "tabs", views, words=words)
