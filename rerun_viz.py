"""What a recording holds: the forward and the reverse process, point by point. `python rerun_viz.py` shows one.

Two clocks run over the same rows. `step` tells the story: forward, the number of noisings so far; in reverse, the
number of denoisings. `t` counts noisings on both sides, so that the two stand at equal noise.
"""

import atexit
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import ArrayLike, NDArray

import viewer as viewers
from palette import DATA, TRACKED, noise_colours

TAIL = 10  # recorded states over which the path of a tracked sample stays visible
STATES_PER_S = 16
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
    rec: rr.RecordingStream | None = None,
) -> None:
    """Record the forward process: green clean points turn red as noise is added.

    Args:
        data: clean points (N, 2) or (N, 3).
        trajectory: (S, N, d): their states after steps[i] noisings.
        track_samples: rows drawn in cyan with the path they took.
        steps: (S,) rising; by default 1 .. S. The last one counts as pure noise.
        rec: the recording; by default the one of `init_rerun`.

    Raises:
        ValueError: shapes that do not fit, NaN, or a tracked row that does not exist.
    """
    data, trajectory = np.asarray(data), np.asarray(trajectory)
    if trajectory.ndim != 3 or trajectory.shape[1:] != data.shape:
        raise ValueError(f"a trajectory of data {data.shape} has shape (S, *{data.shape}), not {trajectory.shape}")
    states = np.concatenate([data[None], trajectory])
    noisings = np.concatenate([[0], np.arange(1, len(states)) if steps is None else np.asarray(steps)])
    _log_process(_recording(rec), "forward", states, noisings, noisings, track_samples)


def log_reverse_diffusion(
    states: ArrayLike,
    noisings: Sequence[int],
    track_samples: Sequence[int] = (),
    *,
    data: ArrayLike | None = None,
    rec: rr.RecordingStream | None = None,
) -> None:
    """Record the reverse process: states (S, N, d), still noised noisings[i] times, from T down to 0.

    `data`, where given, is drawn behind in grey: what the samples should come to lie on.
    """
    rec, noisings = _recording(rec), np.asarray(noisings)
    if data is not None:
        data = _checked(np.asarray(data))
        rec.log(
            "reverse/data",
            _points(data.shape[-1])(data, colors=DATA, radii=rr.Radius.ui_points(1.0)),
            static=True,
        )
    _log_process(rec, "reverse", np.asarray(states), noisings[0] - noisings, noisings, track_samples)


def _send_layout(rec: rr.RecordingStream, side: str, d: int, tail: int) -> None:
    """One large view that plays in a loop; the paths of tracked samples fade after `tail` steps."""
    view = rrb.Spatial2DView if d == 2 else rrb.Spatial3DView
    visible = rrb.VisibleTimeRanges(
        timeline="step",
        start=rrb.TimeRangeBoundary.cursor_relative(seq=-tail),
        end=rrb.TimeRangeBoundary.cursor_relative(),
    )
    # origin "/", not the side: only so does the flip of the y axis apply
    scene = view(origin="/", contents=f"/{side}/**", name=f"{side} process", overrides={f"/{side}/tails": visible})
    panel = rrb.TimePanel(
        state="collapsed",
        timeline="step",
        play_state="playing",
        loop_mode="all",
        fps=STATES_PER_S * tail / TAIL,
    )
    rec.send_blueprint(rrb.Blueprint(scene, panel, collapse_panels=True))


# ---------------------------------------------------------------- one process


