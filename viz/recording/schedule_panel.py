"""Curves of the schedule: how much data and how much noise x_t is made of."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from viz.colours import noise_colours
from viz.recording.panel import Panel, clocks, curve_view, given, log_curve
from viz.scene import Process, Scene


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """schedule/signal and schedule/noise."""
    first, (green, red) = scene.processes[0], noise_colours([0, 1])
    green = (0.75 * green).astype(np.uint8)  # the viewer's theme may be light, and the points' green is faint on white
    left, time = given(scene.alpha_bar)[first.steps], clocks(scene, first)
    log_curve(rec, "schedule/signal", "signal", np.sqrt(left), time, green)
    log_curve(rec, "schedule/noise", "noise", np.sqrt(1 - left), time, red)


def views(scene: Scene) -> list[rrb.View]:
    return [curve_view("/schedule", "What x_t is made of: data green, noise red", 1.0)]


def now(scene: Scene, process: Process, step: int) -> str:
    left = given(scene.alpha_bar)[step]
    return f"{np.sqrt(left):.2f} data + {np.sqrt(1 - left):.2f} noise"


PANEL = Panel(lambda scene: scene.alpha_bar is not None, log, "curves", views, now=now)
