"""The check before a training: what it will learn, from which data, and what looks wrong."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset import IMAGE_DATASETS, DataSet, PointSet
from images.sets import ImageSet
from metrics.evaluation import check_enough
from model import check_model_takes
from pipeline import scheduler_from_config
from points.tables import Columns, discrete_columns
from runtime import checkpoint_file, distributed
from runtime import device as devices
from runtime.randomness import generator
from training import denoising_grids, loggers, shards
from training.checksum import checksum
from training.optimizers import make_optimizers
from training.state import TrainingState

OUTLIER = 8.0  # standard deviations: a point beyond spoils the scale of all others
MAX_IMAGES = 2000  # images that are checked; of points all are, because one outlier matters
MIN_ROWS_PER_LABEL = 20
MAX_SHARE_OF_ONE_STEP = 0.5  # of the loss's weight
MAX_REPEATED = 0.01  # share of the points
MAX_NAMED = 8  # columns or labels that a line names
TIMED_STEPS = 4
WARM_UP_STEPS = 2


# ---------------------------------------------------------------- the options


def check_options(config: Mapping[str, Any]) -> None:
    """Check what concerns several options, and set the number of threads.

    Raises:
        ValueError: options contradict each other, or are not those of the other processes.
    """
    images = config["dataset"]["name"] in IMAGE_DATASETS
    checkpoint_file.check_name(config["ckpt_save_name"])
    check_model_takes(config["model"]["name"], images)
    scheduler_from_config(config)
    distributed.check_same(config, distributed.OTHER_OPTIONS)
    shards.check(config["shards"], config["batch_size"])
    loggers.check(config["logger"])
    if config["viz_save"] or config["viz_live"]:
        denoising_grids.check(config["viz_t"], config["num_timesteps"], images)
    devices.use_threads(config["threads"], images)


def classes_to_learn(data: DataSet, config: Mapping[str, Any]) -> list[str]:
    """The names of the labels that are learnt; none for an unconditional training.

    Raises:
        ValueError: a conditional training of data without labels.
    """
    if not config["conditional"]:
        return []
    if not data.classes:
        name = config["dataset"]["name"]
        raise ValueError(f"conditional=true needs labels, and dataset={name} has none")
    return data.classes


# ---------------------------------------------------------------- the start-up check


def run_check(state: TrainingState) -> None:
    """Print a few lines about a training that is to begin, and warnings of what looks wrong.

    Raises:
        ValueError: the data are not those of the other processes; they, or the samples asked for,
            are too few for the evaluation that is to follow; or all points are the same.
    """
    if distributed.world_size() > 1:  # the checksum reads all data once more
        distributed.check_same({"data": checksum(state.data)}, distributed.OTHER_DATA)
    if state.config["eval_samples"]:
        check_evaluation(state.unseen, state.config["eval_samples"])
    rows = rows_to_check(state.data, generator(state.config["seed"], "start-up"))
    x = state.pipeline.normaliser.normalise(rows)
    if not x.any() and not isinstance(state.data, ImageSet):
        raise ValueError("all points to learn from are the same: there is no distribution to learn")

    seconds = _seconds_per_step(state, x[: state.config["batch_size"]])
    print("start-up check")
    for line in _describe(state, rows, seconds):
        print(line)
    for warning in _warnings(state, x):
        print(f"  warning: {warning}")


def check_evaluation(unseen: DataSet, eval_samples: int) -> None:
    """Raises ValueError where the evaluation after the training is bound to fail."""
    try:
        check_enough(unseen, eval_samples)
    except ValueError as error:
        raise ValueError(f"{error}; eval_samples=0 trains without an evaluation") from error


def rows_to_check(data: DataSet, g: torch.Generator) -> Tensor:
    """The rows that are checked, in random order: all points in memory, or MAX_IMAGES images."""
    if isinstance(data, ImageSet):
        rows = torch.randperm(len(data), generator=g)[:MAX_IMAGES]
        return data[rows][0]
    points = torch.from_numpy(data.points)
    return points[torch.randperm(len(points), generator=g)]


# ---------------------------------------------------------------- what is printed


def _describe(state: TrainingState, rows: Tensor, seconds_per_step: float) -> list[str]:
    lines = _describe_data(state.data, rows)

    scheduler = state.pipeline.scheduler
    signal = f"{float(scheduler.alpha[-1]):.2%} of the signal's amplitude"
    lines.append(f"  schedule  {scheduler.num_timesteps} steps; x_T keeps {signal}")

    steps = state.total - state.moment.done
    time_needed = f"about {_duration(steps * seconds_per_step)} for {steps:,} steps"
    lines.append(f"  machine   {_describe_machine(state.pipeline.device)}; {time_needed}")
    return lines


def _describe_machine(device: torch.device) -> str:
    threads = torch.get_num_threads()
    each = f"{threads} threads" if threads > 1 else "1 thread"
    processes = distributed.world_size()
    if processes == 1:
        return f"{device}, {each}"
    return f"{processes} processes on {device}, of {each}"


def _describe_data(data: DataSet, rows: Tensor) -> list[str]:
    if isinstance(data, ImageSet):
        return _describe_images(data, rows)
    return _describe_points(data, rows)


def _describe_points(data: DataSet, rows: Tensor) -> list[str]:
    sampled = len(rows) < len(data)
    which = f", read where they lie; of {len(rows):,}, spread evenly:" if sampled else ";"
    mean = _list(rows.mean(0))
    deviation = _list(rows.std(0))
    low = _list(rows.min(0).values)
    high = _list(rows.max(0).values)
    lines = [
        f"  data      {len(data):,} points{which} mean {mean}, standard deviation {deviation}",
        f"            range {low} to {high}",
    ]
    if sampled:
        lines.append(
            "            the normaliser, this check and the checksum go by these and by the number of all",
        )
    if isinstance(data, PointSet):
        lines += [f"            {line}" for line in _describe_columns(data)]
    return lines


def _describe_columns(data: PointSet) -> list[str]:
    """Return lines that name the columns of a file, its labels, and what was left out."""
    if data.columns is None:
        return []
    lines = []
    if data.columns.names:
        lines.append(f"columns: {_some(data.columns.names)}")
    if data.labels is not None:
        counts = np.bincount(data.labels, minlength=len(data.classes))
        column = data.columns.label or "label"
        points = f"{counts.min():,} to {counts.max():,} points each"
        lines.append(f"{column}: {len(data.classes)} labels with {points}: {_some(data.classes)}")
    return [*lines, *data.notes, *_smeared(data.points, data.columns)]


def _smeared(points: NDArray, columns: Columns) -> list[str]:
    """Return lines about columns that a continuous model cannot reproduce exactly.

    points: shape (N, d). Constant columns have a warning of their own.
    """
    whole = []
    lines = []
    for column in discrete_columns(points, columns):
        if column.kind == "whole":
            whole.append(column.name)
        elif column.kind == "zeros":
            fact = f"{column.name} is exactly 0 in {column.share:.0%} of the rows"
            lines.append(f"{fact}: a continuous model gives numbers near 0")
    if whole:
        lines.append(f"whole numbers only in {_some(whole)}: a continuous model gives numbers between them")
    return lines


def _some(names: Sequence[str]) -> str:
    """Return the first names, and how many there are if not all are shown."""
    shown = ", ".join(names[:MAX_NAMED])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > MAX_NAMED else shown


def _describe_images(data: ImageSet, rows: Tensor) -> list[str]:
    channels, height, width = data.dims
    kinds = {1: "grey", 3: "colour"}
    kind = kinds.get(channels, f"{channels}-channel")
    pixels = (
        f"pixels of mean {rows.mean():.2f}, standard deviation {rows.std():.2f},"
        f" range {rows.min():.2f} to {rows.max():.2f}"
    )
    lines = [f"  data      {len(data):,} {kind} images of {height}x{width}; {pixels}"]
    if data.labels is not None:
        num_labels = len(data.classes)
        counts = data.labels.bincount(minlength=num_labels)
        images = f"{counts.min():,} to {counts.max():,} images each"
        lines.append(f"            {num_labels} labels with {images}")
    return lines


def _list(values: Tensor) -> str:
    """The first four values, such as '(0.50, 0.25)'."""
    shown = ", ".join(f"{value:.2f}" for value in values[:4].tolist())
    rest = ", ..." if len(values) > 4 else ""
    return f"({shown}{rest})"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------- warnings


def _warnings(state: TrainingState, x: Tensor) -> list[str]:
    """What looks wrong; x: the checked rows, normalised."""
    data = state.data
    batch_size = state.config["batch_size"]
    found = [state.pipeline.scheduler.signal_warning(), weight_warning(state.loss_weights)]
    if not isinstance(data, ImageSet):
        found += warnings_of_points(x)
    if len(data) < batch_size:
        found.append(f"batch_size={batch_size} is larger than the {len(data)} rows of data: every batch holds them all")
    if state.pipeline.classes:
        found.append(label_warning(torch.as_tensor(data.labels), state.pipeline.classes))
    return [warning for warning in found if warning]


def weight_warning(weights: Tensor) -> str | None:
    """A warning where one step of the process has most of the loss's weights (T,); else None."""
    share, t = (weights / weights.sum()).max(0)
    if len(weights) < 4 or share < MAX_SHARE_OF_ONE_STEP:
        return None
    return f"{share:.1%} of the loss's weight lies on t = {int(t)}: take loss_weight=target or another model.prediction"


