"""What stands around the points of a recording: data and rings behind them, arrows, curves, words, paths in 3D."""

import numpy as np
import rerun as rr
from numpy.typing import NDArray

from metrics.scene import Field, Process, Scene
from viz.colours import DATA, GUESS, LABEL, LOSS, RING, SCORE, SCORE_EXACT, noise_colours
from viz.recording.words import about, now

LEAST_SIGNAL = 0.02  # below this alpha-bar a guess of x_0 divides by almost nothing
PATHS = 14  # samples whose whole way stands in the space-time picture
GROUND = 500  # clean points under them
SLABS = 50  # pieces of a way, each in the colour of its noise
HEIGHT = 8.0  # of the time axis there
HELD = 0.08  # of the whole length: how long the last picture stays before the loop starts over


def clocks(story: NDArray, steps: NDArray) -> list[rr.TimeColumn]:
    """The two clocks, for the same rows."""
    return [rr.TimeColumn("step", sequence=story), rr.TimeColumn("t", sequence=steps)]


def points(d: int) -> type[rr.Points2D] | type[rr.Points3D]:
    return rr.Points2D if d == 2 else rr.Points3D


def in_order(d: int, order: float) -> dict[str, float]:
    """What is drawn above what; three dimensions sort themselves."""
    return {"draw_order": order} if d == 2 else {}


# ---------------------------------------------------------------- behind


def log_backgrounds(rec: rr.RecordingStream, scene: Scene) -> None:
    """The clean data in grey and, for two dimensions, the rings that hold 39 % and 86 % of pure noise."""
    d = scene.dim
    for side in (p.side for p in scene.processes):
        if d == 2:  # rerun's 2D views point y down
            rec.log(side, rr.Transform3D(scale=[1, -1, 1]), static=True)
            rings = rr.LineStrips2D(_rings(), radii=rr.Radius.ui_points(0.8), colors=RING, draw_order=-20.0)
            rec.log(f"{side}/rings", rings, static=True)
        if scene.data is not None:
            style = {"colors": DATA, "radii": rr.Radius.ui_points(1.0), **in_order(d, -10.0)}
            rec.log(f"{side}/data", points(d)(scene.data, **style), static=True)


def _rings() -> NDArray:
    """Circles of radius 1 and 2: (2, P, 2)."""
    angle = np.linspace(0, 2 * np.pi, 129)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.stack([circle, 2 * circle])


# ---------------------------------------------------------------- in front and beside


def log_extras(rec: rr.RecordingStream, scene: Scene) -> None:
    """Whatever else the scene knows: score fields, guesses, curves, words, and the paths in space-time."""
    reverse = next((p for p in scene.processes if p.side == "reverse"), None)
    if reverse is not None:
        for field in scene.fields:
            _log_field(rec, field, int(reverse.steps[0]))
        if scene.guesses is not None:
            _log_guesses(rec, scene, reverse)
    log_curves(rec, scene)
    log_words(rec, scene, about(scene))
    if scene.dim == 2:
        for process in scene.processes:
            _log_paths(rec, process, scene.data)


def _log_field(rec: rr.RecordingStream, field: Field, total: int) -> None:
    s, g, d = field.vectors.shape
    archetype = rr.Arrows2D if d == 2 else rr.Arrows3D
    colour = SCORE if field.name == "network" else SCORE_EXACT
    style = {"radii": _arrow(d, 1.2), "colors": [colour], **in_order(d, -5.0)}
    entity = f"reverse/score/{field.name}"
    rec.log(entity, archetype.from_fields(origins=field.origins, **style), static=True)
    vectors = archetype.columns(vectors=field.vectors.reshape(-1, d)).partition([g] * s)
    rec.send_columns(entity, indexes=clocks(total - field.steps, field.steps), columns=vectors)


def _arrow(d: int, ui_points: float) -> float:
    """An arrow's radius. In three dimensions only one in the scene's own units gets a head of a fitting size."""
    return rr.Radius.ui_points(ui_points) if d == 2 else ui_points / 40


def _log_guesses(rec: rr.RecordingStream, scene: Scene, reverse: Process) -> None:
    """An arrow from each tracked sample to the x_0 guessed from it; none while there is hardly any signal."""
    where, guess = scene.guesses
    s, k, d = where.shape
    known = np.ones(s, bool) if scene.alpha_bar is None else scene.alpha_bar[reverse.steps] >= LEAST_SIGNAL
    archetype = rr.Arrows2D if d == 2 else rr.Arrows3D
    style = {"radii": _arrow(d, 1.6), "colors": [GUESS], **in_order(d, 25.0)}
    rec.log("reverse/guess", archetype.from_fields(**style), static=True)
    arrows = {"origins": where[known].reshape(-1, d), "vectors": (guess - where)[known].reshape(-1, d)}
    columns = archetype.columns(**arrows).partition(np.where(known, k, 0))
    rec.send_columns("reverse/guess", indexes=clocks(reverse.story, reverse.steps), columns=columns)


