"""The points of both processes, with tracked samples; behind them the clean data and rings of pure noise."""

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from metrics.scene import Process, Scene
from viz.colours import DATA, RING, TRACKED, noise_colours
from viz.recording.panel import Panel, Words, clocks, cloud_view, in_order, points, stride

TAIL = 3  # recorded states over which the path of a tracked sample stays visible: more of them is a tangle
BATCH_BYTES = 2 << 20  # rows are sent in pieces of this size: quick, and little memory
NAMES = {"forward": "Forward: data to noise", "reverse": "Reverse: noise to data, by the network"}


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """SIDE/points, SIDE/data and SIDE/rings for each process; of tracked samples SIDE/tracked and SIDE/tails."""
    for process in scene.processes:
        _log_background(rec, process.side, scene)
        _log_points(rec, process, scene.noise(process.steps))
        if len(scene.tracked):
            _log_tracked(rec, process, process.states[:, scene.tracked])


def _log_background(rec: rr.RecordingStream, side: str, scene: Scene) -> None:
    """The clean data in grey and, for two dimensions, the rings that hold 39 % and 86 % of pure noise."""
    d = scene.dim
    if d == 2:  # rerun's 2D views point y down
        rec.log(side, rr.Transform3D(scale=[1, -1, 1]), static=True)
        angle = np.linspace(0, 2 * np.pi, 129)
        circle = np.stack([np.cos(angle), np.sin(angle)], 1)
        style = {"radii": rr.Radius.ui_points(0.8), "colors": RING, "draw_order": -20.0}
        rec.log(f"{side}/rings", rr.LineStrips2D(np.stack([circle, 2 * circle]), **style), static=True)
    if scene.data is not None:
        style = {"colors": DATA, "radii": rr.Radius.ui_points(1.0), **in_order(d, -10.0)}
        rec.log(f"{side}/data", points(d)(scene.data, **style), static=True)


def _log_points(rec: rr.RecordingStream, process: Process, noise: NDArray) -> None:
    """All states on all clocks, a few at a time; each in the colour of its noise (S,)."""
    states, steps, story = process.states, process.steps, process.story
    entity, archetype, (s, n, d) = f"{process.side}/points", points(states.shape[-1]), states.shape
    rec.log(entity, archetype.from_fields(radii=rr.Radius.ui_points(1.7)), static=True)
    colours = noise_colours(noise)
    per_batch = max(1, BATCH_BYTES // states[0].nbytes)
    for first in range(0, s, per_batch):
        rows = slice(first, first + per_batch)
        positions = archetype.columns(positions=states[rows].reshape(-1, d)).partition([n] * len(steps[rows]))
        columns = [*positions, *archetype.columns(colors=colours[rows])]
        rec.send_columns(entity, indexes=clocks(story[rows], steps[rows]), columns=columns)


def _log_tracked(rec: rr.RecordingStream, process: Process, paths: NDArray) -> None:
    """Cyan points `paths` (S, K, d) and, for each state after the first, one segment per sample from where it was."""
    (s, k, d), side, story, steps = paths.shape, process.side, process.story, process.steps
    archetype, strips = points(d), rr.LineStrips2D if d == 2 else rr.LineStrips3D
    on_top, below = in_order(d, 30.0), in_order(d, 20.0)
    style = archetype.from_fields(radii=rr.Radius.ui_points(4.0), colors=[TRACKED], **on_top)
    rec.log(f"{side}/tracked", style, static=True)
    positions = archetype.columns(positions=paths.reshape(-1, d)).partition([k] * s)
    rec.send_columns(f"{side}/tracked", indexes=clocks(story, steps), columns=positions)

    style = strips.from_fields(radii=rr.Radius.ui_points(1.0), colors=[TRACKED], **below)
    rec.log(f"{side}/tails", style, static=True)
    segments = np.stack([paths[:-1], paths[1:]], axis=2).reshape(-1, 2, d)
    columns = strips.columns(strips=segments).partition([k] * (s - 1))
    rec.send_columns(f"{side}/tails", indexes=clocks(story[1:], steps[1:]), columns=columns)


def views(scene: Scene) -> list[rrb.View]:
    """The processes side by side."""
    tail = TAIL * stride(scene)
    return [
        cloud_view(
            scene.dim, contents=f"/{side}/**", name=NAMES[side], overrides={f"/{side}/tails": _tails(side, tail)}
        )
        for side in (p.side for p in scene.processes)
    ]


def _tails(side: str, tail: int) -> rrb.VisibleTimeRanges:
    """The last `tail` steps of the story; on the clock t the reverse process comes from later, not from earlier."""
    now, before = rrb.TimeRangeBoundary.cursor_relative(), rrb.TimeRangeBoundary.cursor_relative(seq=-tail)
    after = rrb.TimeRangeBoundary.cursor_relative(seq=tail)
    start, end = (now, after) if side == "reverse" else (before, now)
    return rrb.VisibleTimeRanges(
        [rrb.VisibleTimeRange("step", start=before, end=now), rrb.VisibleTimeRange("t", start=start, end=end)]
    )


def words(scene: Scene) -> Words:
    sides, sees = {p.side for p in scene.processes}, []
    if "forward" in sides:
        sees.append("**Forward**: each step adds a little noise, until nothing of the data is left.")
    if "reverse" in sides:
        sees.append("**Reverse**: starting from pure noise, the network's guesses lead back to the data.")
    grey = " Grey: clean data." if scene.data is not None else ""
    sees.append(f"Colour: the noise, from light green (clean) through ochre to dark red.{grey}")
    sees.append("Cyan: samples to follow." + (" Rings: 1 and 2 sigma of pure noise." if scene.dim == 2 else ""))
    if scene.normalised:
        sees.append("Coordinates are normalised: mean 0 and standard deviation 1 over the data.")
    else:
        sees.append("Coordinates are the data's own.")
    alike = "Switch the clock from `step` to `t`: both sides are then equally noisy and should look alike."
    return Words(sees, [alike] if len(sides) == 2 else [])


PANEL = Panel(lambda scene: not scene.of_images, log, views=views, words=words)
