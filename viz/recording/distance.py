"""Curves of the distance from each process to the data, above the distance between two real sets."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from metrics.scene import Process, Scene
from viz.colours import DATA, GENERATED, noise_colours
from viz.recording.panel import Panel, clocks, curve_view, given, log_curve

TITLE = "Distance to the data (sliced Wasserstein)"


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """distance/SIDE for each process, and distance/floor."""
    distance, colours = given(scene.distance), {"forward": noise_colours(1), "reverse": GENERATED}
    for p in scene.processes:
        values, time = distance.by_side[p.side], clocks(p.story, p.steps)
        log_curve(rec, f"distance/{p.side}", p.side, values, time, colours[p.side])
    ends = np.array([0, int(scene.processes[0].steps.max())])
    log_curve(rec, "distance/floor", "floor: real to real", np.full(2, distance.floor), clocks(ends, ends), DATA)


def views(scene: Scene) -> list[rrb.View]:
    highest = max(float(values.max()) for values in given(scene.distance).by_side.values())
    return [curve_view("/distance", TITLE, highest)]


def now(scene: Scene, process: Process, step: int) -> str:
    distance = given(scene.distance)
    value = distance.by_side[process.side][abs(process.steps - step).argmin()]
    return f"distance to the data {value:.3f} (between two real sets {distance.floor:.3f})"


PANEL = Panel(lambda scene: scene.distance is not None, log, "curves", views, now=now)
