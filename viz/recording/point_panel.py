"""The points of the processes with tracked samples, above the clean data and rings of noise."""

import re
from collections.abc import Sequence

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from viz.colours import DATA, RING, TRACKED, noise_colours
from viz.recording.panel import (
    Panel,
    Words,
    cloud_view,
    draw_order,
    log_upright,
    median_step,
    points_type,
    strips_type,
    time_columns,
)
from viz.scene import Process, Scene

# How long the path of a tracked sample remains visible. Longer tails become a tangle.
TAIL_STATES = 3
TAIL_S = 0.4
BATCH_BYTES = 2 << 20  # rows are sent in batches of this size: fast, with little memory
NAMES = {"forward": "Forward: data to noise", "reverse": "Reverse: noise to data"}


def log(rec: rr.RecordingStream, scene: Scene) -> None:
    """Send for each process SIDE/points, data and rings.

    For tracked samples it also sends SIDE/tracked and SIDE/tails. The samples of label k are reverse/points/k.
    """
    for process in scene.processes:
        side = process.side
        labels = scene.labels if side == "reverse" else None
        _log_background(rec, side, scene)
        for name, rows in _groups(labels).items():
            _log_points(rec, scene, process, f"{side}/points{name}", rows)
        if len(scene.tracked):
            names = []
            if labels is not None:
                names = [f"label {scene.classes[label]}" for label in labels[scene.tracked]]
            paths = process.states[:, scene.tracked]
            _log_tracked(rec, scene, process, paths, names)
            _log_tails(rec, scene, process, paths)


def _groups(labels: NDArray | None) -> dict[str, NDArray | slice]:
    """Return the rows of each label, by the ending of their entity; all rows without labels."""
    if labels is None:
        return {"": slice(None)}
    return {f"/{label}": np.flatnonzero(labels == label) for label in np.unique(labels)}


def _log_background(rec: rr.RecordingStream, side: str, scene: Scene) -> None:
    """Send the clean data and, in 2D, rings at 1 and 2 sigma: 39 % and 86 % of pure noise."""
    d = scene.dim
    log_upright(rec, side, d)
    if d == 2:
        angle = np.linspace(0, 2 * np.pi, 129)
        circle = np.stack([np.cos(angle), np.sin(angle)], 1)
        rings = rr.LineStrips2D(
            np.stack([circle, 2 * circle]),
            radii=rr.Radius.ui_points(0.8),
            colors=RING,
            draw_order=-20.0,
        )
        rec.log(f"{side}/rings", rings, static=True)
    if scene.data is not None:
        cloud = points_type(d)(
            scene.data,
            colors=DATA,
            radii=rr.Radius.ui_points(1.0),
            **draw_order(d, -10.0),
        )
        rec.log(f"{side}/data", cloud, static=True)


