"""What is known around the processes of a recording: score fields, guesses, distances, losses. As arrays (scene.py)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dataset import PointSet, make_dataset
from diffusion import Denoiser, exact_denoiser, forward_states
from loss.log import NAME as LOSS_FILE
from loss.log import read_losses
from metrics.bayes import bayes_floor
from metrics.distances import sliced_wasserstein
from metrics.scene import Distance, Field, Loss, Process, Scene
from points.mixture import GaussianMixture
from runtime.randomness import generator
from runtime.trained import Trained
from sampler import State
from schedule import NoiseScheduler, evenly, t_of

REACH = 3.0  # the score field is drawn from -REACH to REACH
PER_SIDE = {2: 13, 3: 5}  # arrows along one side of the field
COMPARED = 1000  # points in a distance
DIRECTIONS = 32  # of the sliced distance
LONGEST_LOSS = 30  # bars


def alpha_bar(scheduler: NoiseScheduler) -> NDArray:
    """alpha-bar after 0 .. T forward steps: (T + 1,), beginning with 1 for the clean data."""
    return np.concatenate([[1.0], scheduler.alpha.square().numpy()])


def forward(scheduler: NoiseScheduler, data: NDArray, steps: Sequence[int], seed: int) -> Process:
    """The forward chain of data (N, *dims) after the chosen numbers of forward steps, which rise from 0."""
    states = np.empty((len(steps), *data.shape), np.float32)
    chain = forward_states(scheduler, torch.as_tensor(data), steps, generator(seed, "forward"))
    for i, x_t in enumerate(chain):
        states[i] = x_t
    return Process("forward", states, np.asarray(steps))


def reverse(states: Iterable[State], kept: slice, guessed: slice | NDArray) -> tuple[Process, NDArray, NDArray]:
    """The reverse process out of a sampler's states: rows `kept` of x_t, x_0 guesses of `guessed`, all samples.

    Of shapes (S, k, *dims), (S, g, *dims) and (N, *dims), float32.
    """
    steps, x_t, x_0, samples = [], [], [], np.empty(0)
    for state in states:
        steps.append(state.step)
        samples = state.x_t.float().cpu().numpy()
        x_t.append(samples[kept])
        x_0.append(state.x_0[guessed].float().cpu().numpy())
    return Process("reverse", np.stack(x_t), np.array(steps)), np.stack(x_0), samples


def real_sets(dataset: dict[str, Any], count: int, seed: int) -> tuple[PointSet, NDArray]:
    """Two independent sets of `count` real points (data units). Of a file each gets at most a half, without overlap."""
    real = make_dataset(n_samples=count, seed=seed + 1, **dataset)
    if real.mixture is not None:
        return real, make_dataset(n_samples=count, seed=seed + 2, **dataset).points
    points = make_dataset(n_samples=2 * count, seed=seed + 1, **dataset).points
    half = len(points) // 2
    return PointSet(points[:half]), points[half : 2 * half]


def of_forward(scheduler: NoiseScheduler, data: NDArray, viz_steps: int, seed: int) -> Scene:
    """The forward process of data (N, *dims) alone, in its own units: at most viz_steps states."""
    process = forward(scheduler, data, evenly(0, scheduler.num_timesteps, viz_steps), seed)
    return Scene([process], data=data, alpha_bar=alpha_bar(scheduler))


def of_trained(
    trained: Trained,
    process: Process,
    guesses: NDArray,
    folder: Path,
    *,
    labels: NDArray | None,
    tracked: NDArray,
    seed: int,
) -> Scene:
    """The reverse process of a trained network, with everything that can be known around it.

    Args:
        process, guesses: what `reverse` returned; of points the guesses are those of the `tracked` rows.
        folder: the run folder; its loss.csv is shown where there is one.
        labels: the condition of each sample, if any.
    """
    scheduler = trained.scheduler
    if trained.of_images:
        return Scene(
            [process], alpha_bar=alpha_bar(scheduler), guesses=(process.states, guesses),
            loss=loss(folder, None, scheduler), labels=labels, classes=trained.classes,
        )  # fmt: skip
    steps, scale = process.steps[::-1].tolist(), (trained.normaliser.mean, trained.normaliser.std)
    real, other = real_sets(trained.config["dataset"], process.states.shape[1], seed)
    mixture = real.mixture and real.mixture.scaled(*scale)
    data, held_out = (trained.normaliser.normalise(torch.as_tensor(p)).numpy() for p in (real.points, other))
    processes = [forward(scheduler, data, steps, seed), process]
    denoisers = {"network": trained.denoise()} | ({"exact": exact_denoiser(mixture, scheduler)} if mixture else {})
    return Scene(
        processes,
        data=data,
        alpha_bar=alpha_bar(scheduler),
        fields=[
            field(name, denoise, scheduler, steps, data.shape[1], trained.device) for name, denoise in denoisers.items()
        ],
        guesses=(process.states[:, tracked], guesses),
        distance=distance(processes, held_out, data),
        loss=loss(folder, mixture, scheduler),
        normalised=True,
    )


# ---------------------------------------------------------------- what stands beside the points


def field(
    name: str,
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    steps: Sequence[int],
    dim: int,
    device: torch.device | str = "cpu",
) -> Field:
    """Arrows on a grid that point along the score, -eps / sigma: towards where points are likelier at that noise.

    Scores span orders of magnitude, so the lengths saturate: half a cell at |eps| = 1, never more than a whole one.
    """
    side = torch.linspace(-REACH, REACH, PER_SIDE[dim])
    grid, cell = torch.cartesian_prod(*[side] * dim).to(device), float(side[1] - side[0])
    shown = [n for n in steps if n > 0]  # clean data has no score that a network could know
    with torch.no_grad():
        eps = torch.stack([denoise(grid, torch.tensor(t_of(n), device=device)).eps for n in shown]).cpu()
    vectors = -eps * cell / (1 + eps.norm(dim=-1, keepdim=True))
    return Field(name, grid.cpu().numpy(), vectors.float().numpy(), np.array(shown))


def distance(processes: Sequence[Process], real: NDArray, other: NDArray) -> Distance:
    """Sliced Wasserstein-1 of every state to `real` points (N, d) that no process began with; `other` is real too."""
    n = min(COMPARED, len(real), *[p.states.shape[1] for p in processes])
    real, other = real[:n], other[:n]
    by_side = {p.side: np.array([sliced_wasserstein(s[:n], real, DIRECTIONS) for s in p.states]) for p in processes}
    return Distance(by_side, sliced_wasserstein(other, real, DIRECTIONS))


def loss(folder: Path, mixture: GaussianMixture | None, scheduler: NoiseScheduler) -> Loss | None:
    """The training loss in a run folder, thinned to means; None where there is no loss.csv."""
    if not (folder / LOSS_FILE).exists():
        return None
    columns = read_losses(folder)
    size = -(-len(columns["loss"]) // LONGEST_LOSS)
    value = np.array([part.mean() for part in np.split(columns["loss"], range(size, len(columns["loss"]), size))])
    step = columns["step"][0] * size * np.arange(1, len(value) + 1)
    floor = bayes_floor(mixture, scheduler) if mixture else None
    return Loss(step, value, floor)
