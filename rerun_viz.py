"""Recordings of the forward and the reverse process. `python rerun_viz.py` shows one.

Three clocks run over the same rows:

* `time`, in seconds, plays each process in ten seconds, evenly in log-SNR (see
  samplers.spacing.clock);
* `step` counts the steps that a process has made, forward or reverse;
* `t` counts forward steps in both processes, so that they are equally noisy at each moment.

viz/recording/ holds what a recording shows, one file for each panel.
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


def init_rerun(
    app_id: str,
    viewer: str = "auto",
    path: str | Path | None = None,
) -> rr.RecordingStream:
    """Begin the recording that the log functions use by default.

    It ends, and is shown, when Python exits.

    Args:
        app_id: the name of the application in the viewer.
        viewer: where it goes: "auto", "window", "web" or "file" (see viz.viewer.recording).
        path: the file; by default outputs/APP_ID.rrd.

    Raises:
        ValueError, OSError: see viz.viewer.recording.
    """
    if path is None:
        path = f"outputs/{app_id}.rrd"
    stack = ExitStack()
    rec = stack.enter_context(viewers.recording(app_id, path, viewer))
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
    """Record the forward process: green, clean points turn red as noise is added.

    Args:
        data: clean points (N, 2) or (N, 3).
        trajectory: (S, N, d), the points after steps[i] forward steps.
        track_samples: rows that are drawn in cyan, with their paths.
        steps: (S,), rising; by default 1 .. S. The last is shown as pure noise.
        alpha_bar: (T + 1,), beginning with 1 for clean data. With it the schedule is drawn as well.
        rec: the recording; by default the one of `init_rerun`.

    Raises:
        ValueError: shapes that do not fit, NaN, or a tracked row that does not exist.
    """
    data = numbers(data, "data").numpy()
    trajectory = numbers(trajectory, "trajectory").numpy()
    if trajectory.ndim != 3 or trajectory.shape[1:] != data.shape:
        raise ValueError(f"a trajectory of data {data.shape} has shape (S, *{data.shape}), not {trajectory.shape}")
    after = np.arange(1, len(trajectory) + 1) if steps is None else np.asarray(steps)
    states = np.concatenate([data[None], trajectory])
    forward = Process("forward", states, np.concatenate([[0], after]))
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
    """Record the reverse process.

    Args:
        states: (S, N, d), as noisy as after steps[i] forward steps.
        steps: (S,), falling from T to 0.
        track_samples: rows that are drawn in cyan, with their paths.
        data: (N, d), real points that the samples should resemble; drawn in grey behind them.
        rec: the recording; by default the one of `init_rerun`.

    Raises:
        ValueError: as `log_forward_diffusion`.
    """
    reverse = Process("reverse", numbers(states, "states").numpy(), np.asarray(steps))
    real = None if data is None else np.asarray(data)
    log_scene(Scene([reverse], data=real), track_samples, rec=rec)


def log_scene(
    scene: Scene,
    track_samples: ArrayLike = (),
    *,
    rec: rr.RecordingStream | None = None,
) -> None:
    """Record everything that a scene of points or images holds, with a layout that shows it.

    Args:
        scene: what to show.
        track_samples: rows of points that are drawn in cyan, with their paths.
        rec: the recording; by default the one of `init_rerun`.

    Raises:
        ValueError: as `log_forward_diffusion`, or there is no recording yet.
    """
    if rec is None:
        rec = rr.get_global_data_recording()
    if rec is None:
        raise ValueError("there is no recording yet: call init_rerun first, or pass rec")
    if not scene.of_images:
        scene = _checked(scene, track_samples)
    log_panels(rec, scene)


def _checked(scene: Scene, track_samples: ArrayLike) -> Scene:
    """Return a scene of points with checked arrays, before anything of it is sent.

    Raises:
        ValueError: as `log_scene`.
    """
    for process in scene.processes:
        shape = process.states.shape
        steps = process.steps
        if len(shape) != 3 or steps.shape != shape[:1] or steps.dtype.kind not in "iu":
            raise ValueError(f"states {shape} need as many whole steps, not {steps.shape}")
        if not steps.size or steps.max() < 1:
            raise ValueError(
                "a process has at least one forward step, but its steps hold none above 0",
            )
    processes = []
    for process in scene.processes:
        processes.append(process._replace(states=checked_points(process.states)))
    count = min(process.states.shape[1] for process in processes)
    return scene._replace(
        processes=processes,
        data=None if scene.data is None else checked_points(scene.data),
        tracked=checked_rows(track_samples, count),
    )


if __name__ == "__main__":
    from dataset import create_moon_dataset
    from diffusion import DiffusionModel

    moons = create_moon_dataset(n_samples=500)
    trajectory = DiffusionModel(num_timesteps=100).add_noise_trajectory(moons)
    init_rerun("rerun_viz")
    log_forward_diffusion(moons, trajectory, [0, 10, 20])
