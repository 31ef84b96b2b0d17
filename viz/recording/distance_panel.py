"""Curves of the distance from each process to the data, above that between two real sets: mean and band of pairs."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from viz.colours import GENERATED, noise_colours
from viz.recording.panel import Panel, clocks, curve_view, floor_of, given, log_curve, log_floor_style
from viz.scene import Process, Scene

TITLE = "W1 to the data: forward red, reverse blue, real grey"


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """distance/SIDE for each process, and distance/floor."""
    distance, colours = given(scene.distance), {"forward": noise_colours(1), "reverse": GENERATED}
    for p in scene.processes:
        log_curve(rec, f"distance/{p.side}", p.side, distance.by_side[p.side], clocks(scene, p), colours[p.side])
    first = scene.processes[0]
    ends, floor = first.steps[[0, -1]], np.tile(floor_of(distance.floors), 2)
    log_floor_style(rec, "distance/floor")
    columns = rr.Scalars.columns(scalars=floor).partition([3, 3])
    rec.send_columns("distance/floor", indexes=clocks(scene, first, ends), columns=columns)


def views(scene: Scene) -> list[rrb.View]:
    highest = max(float(values.max()) for values in given(scene.distance).by_side.values())
    return [curve_view("/distance", TITLE, highest)]


def now(scene: Scene, process: Process, step: int) -> str:
    distance = given(scene.distance)
    value = distance.by_side[process.side][abs(process.steps - step).argmin()]
    return f"distance {value:.3f} (real to real {distance.floors.mean():.3f})"


PANEL = Panel(lambda scene: scene.distance is not None, log, "curves", views, now=now)