def label_warning(labels: Tensor, classes: list[str]) -> str | None:
    """A warning where one of the labels (N,) has too few rows to be learnt; else None."""
    count, label = labels.bincount(minlength=len(classes)).min(0)
    if count >= MIN_ROWS_PER_LABEL:
        return None
    few = {0: "no row", 1: "1 row"}
    rows = few.get(int(count), f"{int(count)} rows")
    return (
        f"label {classes[int(label)]} has {rows} to learn from: give it {MIN_ROWS_PER_LABEL} or more, or leave it out"
    )


def warnings_of_points(x: Tensor) -> list[str]:
    """What looks wrong with normalised points x (N, d), each with what to change."""
    found = []
    constant = (x == 0).all(0).nonzero()[:, 0].tolist()
    if constant:
        found.append(f"coordinate {constant} never varies: leave it out")
    farthest = float(x.abs().max())
    if farthest > OUTLIER:
        found.append(f"a point lies {farthest:.0f} standard deviations out: remove outliers, they spoil the scale")
    repeated = 1 - len(x.unique(dim=0)) / len(x)
    if repeated > MAX_REPEATED:
        found.append(
            f"{repeated:.0%} of the points are repetitions: the model will learn to repeat them",
        )
    return found


# ---------------------------------------------------------------- the seconds of a step


def _seconds_per_step(state: TrainingState, x_0: Tensor) -> float:
    """The time of an optimizer step, measured at a learning rate of 0, which changes no weight."""
    learner = state.learner
    x_0 = x_0.to(state.pipeline.device)
    t = torch.zeros(len(x_0), dtype=torch.long, device=x_0.device)
    eps = torch.zeros_like(x_0)
    parts = shards.own_parts((x_0, t, eps, None), learner.shards, learner.references)
    optimizers = make_optimizers(learner.net, state.config["optimizer"], lr=0.0, weight_decay=0.0)

    begin = 0.0
    for i in range(WARM_UP_STEPS + TIMED_STEPS):
        if i == WARM_UP_STEPS:
            begin = time.perf_counter()
        shards.gradient(learner.net, state.loss_of, parts, len(x_0))
        for optimizer in optimizers:
            optimizer.step()
    seconds = time.perf_counter() - begin

    learner.net.zero_grad()
    return seconds / TIMED_STEPS
