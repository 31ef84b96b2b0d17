"""Arrows along the score: the network's, and the exact one, which is hidden at first."""

import rerun as rr
import rerun.blueprint as rrb

from metrics.scene import Scene
from viz.colours import SCORE, SCORE_EXACT
from viz.recording.panel import Panel, Words, arrow_radius, arrows, clocks, in_order

HIDDEN = {"/reverse/score/exact": rrb.EntityBehavior(visible=False)}


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """reverse/score/NAME for each field of the scene."""
    (reverse,) = (p for p in scene.processes if p.side == "reverse")
    for field in scene.fields:
        s, g, d = field.vectors.shape
        colour, entity = SCORE if field.name == "network" else SCORE_EXACT, f"reverse/score/{field.name}"
        style = {"radii": arrow_radius(d, 1.2), "colors": [colour], **in_order(d, -5.0)}
        rec.log(entity, arrows(d).from_fields(origins=field.origins, **style), static=True)
        vectors = arrows(d).columns(vectors=field.vectors.reshape(-1, d)).partition([g] * s)
        rec.send_columns(entity, indexes=clocks(reverse.steps[0] - field.steps, field.steps), columns=vectors)


def words(scene: Scene) -> Words:
    exact = "In the left panel, show `reverse/score/exact` (orange): the true score. Where do the two differ?"
    return Words(
        ["Blue arrows: the score. It points to where points are more likely at this noise level."],
        [exact] if any(field.name == "exact" for field in scene.fields) else [],
    )


PANEL = Panel(lambda scene: len(scene.fields) > 0, log, overrides=HIDDEN, words=words)
