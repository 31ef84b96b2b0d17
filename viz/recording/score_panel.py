"""Arrows along the score: the network's among the samples, and in a tab for each label beside the exact one."""

import rerun as rr
import rerun.blueprint as rrb

from viz.colours import SCORE, SCORE_EXACT
from viz.recording.panel import Panel, Words, arrow_radius, arrows, clocks, cloud_view, in_order
from viz.recording.point_panel import flipped
from viz.scene import Field, Scene

NAMES = {"network": "The network's score", "exact": "The exact score"}
STAGE = "reverse/score"


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """reverse/score, on the stage, and score/NAME for every field of the scene."""
    flipped(rec, "score", scene.dim)
    _log_field(rec, scene, scene.fields[0], STAGE)
    for field in scene.fields:
        _log_field(rec, scene, field, _entity(field))


def _entity(field: Field) -> str:
    return f"score/{field.name}" + ("" if field.label is None else f"/{field.label}")


def _log_field(rec: rr.RecordingStream, scene: Scene, field: Field, entity: str) -> None:
    (reverse,) = (p for p in scene.processes if p.side == "reverse")
    s, g, d = field.vectors.shape
    colour = SCORE if field.name == "network" else SCORE_EXACT
    style = {"radii": arrow_radius(d, 1.2), "colors": [colour], **in_order(d, -5.0)}
    rec.log(entity, arrows(d).from_fields(origins=field.origins, **style), static=True)
    vectors = arrows(d).columns(vectors=field.vectors.reshape(-1, d)).partition([g] * s)
    rec.send_columns(entity, indexes=clocks(scene, reverse, field.steps), columns=vectors)


def views(scene: Scene) -> list[rrb.Container]:
    """For each label a tab: the network's score and the exact one, each with the samples of that label."""
    tabs = []
    for label in dict.fromkeys(field.label for field in scene.fields):
        given = "" if label is None else f" for label {scene.classes[label]}"
        samples = "/reverse/points" + ("" if label is None else f"/{label}")
        clouds = [
            cloud_view(
                scene.dim,
                contents=[f"/{_entity(field)}", samples, "/reverse/data", "/reverse/rings"],
                name=NAMES[field.name] + (f", {scene.steered}" if scene.steered else ""),
            )
            for field in scene.fields
            if field.label == label
        ]
        tabs.append(rrb.Horizontal(*clouds, name=f"Score{given}"))
    return tabs


def words(scene: Scene) -> Words:
    first = scene.fields[0].label
    given = "" if first is None else f", for label {scene.classes[first]}"
    exact = ["Tab *Score*: the exact one beside it."]
    return Words(
        [f"**Arrows**: the score{given}, to where points are likelier."],
        exact if any(field.name == "exact" for field in scene.fields) else [],
    )


PANEL = Panel(lambda scene: len(scene.fields) > 0, log, "tabs", views, words=words)
