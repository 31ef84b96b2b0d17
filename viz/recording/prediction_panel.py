"""White arrows from each tracked sample to the x_0 that the network guesses from it."""

from typing import Any

import numpy as np
import rerun as rr

from viz.colours import PREDICTION
from viz.recording.panel import Panel, Words, arrow_radius, arrows, clocks, given, in_order
from viz.scene import Scene

LEAST_SIGNAL = 0.02  # below this alpha-bar a guess of x_0 divides by almost nothing


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """reverse/guess; no arrows while there is hardly any signal."""
    (reverse,) = (p for p in scene.processes if p.side == "reverse")
    where, guess = given(scene.guesses)
    s, k, d = where.shape
    known = np.ones(s, bool) if scene.alpha_bar is None else scene.alpha_bar[reverse.steps] >= LEAST_SIGNAL
    style = {"radii": arrow_radius(d, 1.6), "colors": [PREDICTION], **in_order(d, 25.0)}
    rec.log("reverse/guess", arrows(d).from_fields(**style), static=True)
    ends: dict[str, Any] = {"origins": where[known].reshape(-1, d), "vectors": (guess - where)[known].reshape(-1, d)}
    columns = arrows(d).columns(**ends).partition(np.where(known, k, 0))
    rec.send_columns("reverse/guess", indexes=clocks(scene, reverse), columns=columns)


def words(scene: Scene) -> Words:
    return Words(["**White**: where the network believes they end."])


PANEL = Panel(lambda scene: scene.guesses is not None and not scene.of_images, log, words=words)
