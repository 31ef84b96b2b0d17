"""A look at everything before a training begins: what will be learned, on what, and whether something is off."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dataset import IMAGE_DATASETS, DataSet
from images.sets import ImageSet
from metrics.evaluation import check_enough
from model import check_takes
from pipeline import Pipeline, scheduler_from_config
from runtime import checkpoint_file, distributed
from runtime import device as devices
from runtime.randomness import generator
from training import denoising_grids, loggers, shards
from training.learner import Learner, checksum
from training.optimizers import make_optimizers

FAR = 8.0  # standard deviations: a point beyond is an outlier that the others' scale suffers from
IMAGES_LOOKED_AT = 2000  # of points, all: one outlier matters there
FEW_ROWS = 20  # of a label
TOO_MUCH = 0.5  # of the loss's weight on one step


def check_options(o: Mapping[str, Any]) -> bool:
    """Whether the data are images; sets the threads. Raises ValueError for options that cannot go together, or that are
    not those of the other processes."""
    images = o["dataset"]["name"] in IMAGE_DATASETS
    checkpoint_file.check_name(o["ckpt_save_name"])
    check_takes(o["model"]["name"], images)
    scheduler_from_config(o)
    distributed.check_same(o, distributed.OTHER_OPTIONS)
    shards.check(o["shards"], o["batch_size"])
    loggers.check(o["logger"])
    if o["viz_save"] or o["viz_live"]:
        denoising_grids.check(o["viz_t"], o["num_timesteps"], images)
    devices.use_threads(o["threads"], images)
    return images


def classes_to_learn(data: DataSet, o: Mapping[str, Any]) -> list[str]:
    """The names of the labels that are learnt: none, unless the training is conditional."""
    if o["conditional"] and not data.classes:
        raise ValueError(f"conditional=true needs labels, and dataset={o['dataset']['name']} has none")
    return data.classes if o["conditional"] else []


# ---------------------------------------------------------------- the start-up check


def check_evaluation(unseen: DataSet, eval_samples: int) -> None:
    """Raises ValueError where the evaluation after the training is bound to fail."""
    try:
        check_enough(unseen, eval_samples)
    except ValueError as error:
        raise ValueError(f"{error}; eval_samples=0 trains without an evaluation") from error


def look_at(
    data: DataSet,
    unseen: DataSet,
    pipeline: Pipeline,
    learner: Learner,
    loss: shards.LossOf,
    weights: Tensor,
    *,
    total: int,
) -> None:
    """Print a few lines about a training of `learner` over `total` steps, and what looks wrong.

    weights: what the loss counts at each step of the process (T,).

    Raises:
        ValueError: the data are not those of the other processes; they, or the samples asked for, are too few for the
            evaluation that is to follow; or all points are the same.
    """
    if distributed.world() > 1:  # reads all data once more
        distributed.check_same({"data": checksum(data)}, distributed.OTHER_DATA)
    if pipeline.config["eval_samples"]:
        check_evaluation(unseen, pipeline.config["eval_samples"])
    device, scheduler, batch_size = pipeline.device, pipeline.scheduler, pipeline.config["batch_size"]
    rows = looked_at(data, generator(pipeline.config["seed"], "start-up"))
    x = pipeline.normaliser.normalise(rows)
    if not x.any() and not isinstance(data, ImageSet):
        raise ValueError("all points to learn from are the same: there is no distribution to learn")
    seconds = total * _seconds_per_step(learner, pipeline.config["optimizer"], loss, x[:batch_size].to(device))
    threads = torch.get_num_threads()
    print("start-up check")
    for line in _of_images(data, rows) if isinstance(data, ImageSet) else _of_points(data, rows):
        print(line)
    left = float(scheduler.alpha[-1])
    print(f"  schedule  {scheduler.num_timesteps} steps; x_T keeps {left:.2%} of the signal's amplitude")
    p, each = distributed.world(), f"{threads} thread{'s' * (threads > 1)}"
    machine = f"{device}, {each}" if p == 1 else f"{p} processes on {device}, of {each}"
    print(f"  machine   {machine}; about {_duration(seconds)} for {total:,} steps")
    found: list[str | None] = [] if isinstance(data, ImageSet) else [*warnings_of_points(x)]
    if len(data) < batch_size:
        found.append(f"batch_size={batch_size} is larger than the {len(data)} rows of data: every batch holds them all")
    if pipeline.classes:
        found.append(label_warning(torch.as_tensor(data.labels), pipeline.classes))
    for warning in (scheduler.signal_warning(), weight_warning(weights), *found):
        if warning:
            print(f"  warning: {warning}")


def looked_at(data: DataSet, g: torch.Generator) -> Tensor:
    """The rows that the check goes by, in random order: some images, all points; of a LargeSet its points."""
    if isinstance(data, ImageSet):
        return data[torch.randperm(len(data), generator=g)[:IMAGES_LOOKED_AT]][0]
    return torch.from_numpy(data.points)[torch.randperm(len(data.points), generator=g)]


def weight_warning(weights: Tensor) -> str | None:
    """One line where a single step of the process holds most of the loss's weights (T,); else None."""
    share, t = (weights / weights.sum()).max(0)
    if len(weights) < 4 or share < TOO_MUCH:
        return None
    return f"{share:.1%} of the loss's weight lies on t = {int(t)}: take loss_weight=target or another model.prediction"


