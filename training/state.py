"""Everything that a training needs, made from its options: data, network, loss, optimizers."""

import time
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dataset import DataSet, Normaliser, PointSet, even_order_of
from loader import BatchSampler, batches, make_loader, steps_in_epochs
from loss.moments import LOG_EVERY, Moment
from loss.objective import loss_weights, reference_batch_size, step_weights, training_loss
from pipeline import Pipeline, build
from runtime import device as devices
from runtime.randomness import integer_seed
from schedule import NoiseScheduler
from training.learner import Learner
from training.noise import Noise
from training.optimizers import make_optimizers
from training.shards import Batch, LossOf


@dataclass
class TrainingState:
    """A training between two of its optimizer steps.

    config: the options as a plain dictionary.
    data: what is learnt from.
    unseen: the held-out data, with which the model is evaluated.
    loader: batches of the data.
    pipeline: the averaged network, which can be sampled.
    learner: the network that is trained, with its optimizers.
    noise: adds to each batch what is random.
    loss_of: the loss of the rows of a batch.
    loss_weights: the weight of the loss at each step t, (T,).
    total: optimizer steps of the whole training.
    moment: how far the training has come.
    clock_starts: readings of the wall clock and the CPU clock when the training had taken no time.
    """

    config: dict[str, Any]
    data: DataSet
    unseen: DataSet
    loader: DataLoader
    pipeline: Pipeline
    learner: Learner
    noise: Noise
    loss_of: LossOf
    loss_weights: Tensor
    total: int
    moment: Moment = field(default_factory=Moment)
    clock_starts: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def create(
        cls,
        config: dict[str, Any],
        data: DataSet,
        unseen: DataSet,
        classes: list[str],
        device: torch.device,
    ) -> "TrainingState":
        """A training before its first step.

        Args:
            config: the options; num_epochs and shards are numbers.
            classes: names of the labels that are learnt; none for an unconditional model.

        Raises:
            ValueError: the options do not fit the data or the device.
        """
        seed = config["seed"]
        batch_size = config["batch_size"]
        order = even_order_of(data) if config["batches"] == "even" else None
        references = reference_batch_size(len(data), config["references"])
        loader = make_loader(data, batch_size=batch_size, seed=seed, device=device, order=order, group=references)
        normaliser = Normaliser.fit_dataset(data)
        dims = tuple(normaliser.mean.shape)

        net, scheduler = _make_network(config, dims, len(classes), device)
        mixed = devices.mixed_precision(config["precision"], device, images=len(dims) == 3)
        weights, loss_of = _make_loss(net, scheduler, config, len(classes), mixed)
        learner = _make_learner(net, config, references)
        pipeline = Pipeline(
            learner.average.module,
            scheduler,
            normaliser,
            config,
            classes,
            mixed,
            columns=data.columns if isinstance(data, PointSet) else None,
            label_counts=_count_labels(data, classes),
        )

        total = config["max_steps"]
        if total is None:
            total = steps_in_epochs(config["num_epochs"], len(data), batch_size)
        return cls(
            config=config,
            data=data,
            unseen=unseen,
            loader=loader,
            pipeline=pipeline,
            learner=learner,
            noise=Noise(pipeline, seed, min(batch_size, len(data))),
            loss_of=loss_of,
            loss_weights=weights,
            total=total,
        )

    def start_clocks(self) -> None:
        """Begin to count the time of the training, or of its next part."""
        wall_start = time.perf_counter() - self.moment.seconds
        cpu_start = time.process_time() - self.moment.cpu_seconds
        self.clock_starts = (wall_start, cpu_start)

    def remaining_batches(self) -> Iterator[tuple[int, Batch]]:
        """(step, batch) for each optimizer step that is left; steps count from 0."""
        steps = range(self.moment.done, self.total)
        rows = batches(self.loader, start=self.moment.done)
        for step, (x_0, label) in zip(steps, rows):
            yield step, self.noise.added(step, x_0, label)

    def rows_of_steps(self, begin: int, end: int) -> Tensor:
        """The numbers of the rows that the optimizer steps from `begin` to `end` learn from."""
        sampler = copy(self.loader.sampler)  # the loader goes on with its own
        assert isinstance(sampler, BatchSampler)
        sampler.start = begin
        return torch.cat([*islice(sampler, end - begin)]).cpu()

    def finish_step(self, lr: float, interrupted: bool) -> Moment:
        """Count the optimizer step that has just been taken at the learning rate `lr`."""
        done = self.moment.done + 1
        loss = stable_loss = None
        if done % LOG_EVERY == 0 or done == self.total:
            loss, stable_loss = self.learner.mean_loss()
        wall_start, cpu_start = self.clock_starts
        self.moment = Moment(
            done=done,
            loss=loss,
            lr=lr,
            seconds=time.perf_counter() - wall_start,
            cpu_seconds=time.process_time() - cpu_start,
            last=interrupted or done == self.total,
            stable_loss=stable_loss,
        )
        return self.moment


def _count_labels(data: DataSet, classes: list[str]) -> list[int]:
    """Return how many rows of the data each label has; [] for an unconditional model."""
    if not classes or data.labels is None:
        return []
    return torch.as_tensor(data.labels).bincount(minlength=len(classes)).tolist()


def _make_network(
    config: dict[str, Any], dims: tuple[int, ...], num_labels: int, device: torch.device
) -> tuple[nn.Module, NoiseScheduler]:
    """The network on the device, whose weights are a function of the seed; and the scheduler."""
    torch.manual_seed(integer_seed(config["seed"], "weights"))
    net, scheduler = build(config, dims, num_labels)
    images = len(dims) == 3
    devices.place(net, device, channels_last=images and device.type == "cuda")
    return net, scheduler


def _make_loss(
    net: nn.Module, scheduler: NoiseScheduler, config: dict[str, Any], num_labels: int, mixed: bool
) -> tuple[Tensor, LossOf]:
    """The weight of the loss at each step t, (T,), and the loss of a batch.

    Where small t are drawn more often (t_power), the loss of a batch weights them less.
    """
    device = next(net.parameters()).device
    target = config["model"]["prediction"]
    weights = loss_weights(scheduler, target, config["loss_weight"]).float().to(device)
    drawn_weights = weights * step_weights(config["num_timesteps"], config["t_power"]).to(weights)
    loss_of = partial(
        training_loss,
        devices.in_bf16(net) if mixed else net,
        scheduler,
        target=target,
        weights=drawn_weights,
        null_label=num_labels,
    )
    return weights, loss_of


def _make_learner(net: nn.Module, config: dict[str, Any], references: int) -> Learner:
    lr = config["lr"]
    weight_decay = config["weight_decay"]
    optimizers = make_optimizers(net, config["optimizer"], lr=lr, weight_decay=weight_decay)
    return Learner(net, optimizers, config["ema_decay"], config["shards"], references)
