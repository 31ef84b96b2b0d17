"""Recordings of the forward and the reverse process. `python rerun_viz.py` shows one.

Three clocks run over the same rows. `time`, in seconds, plays every process in ten, evenly in log-SNR (scene.clock).
`step` counts the steps that a process has gone, forward or back. `t` counts forward steps on both sides, so that the
two are equally noisy at any moment.
What a recording shows stands in viz/recording/, one file a panel.
"""

import atexit
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rerun as rr
from numpy.typing import ArrayLike

from runtime.arrays import numbers
from viz import viewer as viewers
from viz.recording.layout import log_panels
from viz.scene import Process, Scene, checked_points, checked_rows


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
    track_samples: ArrayLike = (),
    *,
    steps: Sequence[int] | None = None,
    alpha_bar: ArrayLike | None = None,
    rec: rr.RecordingStream | None = None,
) -> None:
    """Record the forward process: light green clean points turn dark red as noise is added.

    Args:
        data: clean points (N, 2) or (N, 3).
        trajectory: (S, N, d): their states after steps[i] forward steps.
        track_samples: rows drawn in cyan with the path they took.
        steps: (S,) rising; by default 1 .. S. The last one counts as pure noise.
        alpha_bar: (T + 1,), beginning with 1 for the clean data; where given, the schedule is drawn as well.
        rec: the recording; by default the one of `init_rerun`.

    Raises:
        ValueError: shapes that do not fit, NaN, or a tracked row that does not exist.
    """
    data, trajectory = numbers(data, "data").numpy(), numbers(trajectory, "trajectory").numpy()
    if trajectory.ndim != 3 or trajectory.shape[1:] != data.shape:
        raise ValueError(f"a trajectory of data {data.shape} has shape (S, *{data.shape}), not {trajectory.shape}")
    after = np.arange(1, len(trajectory) + 1) if steps is None else np.asarray(steps)
    forward = Process("forward", np.concatenate([data[None], trajectory]), np.concatenate([[0], after]))
    schedule = None if alpha_bar is None else np.asarray(alpha_bar)
    log_scene(Scene([forward], data=data, alpha_bar=schedule), track_samples, rec=rec)


def log_reverse_diffusion(
    states: ArrayLike,
    steps: Sequence[int],
    track_samples: ArrayLike = (),
    *,
    data: ArrayLike | None = None,
    rec: rr.RecordingStream | None = None,
) -> None:
    """Record the reverse process: states (S, N, d), as noisy as after steps[i] forward steps, from T down to 0.

    `data`, where given, is drawn behind in grey: what the samples should come to lie on.
    """
    reverse = Process("reverse", numbers(states, "states").numpy(), np.asarray(steps))
    log_scene(Scene([reverse], data=None if data is None else np.asarray(data)), track_samples, rec=rec)


def log_scene(scene: Scene, track_samples: ArrayLike = (), *, rec: rr.RecordingStream | None = None) -> None:
    """Record everything that a scene of points or images holds, with the layout that shows it.

    `track_samples` belongs to points. Raises ValueError as above.
    """
    rec = rec or rr.get_global_data_recording()
    if rec is None:
        raise ValueError("there is no recording yet: call init_rerun first, or pass rec")
    if not scene.of_images:  # all of it is checked before anything is sent
        for p in scene.processes:
            if p.states.ndim != 3 or p.steps.shape != p.states.shape[:1] or p.steps.dtype.kind not in "iu":
                raise ValueError(f"states {p.states.shape} need as many whole steps, not {p.steps.shape}")
            if not p.steps.size or p.steps.max() < 1:
                raise ValueError("a process has at least one forward step, but its steps hold none above 0")
        processes = [p._replace(states=checked_points(p.states)) for p in scene.processes]
        rows = checked_rows(track_samples, min(p.states.shape[1] for p in processes))
        data = None if scene.data is None else checked_points(scene.data)
        scene = scene._replace(processes=processes, data=data, tracked=rows)
    log_panels(rec, scene)


if __name__ == "__main__":
    from dataset import create_moon_dataset
    from diffusion import DiffusionModel

    moons = create_moon_dataset(n_samples=500)
    init_rerun("rerun_viz")
    log_forward_diffusion(moons, DiffusionModel(num_timesteps=100).add_noise_trajectory(moons), [0, 10, 20])
