"""Curves of the distance from each process to the data, above the distance of two real sets."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from viz.colours import GENERATED, noise_colours
from viz.recording.panel import (
    W1,
    Panel,
    Words,
    curve_view,
    floor_band,
    known,
    log_curve,
    log_floor_style,
    time_columns,
)
from viz.scene import Process, Scene

TITLE = "W1 to the data: forward red, reverse blue, real grey (thin: 90 %)"


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """Send distance/SIDE for each process, and distance/floor: mean and 90 % band."""
    distance = known(scene.distance)
    colours = {"forward": noise_colours(1), "reverse": GENERATED}
    for process in scene.processes:
        side = process.side
        time = time_columns(scene, process)
        values = distance.by_side[side]
        log_curve(rec, f"distance/{side}", side, values, time, colours[side], held=True)

    # The floor is constant, so that its first and last values are enough.
    first = scene.processes[0]
    band = floor_band(distance.floors)
    log_floor_style(rec, "distance/floor")
    columns = rr.Scalars.columns(scalars=np.tile(band, 2)).partition([len(band)] * 2)
    time = time_columns(scene, first, first.steps[[0, -1]])
    rec.send_columns("distance/floor", indexes=time, columns=columns)


def views(scene: Scene) -> list[rrb.View]:
    """Return the view of all curves."""
    distances = known(scene.distance).by_side.values()
    highest = max(float(values.max()) for values in distances)
    return [curve_view("/distance", TITLE, highest)]


def now(scene: Scene, process: Process, step: int) -> str:
    """Return the distance of a process in words, beside the mean of real sets."""
    distance = known(scene.distance)
    nearest = abs(process.steps - step).argmin()
    value = distance.by_side[process.side][nearest]
    return f"distance {value:.3f} (real to real {distance.floors.mean():.3f})"


def words(scene: Scene) -> Words:
    """Return what the curves mean."""
    return Words([f"**W1**: {W1}"])


PANEL = Panel(lambda scene: scene.distance is not None, log, "curves", views, now=now, words=words)