def _log_process(
    rec: rr.RecordingStream,
    side: str,
    states: NDArray,
    story: NDArray,
    noisings: NDArray,
    track_samples: Sequence[int],
) -> None:
    """states (S, N, d) on both clocks, under the entities SIDE/points, SIDE/tracked and SIDE/tails."""
    states = _checked(states)
    tracked = _checked_rows(track_samples, states.shape[1])
    d = states.shape[-1]
    if d == 2:  # rerun's 2D views point y down
        rec.log(side, rr.Transform3D(scale=[1, -1, 1]), static=True)
    archetype = _points(d)
    rec.log(f"{side}/points", archetype.from_fields(radii=rr.Radius.ui_points(1.7)), static=True)
    colours = noise_colours(noisings / noisings.max())
    per_batch = max(1, BATCH_BYTES // states[0].nbytes)
    for rows in np.array_split(np.arange(len(states)), -(-len(states) // per_batch)):
        rec.send_columns(
            f"{side}/points",
            indexes=_clocks(story[rows], noisings[rows]),
            columns=[
                *archetype.columns(positions=states[rows].reshape(-1, d)).partition([states.shape[1]] * len(rows)),
                *archetype.columns(colors=colours[rows]),
            ],
        )
    if len(tracked):
        _log_tracked(rec, side, states[:, tracked], story, noisings)
    _send_layout(rec, side, d, tail=TAIL * int(np.diff(story).max()))


def _log_tracked(rec: rr.RecordingStream, side: str, paths: NDArray, story: NDArray, noisings: NDArray) -> None:
    """Cyan points and, for each state after the first, one segment per sample from where it was: paths (S, K, d)."""
    s, k, d = paths.shape
    archetype, strips = _points(d), rr.LineStrips2D if d == 2 else rr.LineStrips3D
    rec.log(
        f"{side}/tracked",
        archetype.from_fields(radii=rr.Radius.ui_points(4.0), colors=[TRACKED], **_on_top(d, 20.0)),
        static=True,
    )
    rec.send_columns(
        f"{side}/tracked",
        indexes=_clocks(story, noisings),
        columns=archetype.columns(positions=np.ascontiguousarray(paths).reshape(-1, d)).partition([k] * s),
    )
    rec.log(
        f"{side}/tails",
        strips.from_fields(radii=rr.Radius.ui_points(1.0), colors=[TRACKED], **_on_top(d, 10.0)),
        static=True,
    )
    segments = np.stack([paths[:-1], paths[1:]], axis=2).reshape(-1, 2, d)
    rec.send_columns(
        f"{side}/tails",
        indexes=_clocks(story[1:], noisings[1:]),
        columns=strips.columns(strips=segments).partition([k] * (s - 1)),
    )


def _on_top(d: int, order: float) -> dict[str, float]:
    return {"draw_order": order} if d == 2 else {}


def _clocks(story: NDArray, noisings: NDArray) -> list[rr.TimeColumn]:
    return [rr.TimeColumn("step", sequence=story), rr.TimeColumn("t", sequence=noisings)]


def _points(d: int) -> type[rr.Points2D] | type[rr.Points3D]:
    return rr.Points2D if d == 2 else rr.Points3D


def _checked(points: NDArray) -> NDArray[np.float32]:
    """Points (..., 2 or 3) as contiguous float32, finite: rerun itself accepts NaN without a word."""
    points = np.ascontiguousarray(points, dtype=np.float32)
    if points.ndim < 2 or points.shape[-1] not in (2, 3):
        raise ValueError(f"points must have 2 or 3 coordinates, got shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("the points hold NaN or infinity: nothing was recorded")
    return points


def _checked_rows(rows: Sequence[int], count: int) -> NDArray[np.int64]:
    rows = np.asarray(rows, dtype=np.int64)
    if rows.size and not (rows.min() >= 0 and rows.max() < count):
        raise ValueError(f"track_samples must lie in 0..{count - 1}, got {rows.tolist()}")
    return rows


def _recording(rec: rr.RecordingStream | None) -> rr.RecordingStream:
    rec = rec or rr.get_global_data_recording()
    if rec is None:
        raise ValueError("there is no recording yet: call init_rerun first, or pass rec")
    return rec


if __name__ == "__main__":
    from dataset import create_moon_dataset
    from diffusion import DiffusionModel

    moons = create_moon_dataset(n_samples=500)
    init_rerun("rerun_viz")
    log_forward_diffusion(moons, DiffusionModel(num_timesteps=100).add_noise_trajectory(moons), [0, 10, 20])
