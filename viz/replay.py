"""What is known around the processes of a recording: score fields, guesses, distances, losses. As arrays (scene.py)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dataset import PointSet, make_dataset
from diffusion import Denoiser, exact_denoiser, forward_states
from loss.log import NAME as LOSS_FILE
from loss.log import read_losses
from loss.objective import weight_of
from metrics.bayes import bayes_floor
from metrics.distances import sliced_wasserstein
from pipeline import Pipeline
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import State
from samplers.guidance import exact_guided_denoiser
from samplers.options import SamplingOptions
from samplers.spacing import clock, evenly_on
from schedule import NoiseScheduler, t_of
from viz.scene import Distance, Field, Loss, Process, Scene

REACH = 3.0  # the score field is drawn from -REACH to REACH
PER_SIDE = {2: 13, 3: 5}  # arrows along one side of the field
COMPARED = 1000  # points in a distance
DIRECTIONS = 32  # of the sliced distance
PAIRS = 20  # of real sets, whose distances are the floor
LONGEST_LOSS = 30  # bars
LABELS_DRAWN = 4  # whose score fields are drawn


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


def real_sets(
    dataset: dict[str, Any], count: int, seed: int, labels: NDArray | None = None
) -> tuple[PointSet, NDArray]:
    """Two independent sets of `count` real points (data units), of these labels only where some are given.

    Of a file each gets at most a half, without overlap.
    """
    real = _drawn(dataset, count, seed + 1, labels)
    if real.mixture is not None:
        return real, _drawn(dataset, count, seed + 2, labels).points
    points = _drawn(dataset, 2 * count, seed + 1, labels).points
    half = len(points) // 2
    return PointSet(points[:half]), points[half : 2 * half]


def _drawn(dataset: dict[str, Any], count: int, seed: int, labels: NDArray | None) -> PointSet:
    data = make_dataset(n_samples=count, seed=seed, **dataset)
    if labels is None or data.labels is None or not (among := np.isin(data.labels, labels)).any() or among.all():
        return data
    more = make_dataset(n_samples=-(-2 * count * len(data) // int(among.sum())), seed=seed, **dataset)
    assert more.labels is not None
    rows = np.flatnonzero(np.isin(more.labels, labels))[:count]
    return replace(more, points=more.points[rows], labels=more.labels[rows])


def of_forward(scheduler: NoiseScheduler, data: NDArray, viz_steps: int, seed: int) -> Scene:
    """The forward process of data (N, *dims) alone, in its own units: at most viz_steps states."""
    process = forward(scheduler, data, evenly_on(clock(scheduler.alpha_bar), viz_steps), seed)
    return Scene([process], data=data, alpha_bar=scheduler.alpha_bar)


def of_trained(
    pipeline: Pipeline,
    process: Process,
    guesses: NDArray,
    folder: Path,
    *,
    labels: NDArray | None,
    tracked: NDArray,
    seed: int,
    options: SamplingOptions,
) -> Scene:
    """The reverse process of a trained network, with everything that can be known around it.

    Args:
        process, guesses: what `reverse` returned; of points the guesses are those of the `tracked` rows.
        folder: the run folder; its loss.csv is shown where there is one.
        labels: the condition of each sample, if any.
        options: how it was sampled.
    """
    scheduler = pipeline.scheduler
    scene = Scene(
        [process], alpha_bar=scheduler.alpha_bar, labels=labels, classes=pipeline.classes, steered=options.guidance_text
    )
    if pipeline.of_images:
        return scene._replace(guesses=(process.states, guesses), loss=loss(folder, None))
    asked = None if labels is None else np.unique(labels)
    real, _ = real_sets(pipeline.config["dataset"], process.states.shape[1], seed, asked)
    data = pipeline.normaliser.normalise(torch.as_tensor(real.points)).numpy()
    processes = [forward(scheduler, data, process.steps[::-1].tolist(), seed), process]
    compared = min(COMPARED, len(data), process.states.shape[1])
    return scene._replace(
        processes=processes,
        data=data,
        fields=fields(pipeline, real, process.steps[::-1].tolist(), asked, options),
        guesses=(process.states[:, tracked], guesses),
        distance=distance(processes, data[:compared], between_real(pipeline, compared, seed, asked)),
        loss=loss(folder, loss_floor(pipeline, real)),
        normalised=True,
    )


# ---------------------------------------------------------------- what stands beside the points


def fields(
    pipeline: Pipeline, real: PointSet, steps: Sequence[int], asked: NDArray | None, options: SamplingOptions
) -> list[Field]:
    """The network's score as it was sampled and, where it is known, the exact one with the same guidance.

    Of a conditional model for each of the labels asked for, the first few.
    """
    distribution, scheduler = pipeline.normaliser.distribution, pipeline.scheduler
    denoisers = {"network": pipeline.denoiser(options)}
    if real.mixture:
        denoisers["exact"] = exact_denoiser(distribution(real.mixture), scheduler)
        if asked is not None:
            parts = [distribution(part) for part in real.parts]
            weight = options.guidance or 0.0
            denoisers["exact"] = exact_guided_denoiser(parts, scheduler, weight, options.guidance_interval)
    return [
        field(name, denoise, steps, pipeline.dims[0], pipeline.device, label)
        for label in ([None] if asked is None else asked[:LABELS_DRAWN].tolist())
        for name, denoise in denoisers.items()
    ]


def field(
    name: str,
    denoise: Denoiser,
    steps: Sequence[int],
    dim: int,
    device: torch.device | str = "cpu",
    label: int | None = None,
) -> Field:
    """Arrows on a grid that point along the score, -eps / sigma: towards where points are likelier at that noise.

    Scores span orders of magnitude, so the lengths saturate: half a cell at |eps| = 1, never more than a whole one.
    """
    side = torch.linspace(-REACH, REACH, PER_SIDE[dim])
    grid, cell = torch.cartesian_prod(*[side] * dim).to(device), float(side[1] - side[0])
    condition = None if label is None else torch.full((len(grid),), label, device=device)
    shown = [n for n in steps if n > 0]  # clean data has no score that a network could know
    with torch.no_grad():
        eps = [denoise(grid, torch.tensor(t_of(n), device=device), condition).eps for n in shown]
    eps = torch.stack(eps).cpu()
    vectors = -eps * cell / (1 + eps.norm(dim=-1, keepdim=True))
    return Field(name, grid.cpu().numpy(), vectors.float().numpy(), np.array(shown), label)


def distance(processes: Sequence[Process], real: NDArray, floors: NDArray) -> Distance:
    """Sliced Wasserstein-1 of every state to `real` points (n, d) that no process began with, by n of its points."""
    n = len(real)
    by_side = {p.side: np.array([sliced_wasserstein(s[:n], real, DIRECTIONS) for s in p.states]) for p in processes}
    return Distance(by_side, floors)


def between_real(pipeline: Pipeline, count: int, seed: int, labels: NDArray | None = None) -> NDArray:
    """The same distance between two sets of `count` real points, for each of some pairs (PAIRS,); normalised units."""
    pool = _drawn(pipeline.config["dataset"], 2 * count * PAIRS, seed + 3, labels).points
    pool, count = pipeline.normaliser.normalise(torch.as_tensor(pool)), min(count, len(pool) // 2)
    found = []
    for i in range(PAIRS):
        rows = torch.randperm(len(pool), generator=generator(seed, "pairs", i))
        one, other = pool[rows[:count]].numpy(), pool[rows[count : 2 * count]].numpy()
        found.append(sliced_wasserstein(one, other, DIRECTIONS))
    return np.array(found)


def loss_floor(pipeline: Pipeline, real: PointSet) -> float | None:
    """The Bayes floor of the loss that was trained with; None where it is not known.

    Of a conditional model that of its labels, and of the whole for as many rows as lost theirs.
    """
    if not real.mixture or weight_of(pipeline.scheduler, pipeline.config.get("loss_weight")) != "eps":
        return None

    def floor(mixture: GaussianMixture) -> float:
        return bayes_floor(pipeline.normaliser.distribution(mixture), pipeline.scheduler)

    if not pipeline.classes:
        return floor(real.mixture)
    dropped = pipeline.config.get("label_dropout", 0.0)
    return (1 - dropped) * float(np.mean([*map(floor, real.parts)])) + dropped * floor(real.mixture)


def loss(folder: Path, floor: float | None) -> Loss | None:
    """The training loss in a run folder, thinned to means; None where there is no loss.csv."""
    if not (folder / LOSS_FILE).exists():
        return None
    columns = read_losses(folder)
    size = -(-len(columns["loss"]) // LONGEST_LOSS)
    value = np.array([part.mean() for part in np.split(columns["loss"], range(size, len(columns["loss"]), size))])
    return Loss(columns["step"][0] * size * np.arange(1, len(value) + 1), value, floor)
