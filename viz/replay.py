"""The scene of a recording, computed: processes, score fields, predictions, distances and losses, as plain arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dataset import PointSet, make_dataset
from diffusion import Denoiser, exact_denoiser, forward_states
from loss.log import LOSS_FILE as LOSS_FILE
from loss.log import read_losses
from metrics import bayes
from metrics.bayes import loss_conditions
from metrics.distances import sliced_wasserstein
from pipeline import Pipeline
from points.tables import Columns, coordinate_names
from runtime.randomness import generator
from samplers import State
from samplers.guidance import exact_guided_denoiser
from samplers.options import SamplingOptions
from samplers.spacing import clock, evenly_on
from schedule import NoiseScheduler, t_from_step
from viz.scene import Distance, Field, Loss, Process, Scene

FIELD_RANGE = 3.0  # the score field is drawn from -FIELD_RANGE to FIELD_RANGE
ARROWS_PER_SIDE = {2: 13, 3: 5}  # by dimension
COMPARED = 1000  # points in a distance
DIRECTIONS = 32  # of the sliced distance
PAIRS = 20  # of real sets, whose distances are the floor
LOSS_BARS_MAX = 30
MOST_UNLIKE = 2.0  # standard deviations of x and y whose ratio is larger keep their ratio in films
FIELD_LABELS_MAX = 4  # labels whose score fields are drawn


# ---------------------------------------------------------------- processes


def forward(scheduler: NoiseScheduler, data: NDArray, steps: Sequence[int], seed: int) -> Process:
    """The forward chain of data (N, *dims) after the chosen numbers of forward steps, which rise from 0."""
    states = np.empty((len(steps), *data.shape), np.float32)
    chain = forward_states(scheduler, torch.as_tensor(data), steps, generator(seed, "forward"))
    for i, x_t in enumerate(chain):
        states[i] = x_t
    return Process("forward", states, np.asarray(steps))


def reverse(states: Iterable[State], kept: slice, predicted: slice | NDArray) -> tuple[Process, NDArray, NDArray]:
    """The reverse process out of a sampler's states: x_t of the rows `kept`, x_0 of the rows `predicted`, all samples.

    Their shapes are (S, k, *dims), (S, p, *dims) and (N, *dims), float32.
    """
    steps = []
    x_t = []
    x_0 = []
    samples = np.empty(0)
    for state in states:
        steps.append(state.step)
        samples = state.x_t.float().cpu().numpy()
        x_t.append(samples[kept])
        x_0.append(state.x_0[predicted].float().cpu().numpy())
    return Process("reverse", np.stack(x_t), np.array(steps)), np.stack(x_0), samples


# ---------------------------------------------------------------- scenes


def forward_scene(
    scheduler: NoiseScheduler, data: NDArray, viz_steps: int, seed: int, columns: Columns | None = None
) -> Scene:
    """The forward process of data (N, *dims) alone, in the units in which they are given: at most viz_steps states.

    columns: of the table that the data come from. Its points are given with mean 0 and standard deviation 1.
    """
    steps = evenly_on(clock(scheduler.alpha_bar), viz_steps)
    process = forward(scheduler, data, steps, seed)
    scene = Scene([process], data=data, alpha_bar=scheduler.alpha_bar)
    if columns is None:
        return scene
    return scene._replace(normalised=True, names=coordinate_names(columns, data.shape[1]))


def reverse_scene(
    pipeline: Pipeline,
    process: Process,
    predictions: NDArray,
    folder: Path,
    *,
    labels: NDArray | None,
    tracked: NDArray,
    seed: int,
    options: SamplingOptions,
) -> Scene:
    """The reverse process of a trained network, with everything that can be known around it.

    Args:
        process, predictions: what `reverse` returned; for points the predictions are those of the `tracked` rows.
        folder: the run folder; its loss.csv is shown where there is one.
        labels: the condition of each sample, if any.
        options: how it was sampled.
    """
    scheduler = pipeline.scheduler
    scene = Scene(
        [process],
        alpha_bar=scheduler.alpha_bar,
        labels=labels,
        classes=pipeline.classes,
        guidance_text=options.guidance_text,
    )
    if pipeline.of_images:
        return scene._replace(predictions=(process.states, predictions), loss=loss(folder, None))

    asked = None if labels is None else np.unique(labels)
    real, _ = real_sets(pipeline.config["dataset"], process.states.shape[1], seed, asked)
    data = pipeline.normaliser.normalise(torch.as_tensor(real.points)).numpy()
    rising = process.steps[::-1].tolist()
    processes = [forward(scheduler, data, rising, seed), process]
    compared = min(COMPARED, len(data), process.states.shape[1])
    floors = between_real(pipeline, compared, seed, asked)
    return scene._replace(
        processes=processes,
        data=data,
        fields=fields(pipeline, real, rising, asked, options),
        predictions=(process.states[:, tracked], predictions),
        distance=distance(processes, data[:compared], floors),
        loss=loss(folder, loss_floor(pipeline, real)),
        normalised=True,
        names=coordinate_names(pipeline.columns, data.shape[1]) if pipeline.columns else (),
        aspect=_aspect(pipeline),
    )


def _aspect(pipeline: Pipeline) -> float:
    """Return the length of a normalised unit of y, in units of x, where a set is much wider or higher.

    The columns of a table have units of their own, and always 1.
    """
    deviations = pipeline.normaliser.std.flatten().tolist()
    if pipeline.columns is not None or len(deviations) != 2:
        return 1.0
    aspect = deviations[1] / deviations[0]
    return aspect if max(aspect, 1 / aspect) > MOST_UNLIKE else 1.0


# ---------------------------------------------------------------- real points


def real_sets(
    dataset: dict[str, Any], count: int, seed: int, labels: NDArray | None = None
) -> tuple[PointSet, NDArray]:
    """Two independent sets of `count` real points (data units), of these labels only where some are given.

    From a file each gets at most a half, without overlap.
    """
    real = real_points(dataset, count, seed, labels)
    if real.mixture is not None:
        return real, _draw_real(dataset, count, seed + 2, labels).points
    both = _draw_real(dataset, 2 * count, seed + 1, labels)
    half = len(both.points) // 2
    first_labels = None if both.labels is None else both.labels[:half]
    first = replace(both, points=both.points[:half], labels=first_labels)
    return first, both.points[half : 2 * half]


def real_points(dataset: dict[str, Any], count: int, seed: int, labels: NDArray | None = None) -> PointSet:
    """At most `count` real points (data units), to be shown; of these labels only where some are given."""
    return _draw_real(dataset, count, seed + 1, labels)


def _draw_real(dataset: dict[str, Any], count: int, seed: int, labels: NDArray | None) -> PointSet:
    data = make_dataset(n_samples=count, seed=seed, **dataset)
    if labels is None or data.labels is None:
        return data
    wanted = np.isin(data.labels, labels)
    if not wanted.any() or wanted.all():
        return data

    # Twice as many rows as have these labels on average, so that enough of them have.
    enough = -(-2 * count * len(data) // int(wanted.sum()))
    more = make_dataset(n_samples=enough, seed=seed, **dataset)
    assert more.labels is not None
    rows = np.flatnonzero(np.isin(more.labels, labels))[:count]
    return replace(more, points=more.points[rows], labels=more.labels[rows])


# ---------------------------------------------------------------- what stands beside the points


def fields(
    pipeline: Pipeline, real: PointSet, steps: Sequence[int], asked: NDArray | None, options: SamplingOptions
) -> list[Field]:
    """The network's score as it was sampled and, where it is known, the exact one with the same guidance.

    For a conditional model the first few of the labels asked for have fields of their own.
    """
    distribution = pipeline.normaliser.normalise_mixture
    scheduler = pipeline.scheduler
    denoisers = {"network": pipeline.denoiser(options)}
    if real.mixture and asked is None:
        denoisers["exact"] = exact_denoiser(distribution(real.mixture), scheduler)
    elif real.mixture:
        parts = [distribution(part) for part in real.parts]
        weight = options.guidance or 0.0
        denoisers["exact"] = exact_guided_denoiser(parts, scheduler, weight, options.guidance_interval)

    labels = [None] if asked is None else asked[:FIELD_LABELS_MAX].tolist()
    found = []
    for label in labels:
        for name, denoise in denoisers.items():
            found.append(field(name, denoise, steps, pipeline.dims[0], pipeline.device, label))
    return found


def field(
    name: str,
    denoise: Denoiser,
    steps: Sequence[int],
    dim: int,
    device: torch.device | str = "cpu",
    label: int | None = None,
) -> Field:
    """Arrows on a grid along the score, -eps / sigma: towards where points are likelier at that noise level.

    Scores span orders of magnitude, so the lengths saturate: half a cell at |eps| = 1, never more than a whole one.
    """
    side = torch.linspace(-FIELD_RANGE, FIELD_RANGE, ARROWS_PER_SIDE[dim])
    cell = float(side[1] - side[0])
    grid = torch.cartesian_prod(*[side] * dim).to(device)
    condition = None if label is None else torch.full((len(grid),), label, device=device)

    noisy_steps = [step for step in steps if step > 0]  # a network knows no score of clean data
    predictions = []
    with torch.no_grad():
        for step in noisy_steps:
            t = torch.tensor(t_from_step(step), device=device)
            predictions.append(denoise(grid, t, condition).eps)
    eps = torch.stack(predictions).cpu()
    vectors = -eps * cell / (1 + eps.norm(dim=-1, keepdim=True))
    return Field(name, grid.cpu().numpy(), vectors.float().numpy(), np.array(noisy_steps), label)


def distance(processes: Sequence[Process], real: NDArray, floors: NDArray) -> Distance:
    """Sliced Wasserstein-1 of every state, by n of its points, to `real` points (n, d) that no process began with."""
    n = len(real)
    by_side = {}
    for process in processes:
        distances = [sliced_wasserstein(state[:n], real, DIRECTIONS) for state in process.states]
        by_side[process.side] = np.array(distances)
    return Distance(by_side, floors)


def between_real(pipeline: Pipeline, count: int, seed: int, labels: NDArray | None = None) -> NDArray:
    """The same distance between two sets of `count` real points, for each of some pairs (PAIRS,); normalised units."""
    points = _draw_real(pipeline.config["dataset"], 2 * count * PAIRS, seed + 3, labels).points
    pool = pipeline.normaliser.normalise(torch.as_tensor(points))
    count = min(count, len(pool) // 2)
    distances = []
    for i in range(PAIRS):
        rows = torch.randperm(len(pool), generator=generator(seed, "pairs", i))
        one = pool[rows[:count]].numpy()
        other = pool[rows[count : 2 * count]].numpy()
        distances.append(sliced_wasserstein(one, other, DIRECTIONS))
    return np.array(distances)


# ---------------------------------------------------------------- the training loss


def loss_floor(pipeline: Pipeline, real: PointSet) -> float | None:
    """The Bayes floor of the loss that was trained with; None where it is not known.

    For a conditional model it is the mean of the floors of its labels, and of the floor of the whole for as many rows
    as lost their labels.
    """
    conditions = loss_conditions(pipeline, real)
    return bayes.loss_floor(conditions, pipeline.scheduler) if conditions else None


def loss(folder: Path, floor: float | None) -> Loss | None:
    """The training loss in a run folder, thinned to means; None where there is no loss.csv."""
    if not (folder / LOSS_FILE).exists():
        return None
    columns = read_losses(folder)
    losses = columns["loss"]
    size = -(-len(losses) // LOSS_BARS_MAX)
    means = [part.mean() for part in np.split(losses, range(size, len(losses), size))]
    step = columns["step"][0] * size * np.arange(1, len(means) + 1)
    return Loss(step, np.array(means), floor)
