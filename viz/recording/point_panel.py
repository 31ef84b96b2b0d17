"""The points of both processes, with tracked samples; behind them the clean data and rings of pure noise."""

from collections.abc import Sequence

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from viz.colours import DATA, RING, TRACKED, noise_colours
from viz.recording.panel import Panel, Words, clocks, cloud_view, in_order, median_step, points
from viz.scene import Process, Scene

TAIL, TAIL_S = 3, 0.4  # states, and seconds, over which the path of a tracked sample stays: more of it is a tangle
BATCH_BYTES = 2 << 20  # rows are sent in pieces of this size: quick, and little memory
NAMES = {"forward": "Forward: data to noise", "reverse": "Reverse: noise to data"}


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """SIDE/points, SIDE/data and SIDE/rings for each process; of tracked samples SIDE/tracked and SIDE/tails.

    The samples of label k are reverse/points/k.
    """
    for process in scene.processes:
        _log_background(rec, process.side, scene)
        labels = scene.labels if process.side == "reverse" else None
        for name, rows in _groups(labels).items():
            _log_points(rec, scene, process, f"{process.side}/points{name}", rows)
        if len(scene.tracked):
            names = [] if labels is None else [f"label {scene.classes[k]}" for k in labels[scene.tracked]]
            _log_tracked(rec, scene, process, process.states[:, scene.tracked], names)


def _groups(labels: NDArray | None) -> dict[str, NDArray | slice]:
    """Which rows stand together, by what their entity is called."""
    if labels is None:
        return {"": slice(None)}
    return {f"/{k}": np.flatnonzero(labels == k) for k in np.unique(labels)}


def flipped(rec: rr.RecordingStream, entity: str, d: int) -> None:
    """Turn what lies below an entity the right way up: rerun's 2D views point y down."""
    if d == 2:
        rec.log(entity, rr.Transform3D(scale=[1, -1, 1]), static=True)


def _log_background(rec: rr.RecordingStream, side: str, scene: Scene) -> None:
    """The clean data in grey and, for two dimensions, the rings that hold 39 % and 86 % of pure noise."""
    d = scene.dim
    flipped(rec, side, d)
    if d == 2:
        angle = np.linspace(0, 2 * np.pi, 129)
        circle = np.stack([np.cos(angle), np.sin(angle)], 1)
        style = {"radii": rr.Radius.ui_points(0.8), "colors": RING, "draw_order": -20.0}
        rec.log(f"{side}/rings", rr.LineStrips2D(np.stack([circle, 2 * circle]), **style), static=True)
    if scene.data is not None:
        style = {"colors": DATA, "radii": rr.Radius.ui_points(1.0), **in_order(d, -10.0)}
        rec.log(f"{side}/data", points(d)(scene.data, **style), static=True)


def _log_points(rec: rr.RecordingStream, scene: Scene, process: Process, entity: str, chosen: NDArray | slice) -> None:
    """All states of the chosen samples on all clocks, a few states at a time; each in the colour of its noise."""
    states, steps = process.states[:, chosen], process.steps
    archetype, (s, n, d) = points(states.shape[-1]), states.shape
    rec.log(entity, archetype.from_fields(radii=rr.Radius.ui_points(1.7)), static=True)
    colours = noise_colours(scene.noise(steps))
    per_batch = max(1, BATCH_BYTES // states[0].nbytes)
    for first in range(0, s, per_batch):
        rows = slice(first, first + per_batch)
        positions = archetype.columns(positions=states[rows].reshape(-1, d)).partition([n] * len(steps[rows]))
        columns = [*positions, *archetype.columns(colors=colours[rows])]
        rec.send_columns(entity, indexes=clocks(scene, process, steps[rows]), columns=columns)


def _log_tracked(rec: rr.RecordingStream, scene: Scene, process: Process, paths: NDArray, names: Sequence[str]) -> None:
    """Cyan points `paths` (S, K, d), with their names if they have any, and for each state after the first one
    segment a sample from where it was."""
    (s, k, d), side = paths.shape, process.side
    archetype, strips = points(d), rr.LineStrips2D if d == 2 else rr.LineStrips3D
    on_top, below = in_order(d, 30.0), in_order(d, 20.0)
    style = {"radii": rr.Radius.ui_points(4.0), "colors": [TRACKED], **on_top}
    style |= {"labels": names, "show_labels": True} if names else {}
    rec.log(f"{side}/tracked", archetype.from_fields(**style), static=True)
    positions = archetype.columns(positions=paths.reshape(-1, d)).partition([k] * s)
    rec.send_columns(f"{side}/tracked", indexes=clocks(scene, process), columns=positions)

    style = strips.from_fields(radii=rr.Radius.ui_points(1.0), colors=[TRACKED], **below)
    rec.log(f"{side}/tails", style, static=True)
    segments = np.stack([paths[:-1], paths[1:]], axis=2).reshape(-1, 2, d)
    columns = strips.columns(strips=segments).partition([k] * (s - 1))
    rec.send_columns(f"{side}/tails", indexes=clocks(scene, process, process.steps[1:]), columns=columns)


def views(scene: Scene) -> list[rrb.View]:
    """The processes side by side."""
    return [
        cloud_view(
            scene.dim,
            contents=f"/{p.side}/**",
            name=NAMES[p.side] + (f", {scene.steered}" if p.side == "reverse" and scene.steered else ""),
            overrides={f"/{p.side}/tails": _tails(p)},
        )
        for p in scene.processes
    ]


def _tails(process: Process) -> rrb.VisibleTimeRanges:
    """The last steps of the story; on the clock t the reverse process comes from later, not from earlier."""
    steps, bound = TAIL * median_step(process), rrb.TimeRangeBoundary.cursor_relative
    t = (bound(), bound(seq=steps)) if process.side == "reverse" else (bound(seq=-steps), bound())
    return rrb.VisibleTimeRanges(
        [
            rrb.VisibleTimeRange("time", start=bound(seconds=-TAIL_S), end=bound()),
            rrb.VisibleTimeRange("step", start=bound(seq=-steps), end=bound()),
            rrb.VisibleTimeRange("t", start=t[0], end=t[1]),
        ]
    )


def words(scene: Scene) -> Words:
    sides, sees = {p.side for p in scene.processes}, []
    if "forward" in sides:
        sees.append("**Forward**: each step adds a little noise.")
    if "reverse" in sides:
        sees.append("**Reverse**: the network undoes it.")
    sees.append("**Colour**: light green is clean, dark red noise.")
    grey = "**Grey**: clean data. " if scene.data is not None else ""
    sees.append(grey + ("**Rings**: 1, 2 sigma of noise." if scene.dim == 2 else ""))
    sees.append("**Cyan**: samples to follow" + (", with their labels." if scene.labels is not None else "."))
    units = "mean 0, deviation 1." if scene.normalised else "the data's own."
    alike = "On the clock `t` both are equally noisy: alike?"
    return Words([*filter(None, sees), f"**Units**: {units}"], [alike] if len(sides) == 2 else [])


PANEL = Panel(lambda scene: not scene.of_images, log, views=views, words=words)