def _log_points(
    rec: rr.RecordingStream,
    scene: Scene,
    process: Process,
    entity: str,
    rows: NDArray | slice,
) -> None:
    """Send all states of some rows, in batches, each state in the colour of its noise."""
    states = process.states[:, rows]
    count, per_state, d = states.shape
    points = points_type(d)
    rec.log(entity, points.from_fields(radii=rr.Radius.ui_points(1.7)), static=True)
    colours = noise_colours(scene.noise(process.steps))
    batch_states = max(1, BATCH_BYTES // states[0].nbytes)
    for first in range(0, count, batch_states):
        batch = slice(first, first + batch_states)
        steps = process.steps[batch]
        positions = points.columns(positions=states[batch].reshape(-1, d))
        columns = [
            *positions.partition([per_state] * len(steps)),
            *points.columns(colors=colours[batch]),
        ]
        rec.send_columns(entity, indexes=time_columns(scene, process, steps), columns=columns)


def _log_tracked(
    rec: rr.RecordingStream,
    scene: Scene,
    process: Process,
    paths: NDArray,
    names: Sequence[str],
) -> None:
    """Send tracked points, paths (S, K, d), in cyan, with their names (K,) if they have any."""
    count, tracked, d = paths.shape
    points = points_type(d)
    entity = f"{process.side}/tracked"
    labels = {"labels": names, "show_labels": True} if names else {}
    style = points.from_fields(
        radii=rr.Radius.ui_points(4.0),
        colors=[TRACKED],
        **draw_order(d, 30.0),
        **labels,
    )
    rec.log(entity, style, static=True)
    positions = points.columns(positions=paths.reshape(-1, d)).partition([tracked] * count)
    rec.send_columns(entity, indexes=time_columns(scene, process), columns=positions)


def _log_tails(rec: rr.RecordingStream, scene: Scene, process: Process, paths: NDArray) -> None:
    """Send for each state of paths (S, K, d) but the first the segments from the state before."""
    count, tracked, d = paths.shape
    strips = strips_type(d)
    entity = f"{process.side}/tails"
    style = strips.from_fields(
        radii=rr.Radius.ui_points(1.0),
        colors=[TRACKED],
        **draw_order(d, 20.0),
    )
    rec.log(entity, style, static=True)
    segments = np.stack([paths[:-1], paths[1:]], axis=2).reshape(-1, 2, d)
    columns = strips.columns(strips=segments).partition([tracked] * (count - 1))
    time = time_columns(scene, process, process.steps[1:])
    rec.send_columns(entity, indexes=time, columns=columns)


def views(scene: Scene) -> list[rrb.View]:
    """Return a view for each process."""
    views = []
    for process in scene.processes:
        side = process.side
        name = NAMES[side]
        if side == "reverse" and scene.guidance_text:
            name += f", {scene.guidance_text}"
        view = cloud_view(
            scene.dim,
            contents=f"/{side}/**",
            name=name,
            overrides={f"/{side}/tails": _tail_ranges(process)},
        )
        views.append(view)
    return views


def _tail_ranges(process: Process) -> rrb.VisibleTimeRanges:
    """Return how far tails reach into the past of a process on each clock.

    The clock t counts forward steps, so that the past of a reverse process has larger values.
    """
    steps = TAIL_STATES * median_step(process)
    relative = rrb.TimeRangeBoundary.cursor_relative
    if process.side == "reverse":
        t_range = rrb.VisibleTimeRange("t", start=relative(), end=relative(seq=steps))
    else:
        t_range = rrb.VisibleTimeRange("t", start=relative(seq=-steps), end=relative())
    return rrb.VisibleTimeRanges(
        [
            rrb.VisibleTimeRange("time", start=relative(seconds=-TAIL_S), end=relative()),
            rrb.VisibleTimeRange("step", start=relative(seq=-steps), end=relative()),
            t_range,
        ]
    )


def words(scene: Scene) -> Words:
    """Return what the colours mean, and what to try."""
    sides = {process.side for process in scene.processes}
    sees = []
    if "forward" in sides:
        sees.append("**Forward**: each step adds a little noise.")
    if "reverse" in sides:
        sees.append("**Reverse**: the network undoes it.")
    sees.append("**Colour**: light green is clean, dark red noise.")
    background = ""
    if scene.data is not None:
        background += "**Grey**: clean data. "
    if scene.dim == 2:
        background += "**Rings**: 1, 2 sigma of noise."
    if background:
        sees.append(background)
    cyan = ", with their labels." if scene.labels is not None else "."
    sees.append(f"**Cyan**: samples to follow{cyan}")
    units = "mean 0, deviation 1." if scene.normalised else "the data's own."
    sees.append(f"**Units**: {units}")
    if scene.names:
        axes = ("right", "up") if scene.dim == 2 else ("x, red", "y, green", "z, blue")
        named = [f"{_plain(name)} ({axis})" for name, axis in zip(scene.names, axes)]
        sees.append(f"**Axes**: {', '.join(named)}.")
    tries = []
    if len(sides) == 2:
        tries.append("On the clock `t` both are equally noisy: alike?")
    return Words(sees, tries)


def _plain(text: str) -> str:
    """Return a text of the user as Markdown shows it unchanged, in one line."""
    return re.sub(r"([\\`*_{}\[\]()<>#+.!|$~-])", r"\\\1", " ".join(text.split()))


PANEL = Panel(lambda scene: not scene.of_images, log, views=views, words=words)