def log_curves(rec: rr.RecordingStream, scene: Scene) -> None:
    """What the scene knows of schedule, distance and loss, each under its name."""
    green, red = noise_colours([0, 1])
    if scene.alpha_bar is not None:
        first = scene.processes[0]
        left = scene.alpha_bar[first.steps]
        for name, values, colour in (("signal", np.sqrt(left), green), ("noise", np.sqrt(1 - left), red)):
            _curve(rec, f"schedule/{name}", name, values, first.story, first.steps, colour)
    if scene.distance is not None:
        for process in scene.processes:
            colour = red if process.side == "forward" else green
            values = scene.distance.by_side[process.side]
            _curve(rec, f"distance/{process.side}", process.side, values, process.story, process.steps, colour)
        ends = np.array([0, int(scene.processes[0].steps.max())])
        floor = np.full(2, scene.distance.floor)
        _curve(rec, "distance/floor", "floor: real to real", floor, ends, ends, DATA)
    if scene.loss is not None:
        above = scene.loss.loss - (scene.loss.floor or 0.0)
        widths = np.full(len(above), scene.loss.step[0], np.float32)  # the pieces are equal, the first begins at 0
        bars = rr.BarChart(above, color=LOSS, abscissa=scene.loss.step - widths / 2, widths=0.9 * widths)
        rec.log("loss", bars, static=True)


def _curve(
    rec: rr.RecordingStream, entity: str, name: str, values: NDArray, story: NDArray, steps: NDArray, colour
) -> None:
    rec.log(entity, rr.SeriesLines(names=name, colors=colour, widths=1.8), static=True)
    rec.send_columns(entity, indexes=clocks(story, steps), columns=rr.Scalars.columns(scalars=values))


def log_words(rec: rr.RecordingStream, scene: Scene, about: str) -> None:
    """What it is `about`, and a text for each moment of each clock.

    The last one comes again, late: until then the last picture is held.
    """
    markdown = "text/markdown"
    rec.log("about", rr.TextDocument(about, media_type=markdown), static=True)
    rec.log("now", rr.TextDocument.from_fields(media_type=markdown), static=True)
    for clock in ("step", "t"):
        moments = sorted({int(m) for p in scene.processes for m in (p.story if clock == "step" else p.steps)})
        texts = [now(scene, clock, moment) for moment in moments]
        late = moments[-1] + max(1, round(HELD * moments[-1]))
        index = rr.TimeColumn(clock, sequence=[*moments, late])
        rec.send_columns("now", indexes=[index], columns=rr.TextDocument.columns(text=[*texts, texts[-1]]))


# ---------------------------------------------------------------- space-time


def _log_paths(rec: rr.RecordingStream, process: Process, data: NDArray | None) -> None:
    """Some samples' whole ways through the plane, noise upwards from the clean data, and points where they are now."""
    side, total = process.side, process.steps.max()
    states = process.states[:, :PATHS]
    heights = np.broadcast_to(HEIGHT * process.steps[:, None, None] / total, (*states.shape[:2], 1))
    aside = np.array([-4 if side == "forward" else 4, 0, 0], np.float32)
    at = np.concatenate([states, heights], -1).astype(np.float32) + aside
    knots = np.unique(np.linspace(0, len(at) - 1, SLABS + 1).round().astype(int))
    strips = np.stack([at[knots[:-1]], at[knots[1:]]], 2)  # (slabs, paths, 2, 3)
    share = (process.steps[knots[:-1]] + process.steps[knots[1:]]) / 2 / total
    colours = np.repeat(noise_colours(share), at.shape[1], 0)
    ways = rr.LineStrips3D(strips.reshape(-1, 2, 3), colors=colours, radii=rr.Radius.ui_points(0.6))
    rec.log(f"paths/{side}/ways", ways, static=True)
    rec.log(
        f"paths/{side}/now",
        rr.Points3D.from_fields(colors=[GUESS], radii=rr.Radius.ui_points(3.0)),
        static=True,
    )
    positions = rr.Points3D.columns(positions=at.reshape(-1, 3)).partition([at.shape[1]] * len(at))
    rec.send_columns(f"paths/{side}/now", indexes=clocks(process.story, process.steps), columns=positions)
    if data is not None:
        ground = np.pad(data[:GROUND], ((0, 0), (0, 1))) + aside
        rec.log(f"paths/{side}/data", rr.Points3D(ground, colors=DATA, radii=rr.Radius.ui_points(1.0)), static=True)
    label = rr.Points3D(
        aside + np.array([0, 0, HEIGHT + 0.7]), labels=[side], colors=LABEL, radii=0.0, show_labels=True
    )
    rec.log(f"paths/{side}/label", label, static=True)
