"""Curves of the schedule: the amplitudes of data and noise in x_t."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from viz.colours import noise_colours
from viz.recording.panel import Panel, curve_view, known, log_curve, time_columns
from viz.scene import Process, Scene


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """Send schedule/signal and schedule/noise."""
    process = scene.processes[0]
    green, red = noise_colours([0, 1])
    # The viewer may have a light theme, and the green of the points is faint on white.
    green = (0.75 * green).astype(np.uint8)
    alpha_bar = known(scene.alpha_bar)[process.steps]
    time = time_columns(scene, process)
    log_curve(rec, "schedule/signal", "signal", np.sqrt(alpha_bar), time, green, held=True)
    log_curve(rec, "schedule/noise", "noise", np.sqrt(1 - alpha_bar), time, red, held=True)


def views(scene: Scene) -> list[rrb.View]:
    """Return the view of both curves."""
    return [curve_view("/schedule", "What x_t is made of: data green, noise red", 1.0)]


def now(scene: Scene, process: Process, step: int) -> str:
    """Return both amplitudes in words."""
    alpha_bar = known(scene.alpha_bar)[step]
    return f"{np.sqrt(alpha_bar):.2f} data + {np.sqrt(1 - alpha_bar):.2f} noise"


PANEL = Panel(lambda scene: scene.alpha_bar is not None, log, "curves", views, now=now)
