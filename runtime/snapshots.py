"""A clock for training: samples of the same noise, made by the network at chosen moments of its training.

The moments are spaced evenly in the logarithm of the optimizer step, because a network learns most in its first steps.
Two clocks: `snapshot` counts the moments, so that it plays evenly; `train_step` is the optimizer step.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dataset import Normaliser
from diffusion import denoiser
from metrics.distances import sliced_wasserstein
from metrics.replay import DIRECTIONS, real_sets
from runtime.randomness import generator
from sampler import last, sample
from schedule import NoiseScheduler

MOMENTS = 40
POINTS = 1000
SOLVER_STEPS = 20  # of DPM-Solver++: enough to see what the network knows
NAME = "training.rrd"

# snapshot(done, net, loss): to be called before the first and after every optimizer step
Snapshot = Callable[[int, nn.Module, float | None], None]


@contextmanager
def recorded(
    run_folder: Path, config: dict[str, Any], scheduler: NoiseScheduler, normaliser: Normaliser, start: int, total: int
) -> Iterator[Snapshot]:
    """What a training from step `start` to `total` calls on its way; without record or viewer it does nothing.

    Raises:
        ValueError: the data has not 2 or 3 coordinates.
        OSError: see viewer.recording.
    """
    if not (config["record"] or config["viewer"]):
        yield lambda done, net, loss: None
        return
    if tuple(normaliser.mean.shape) not in ((2,), (3,)):
        raise ValueError("record=true shows points of 2 or 3 coordinates only; train without it")
    from viz.viewer import recording  # rerun takes a second, and most trainings do without

    with recording("moonwalk training", run_folder / NAME, config["viewer"] or "file", live=True) as rec:
        yield _taker(rec, config, scheduler, normaliser, moments(start, total))


def moments(start: int, total: int) -> list[int]:
    """start, 1, 2, ... total: at most MOMENTS + 1 optimizer steps, evenly spaced in their logarithm."""
    even = np.geomspace(1, total, MOMENTS).round().astype(int).tolist()
    return sorted({start, *(m for m in even if m > start)})


def _taker(
    rec: Any, config: dict[str, Any], scheduler: NoiseScheduler, normaliser: Normaliser, due: list[int]
) -> Snapshot:
    from viz.recording import training as viz

    seed = config["seed"]
    first, second = real_sets(config["dataset"], POINTS, seed)
    real, other = (normaliser.normalise(torch.from_numpy(points)).numpy() for points in (first.points, second))
    x_T = torch.randn(real.shape, generator=generator(seed, "snapshots"))
    viz.log_setting(rec, real, x_T.numpy())
    floor = sliced_wasserstein(real, other, DIRECTIONS)
    number, losses = {step: i for i, step in enumerate(due)}, []

    def snapshot(done: int, net: nn.Module, loss: float | None) -> None:
        if loss is not None:
            viz.log_loss(rec, done, loss)
            losses.append(loss)
        if done in number:
            points = samples(net, scheduler, config["model"]["prediction"], x_T)
            if np.isfinite(points).all():  # a network that has learnt nothing may send a point anywhere
                distance = sliced_wasserstein(points, real, DIRECTIONS)
                mean = float(np.mean(losses)) if losses else None
                viz.log_snapshot(rec, viz.Snapshot(number[done], done, points, distance, floor, mean), x_T.numpy())
            losses.clear()
        if done == due[-1]:
            viz.log_end(rec, number[done], done, x_T.shape[1])

    return snapshot


def samples(net: nn.Module, scheduler: NoiseScheduler, prediction: str, x_T: Tensor) -> NDArray:
    """What the network makes of the noise x_T (N, d), in normalised units. Leaves the network as it was."""
    device, training = next(net.parameters()).device, net.training
    denoise, steps = denoiser(net.eval(), scheduler, prediction), min(SOLVER_STEPS, scheduler.num_timesteps)
    x_0 = last(sample(denoise, scheduler, x_T.to(device), sampler="dpmpp_2m", sampling_steps=steps))
    net.train(training)
    return x_0.float().cpu().numpy()