def label_warning(labels: Tensor, classes: list[str]) -> str | None:
    """One line where a label, of labels (N,), has too few rows to be learnt; else None."""
    count, label = labels.bincount(minlength=len(classes)).min(0)
    if count >= FEW_ROWS:
        return None
    rows = {0: "no row", 1: "1 row"}.get(int(count), f"{int(count)} rows")
    return f"label {classes[int(label)]} has {rows} to learn from: give it {FEW_ROWS} or more, or leave it out"


def _of_points(data: DataSet, rows: Tensor) -> list[str]:
    some = f", read where they lie; of {len(rows):,}, spread evenly:" if len(rows) < len(data) else ";"
    lines = [
        f"  data      {len(data):,} points{some} mean {_list(rows.mean(0))}, standard deviation {_list(rows.std(0))}",
        f"            range {_list(rows.min(0).values)} to {_list(rows.max(0).values)}",
    ]
    if len(rows) < len(data):
        lines.append("            the normaliser, this check and the checksum go by these and by the number of all")
    return lines


def _of_images(data: ImageSet, rows: Tensor) -> list[str]:
    channels, height, width = data.dims
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    lines = [
        f"  data      {len(data):,} {kind} images of {height}x{width}; pixels of mean {rows.mean():.2f}, standard"
        f" deviation {rows.std():.2f}, range {rows.min():.2f} to {rows.max():.2f}"
    ]
    if data.labels is not None:
        counts = data.labels.bincount(minlength=len(data.classes))
        lines.append(f"            {len(data.classes)} labels with {counts.min():,} to {counts.max():,} images each")
    return lines


def warnings_of_points(x: Tensor) -> list[str]:
    """What is off with normalised points x (N, d), each with what to change."""
    found = []
    constant = (x == 0).all(0).nonzero()[:, 0].tolist()
    if constant:
        found.append(f"coordinate {constant} never varies: leave it out")
    if (far := float(x.abs().max())) > FAR:
        found.append(f"a point lies {far:.0f} standard deviations out: remove outliers, they spoil the scale")
    repeated = 1 - len(x.unique(dim=0)) / len(x)
    if repeated > 0.01:
        found.append(f"{repeated:.0%} of the points are repetitions: the model will learn to repeat them")
    return found


def _seconds_per_step(learner: Learner, optimizer: str, loss: shards.LossOf, x_0: Tensor) -> float:
    """Measured with a learning rate of 0, so that the training itself is not touched."""
    net = learner.net
    optimizers = make_optimizers(net, optimizer, lr=0.0, weight_decay=0.0)
    t, eps = torch.zeros(len(x_0), dtype=torch.long, device=x_0.device), torch.zeros_like(x_0)
    parts, begin = shards.own_parts((x_0, t, eps, None), learner.shards, learner.references), 0.0
    for i in range(6):
        if i == 2:  # warmed up
            begin = time.perf_counter()
        shards.gradient(net, loss, parts, len(x_0), 0)
        for each in optimizers:
            each.step()
    net.zero_grad()
    return (time.perf_counter() - begin) / 4


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _list(values: Tensor) -> str:
    shown = ", ".join(f"{v:.2f}" for v in values[:4].tolist())
    return f"({shown}{', ...' if len(values) > 4 else ''})"
