"""Arrows along the score: the network's among the samples, and beside the exact one in tabs."""

from collections.abc import Sequence

import rerun as rr
import rerun.blueprint as rrb

from viz.colours import SCORE, SCORE_EXACT
from viz.recording.panel import (
    Panel,
    Words,
    arrow_radius,
    arrows_type,
    cloud_view,
    draw_order,
    log_upright,
    time_columns,
)
from viz.scene import Field, Scene
from viz.style import literal_markdown

NAMES = {"network": "The network's score", "exact": "The exact score"}
AMONG_SAMPLES = "reverse/score"


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """Send reverse/score, the first field, and score/NAME for every field of the scene."""
    log_upright(rec, "score", scene.dim)
    _log_field(rec, scene, scene.fields[0], AMONG_SAMPLES)
    for field in scene.fields:
        _log_field(rec, scene, field, _entity(field))


def _entity(field: Field) -> str:
    """Return the entity of a field: score/NAME, or score/NAME/LABEL."""
    entity = f"score/{field.name}"
    if field.label is not None:
        entity += f"/{field.label}"
    return entity


def _log_field(rec: rr.RecordingStream, scene: Scene, field: Field, entity: str) -> None:
    """Send the arrows of a field at all of its steps."""
    (reverse,) = (process for process in scene.processes if process.side == "reverse")
    count, per_state, d = field.vectors.shape
    arrows = arrows_type(d)
    style = arrows.from_fields(
        origins=field.origins,
        radii=arrow_radius(d, 1.2),
        colors=[SCORE if field.name == "network" else SCORE_EXACT],
        **draw_order(d, -5.0),
    )
    rec.log(entity, style, static=True)
    vectors = arrows.columns(vectors=field.vectors.reshape(-1, d)).partition([per_state] * count)
    time = time_columns(scene, reverse, field.steps)
    rec.send_columns(entity, indexes=time, columns=vectors)


def views(scene: Scene) -> list[rrb.Container]:
    """Return a tab for each label: the network's score and the exact one, with its samples."""
    labels = dict.fromkeys(field.label for field in scene.fields)
    return [_tab(scene, label) for label in labels]


def _tab(scene: Scene, label: int | None) -> rrb.Container:
    """Return the tab of a label, or of all samples."""
    name = "Score"
    samples = "/reverse/points"
    if label is not None:
        name += f" for label {scene.classes[label]}"
        samples += f"/{label}"
    clouds = []
    for field in scene.fields:
        if field.label == label:
            clouds.append(_cloud(scene, field, samples))
    return rrb.Horizontal(*clouds, name=name)


def _cloud(scene: Scene, field: Field, samples: str) -> rrb.View:
    """Return the view of one field, with the samples of that entity."""
    name = NAMES[field.name]
    if scene.guidance_text:
        name += f", {scene.guidance_text}"
    contents = [f"/{_entity(field)}", samples, "/reverse/data", "/reverse/rings"]
    return cloud_view(scene.dim, contents=contents, name=name)


def words(scene: Scene) -> Words:
    """Return the text of the arrows among the samples, and of the tabs."""
    first = scene.fields[0].label
    condition = "" if first is None else f", for label {literal_markdown(scene.classes[first])}"
    sees = [f"**Arrows**: the score{condition}, to where points are likelier."]
    tries: Sequence[str] = []
    if any(field.name == "exact" for field in scene.fields):
        tries = ["Tab *Score*: the exact one beside it."]
    return Words(sees, tries)


PANEL = Panel(lambda scene: len(scene.fields) > 0, log, "tabs", views, words=words)
