"""A recording of a training: samples from the same noise, at several optimizer steps.

It has two timelines: `snapshot` counts the samplings, so that it plays evenly; `train_step` is the
optimizer step.
"""

from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loss.moments import Callback, Moment, log_spaced_steps
from metrics.distances import sliced_wasserstein
from pipeline import Pipeline
from runtime.randomness import generator
from samplers import last, sample
from samplers.options import SamplingOptions
from viz.replay import DIRECTIONS, between_real, real_sets

NUM_POINTS = 1000
SAMPLING_STEPS = 20  # of DPM-Solver++: enough to see what the network knows
NAME = "training.rrd"


class Snapshots(Callback):
    """Records samples of the network before the first step and at log-spaced steps of the training.

    The recording ends with `stack`. That of a web page lasts until Ctrl-C.

    Raises:
        ValueError: the data have not 2 or 3 coordinates.
        OSError: see viewer.recording.
    """

    def __init__(
        self,
        folder: Path,
        pipeline: Pipeline,
        start: int,
        total: int,
        viewer: str | None,
        stack: ExitStack,
    ) -> None:
        if pipeline.dims not in ((2,), (3,)):
            raise ValueError(
                "record=true shows points of 2 or 3 coordinates only; train without it",
            )
        # rerun takes a second to import, and most trainings record nothing.
        from viz.recording import training_recording
        from viz.viewer import recording

        shown = recording("moonwalk training", free_name(folder), viewer or "file", live=True)
        self.rec = stack.enter_context(shown)
        self.log = training_recording
        self.pipeline = pipeline
        self.numbers = {step: i for i, step in enumerate(log_spaced_steps(start, total))}
        self.losses: list[float] = []

        seed = pipeline.config["seed"]
        real, _ = real_sets(pipeline.config["dataset"], NUM_POINTS, seed)
        self.real = pipeline.normaliser.normalise(torch.from_numpy(real.points)).numpy()
        self.x_T = torch.randn(self.real.shape, generator=generator(seed, "snapshots"))
        self.floors = between_real(pipeline, len(self.real), seed)
        self.log.log_setting(self.rec, self.real, self.x_T.numpy())
        self._take(start)

    def after(self, moment: Moment) -> None:
        if moment.loss is not None:
            self.log.log_loss(self.rec, moment.done, moment.loss)
            self.losses.append(moment.loss)
        if moment.done in self.numbers:
            self._take(moment.done)

    def _take(self, done: int) -> None:
        """Record samples, their distance to the data, and the mean loss since the last samples."""
        number = self.numbers[done]
        points = samples(self.pipeline, self.x_T)
        if np.isfinite(points).all():  # an untrained network may send a point anywhere
            distance = sliced_wasserstein(points, self.real, DIRECTIONS)
            mean_loss = float(np.mean(self.losses)) if self.losses else None
            snapshot = self.log.Snapshot(number, done, points, distance, self.floors, mean_loss)
            self.log.log_snapshot(self.rec, snapshot, self.x_T.numpy())
        self.losses.clear()
        if done == max(self.numbers):
            self.log.log_end(self.rec, number, done, self.x_T.shape[1])


def free_name(folder: Path) -> Path:
    """training.rrd; for a resumed training training-2.rrd and so on, as each recording shows one
    part of it.

    The unfinished recording of a killed training is kept under such a name: a viewer opens it as
    far as it goes.
    """
    for unfinished in sorted(folder.glob(".training*.rrd.*")):
        unfinished.rename(_first_unused(folder))
    return _first_unused(folder)


def _first_unused(folder: Path) -> Path:
    path = folder / NAME
    for i in count(2):
        if not path.exists():
            break
        path = folder / NAME.replace(".", f"-{i}.")
    return path


def samples(pipeline: Pipeline, x_T: Tensor) -> NDArray:
    """Samples (N, d) from the noise x_T (N, d), in normalised units."""
    steps = min(SAMPLING_STEPS, pipeline.scheduler.num_timesteps)
    training = pipeline.net.training
    pipeline.net.eval()
    states = sample(
        pipeline.denoiser(),
        pipeline.scheduler,
        x_T.to(pipeline.device),
        SamplingOptions("dpmpp_2m", steps),
    )
    x_0 = last(states)
    pipeline.net.train(training)
    return x_0.float().cpu().numpy()
