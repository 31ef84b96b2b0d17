"""What a recording holds: the forward and the reverse process, point by point. `python rerun_viz.py` shows one.

Two clocks run over the same rows. `step` tells the story: forward, the number of noisings so far; in reverse, the
number of denoisings. `t` counts noisings on both sides, so that the two stand at equal noise.
What stands around the points is in surroundings.py, where the views are in layout.py, what is computed in scene.py.
"""

import atexit
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rerun as rr
from numpy.typing import ArrayLike, NDArray

from metrics.scene import Process, Scene, checked_points, checked_rows
from viz import viewer as viewers
from viz.colours import TRACKED, noise_colours
from viz.recording import layout, surroundings

TAIL = 3  # recorded states over which the path of a tracked sample stays visible: more of them is a tangle
BATCH_BYTES = 2 << 20  # rows are sent in pieces of this size: quick, and little memory


def init_rerun(app_id: str, viewer: str = "auto", path: str | Path | None = None) -> rr.RecordingStream:
    """Begin the recording that the log functions write to by default; it ends, and is shown, when Python exits.

    Args:
        viewer: where it goes: "auto", "window", "web" or "file" (see viewer.recording).
        path: the file; by default outputs/APP_ID.rrd.
    """
    stack = ExitStack()
    rec = stack.enter_context(viewers.recording(app_id, path or f"outputs/{app_id}.rrd", viewer))
    rr.set_global_data_recording(rec)
    atexit.register(stack.close)
    return rec


def log_forward_diffusion(
    data: ArrayLike,
    trajectory: ArrayLike,
    track_samples: Sequence[int] = (),
    *,
    steps: Sequence[int] | None = None,
    alpha_bar: ArrayLike | None = None,
    rec: rr.RecordingStream | None = None,
) -> None:
    """Record the forward process: green clean points turn red as noise is added.

    Args:
        data: clean points (N, 2) or (N, 3).
        trajectory: (S, N, d): their states after steps[i] noisings.
        track_samples: rows drawn in cyan with the path they took.
        steps: (S,) rising; by default 1 .. S. The last one counts as pure noise.
        alpha_bar: (T + 1,), beginning with 1 for the clean data; where given, the schedule is drawn as well.
        rec: the recording; by default the one of `init_rerun`.

    Raises:
        ValueError: shapes that do not fit, NaN, or a tracked row that does not exist.
    """
    data, trajectory = np.asarray(data), np.asarray(trajectory)
    if trajectory.ndim != 3 or trajectory.shape[1:] != data.shape:
        raise ValueError(f"a trajectory of data {data.shape} has shape (S, *{data.shape}), not {trajectory.shape}")
    steps = np.concatenate([[0], np.arange(1, len(trajectory) + 1) if steps is None else np.asarray(steps)])
    forward = Process("forward", np.concatenate([data[None], trajectory]), steps)
    schedule = None if alpha_bar is None else np.asarray(alpha_bar)
    log_scene(Scene([forward], data=data, alpha_bar=schedule), track_samples, rec=rec)


def log_reverse_diffusion(
    states: ArrayLike,
    steps: Sequence[int],
    track_samples: Sequence[int] = (),
    *,
    data: ArrayLike | None = None,
    rec: rr.RecordingStream | None = None,
) -> None:
    """Record the reverse process: states (S, N, d), still noised noisings[i] times, from T down to 0.

    `data`, where given, is drawn behind in grey: what the samples should come to lie on.
    """
    reverse = Process("reverse", np.asarray(states), np.asarray(steps))
    log_scene(Scene([reverse], data=None if data is None else np.asarray(data)), track_samples, rec=rec)


def log_scene(scene: Scene, track_samples: Sequence[int] = (), *, rec: rr.RecordingStream | None = None) -> None:
    """Record everything that a scene holds, with the layout that shows it. Raises ValueError as above."""
    rec = rec or rr.get_global_data_recording()
    if rec is None:
        raise ValueError("there is no recording yet: call init_rerun first, or pass rec")
    processes = [p._replace(states=checked_points(p.states)) for p in scene.processes]
    tracked = [checked_rows(track_samples, p.states.shape[1]) for p in processes]  # before anything is sent
    scene = scene._replace(processes=processes, data=None if scene.data is None else checked_points(scene.data))
    rec.send_blueprint(layout.of_scene(scene, tail=TAIL))
    surroundings.log_backgrounds(rec, scene)
    for process, rows in zip(processes, tracked):
        _log_points(rec, process)
        if len(rows):
            _log_tracked(rec, process, rows)
    surroundings.log_extras(rec, scene)


# ---------------------------------------------------------------- one process


def _log_points(rec: rr.RecordingStream, process: Process) -> None:
    """All states on both clocks, a few at a time, under SIDE/points. One colour for each state."""
    side, states, steps, story = process.side, process.states, process.steps, process.story
    archetype, d = surroundings.points(states.shape[-1]), states.shape[-1]
    rec.log(f"{side}/points", archetype.from_fields(radii=rr.Radius.ui_points(1.7)), static=True)
    colours = noise_colours(steps / steps.max())
    per_batch = max(1, BATCH_BYTES // states[0].nbytes)
    for rows in np.array_split(np.arange(len(states)), -(-len(states) // per_batch)):
        rec.send_columns(
            f"{side}/points",
            indexes=surroundings.clocks(story[rows], steps[rows]),
            columns=[
                # a slice, not states[rows]: that would copy
                *archetype.columns(positions=states[rows[0] : rows[-1] + 1].reshape(-1, d)).partition(
                    [states.shape[1]] * len(rows)
                ),
                *archetype.columns(colors=colours[rows]),
            ],
        )


def _log_tracked(rec: rr.RecordingStream, process: Process, rows: NDArray[np.int64]) -> None:
    """Cyan points and, for each state after the first, one segment per sample from where it was."""
    side, clocks = process.side, surroundings.clocks(process.story, process.steps)
    paths = np.ascontiguousarray(process.states[:, rows])
    s, k, d = paths.shape
    archetype, strips = surroundings.points(d), rr.LineStrips2D if d == 2 else rr.LineStrips3D
    on_top, below = surroundings.in_order(d, 30.0), surroundings.in_order(d, 20.0)
    style = archetype.from_fields(radii=rr.Radius.ui_points(4.0), colors=[TRACKED], **on_top)
    rec.log(f"{side}/tracked", style, static=True)
    positions = archetype.columns(positions=paths.reshape(-1, d)).partition([k] * s)
    rec.send_columns(f"{side}/tracked", indexes=clocks, columns=positions)

    style = strips.from_fields(radii=rr.Radius.ui_points(1.0), colors=[TRACKED], **below)
    rec.log(f"{side}/tails", style, static=True)
    segments = np.stack([paths[:-1], paths[1:]], axis=2).reshape(-1, 2, d)
    clocks = surroundings.clocks(process.story[1:], process.steps[1:])
    rec.send_columns(f"{side}/tails", indexes=clocks, columns=strips.columns(strips=segments).partition([k] * (s - 1)))


if __name__ == "__main__":
    from dataset import create_moon_dataset
    from diffusion import DiffusionModel

    moons = create_moon_dataset(n_samples=500)
    init_rerun("rerun_viz")
    log_forward_diffusion(moons, DiffusionModel(num_timesteps=100).add_noise_trajectory(moons), [0, 10, 20])
