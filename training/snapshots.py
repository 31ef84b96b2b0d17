"""A clock for training: samples of the same noise, made by the network at chosen moments of its training.

Two clocks: `snapshot` counts the moments, so that it plays evenly; `train_step` is the optimizer step.
"""

from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loss.moments import Moment, moments
from metrics.distances import sliced_wasserstein
from pipeline import Pipeline
from runtime.randomness import generator
from samplers import last, sample
from samplers.options import SamplingOptions
from viz.replay import DIRECTIONS, between_real, real_sets

POINTS = 1000
SOLVER_STEPS = 20  # of DPM-Solver++: enough to see what the network knows
NAME = "training.rrd"


class Snapshots:
    """Records samples of the network as it then is: before the first step, and at `moments` on the way.

    The recording ends with `stack`; a web page lasts until Ctrl-C.

    Raises:
        ValueError: the data has not 2 or 3 coordinates.
        OSError: see viewer.recording.
    """

    def __init__(
        self, folder: Path, pipeline: Pipeline, start: int, total: int, viewer: str | None, stack: ExitStack
    ) -> None:
        if pipeline.dims not in ((2,), (3,)):
            raise ValueError("record=true shows points of 2 or 3 coordinates only; train without it")
        from viz.recording import (
            training_recording as training,
        )  # rerun takes a second to import, and most trainings do without
        from viz.viewer import recording

        rec = stack.enter_context(recording("moonwalk training", free(folder), viewer or "file", live=True))
        self.viz, self.rec, self.pipeline, self.start = training, rec, pipeline, start
        self.number = {step: i for i, step in enumerate(moments(start, total))}
        seed, normalise = pipeline.config["seed"], pipeline.normaliser.normalise
        real, _ = real_sets(pipeline.config["dataset"], POINTS, seed)
        self.real = normalise(torch.from_numpy(real.points)).numpy()
        self.x_T = torch.randn(self.real.shape, generator=generator(seed, "snapshots"))
        self.floors = between_real(pipeline, len(self.real), seed)
        self.losses: list[float] = []
        training.log_setting(rec, self.real, self.x_T.numpy())
        self._take(start)

    def after(self, moment: Moment) -> None:
        if moment.loss is not None:
            self.viz.log_loss(self.rec, moment.done, moment.loss)
            self.losses.append(moment.loss)
        if moment.done in self.number:
            self._take(moment.done)

    def _take(self, done: int) -> None:
        points = samples(self.pipeline, self.x_T)
        if np.isfinite(points).all():  # a network that has learnt nothing may send a point anywhere
            distance = sliced_wasserstein(points, self.real, DIRECTIONS)
            mean = float(np.mean(self.losses)) if self.losses else None
            snapshot = self.viz.Snapshot(self.number[done], done, points, distance, self.floors, mean)
            self.viz.log_snapshot(self.rec, snapshot, self.x_T.numpy())
        self.losses.clear()
        if done == max(self.number):
            self.viz.log_end(self.rec, self.number[done], done, self.x_T.shape[1])

    def close(self) -> None:
        pass


def free(folder: Path) -> Path:
    """training.rrd, or for a training that goes on training-2.rrd and so on: each recording is of one part of it.

    What a killed training had recorded is kept under such a name: it can be opened as far as it goes.
    """
    names = (NAME if i == 1 else NAME.replace(".", f"-{i}.") for i in count(1))
    paths = (folder / name for name in names if not (folder / name).exists())
    for unfinished in sorted(folder.glob(".training*.rrd.*")):
        unfinished.rename(next(paths))
    return next(paths)


def samples(pipeline: Pipeline, x_T: Tensor) -> NDArray:
    """What the network makes of the noise x_T (N, d), in normalised units. Leaves the network as it was."""
    steps, training = min(SOLVER_STEPS, pipeline.scheduler.num_timesteps), pipeline.net.training
    pipeline.net.eval()
    x_T = x_T.to(pipeline.device)
    x_0 = last(sample(pipeline.denoiser(), pipeline.scheduler, x_T, SamplingOptions("dpmpp_2m", steps)))
    pipeline.net.train(training)
    return x_0.float().cpu().numpy()
