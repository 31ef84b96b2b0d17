"""Callbacks: small objects that log, draw, measure or save after every step of a training."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from dataset import PointSet
from images.sets import ImageSet
from loss.log import ExcessLog, LossLog, sync_tables
from loss.moments import LOG_EVERY, Callback, Moment, log_spaced_steps
from metrics.bayes import Condition, excess, loss_conditions, loss_floor, make_probes
from pipeline import Pipeline
from registry import implementation
from registry.plugins import CALLBACKS, called
from runtime import checkpoint_file, distributed
from runtime.progress import steady_bar
from training.checksum import checksum
from training.denoising_grids import Grids
from training.learner import Learner
from training.loggers import Follower, board
from training.run_folder import last_checkpoint_summary
from training.snapshots import Snapshots
from training.state import TrainingState

PROBE_STEPS = 20  # steps t at which the excess over the Bayes floor is measured during a training
PROBE_POINTS = 100  # at each of them
ROWS_TO_BLAME = 20_000  # where a training diverges, so many rows are searched for extreme values
EXTREME_VALUE = 300.0  # in standard deviations


@contextmanager
def running_callbacks(state: TrainingState, folder: Path, stack: ExitStack) -> Iterator[list[Callback]]:
    """The callbacks that the options ask for, in the order in which they are called.

    They are closed at the end; a recording, and the board of a logger, together with `stack`.
    """
    callbacks = make_callbacks(state, folder, stack)
    with ExitStack() as closing:
        for callback in callbacks:
            closing.callback(callback.close)
        yield callbacks


def make_callbacks(state: TrainingState, folder: Path, stack: ExitStack) -> list[Callback]:
    """The callbacks of this process. Those that are not in the first only compare weights.

    The checkpoint comes last: when it is saved, the other files hold all that it counts as done.
    """
    comparison: list[Callback] = []
    if distributed.world_size() > 1:
        comparison.append(SameWeights(folder, state.learner, state.config["checkpoint_every"]))
    if not distributed.is_first():
        return comparison

    config = state.config
    start = state.moment.done
    logger = None
    if config["logger"]:  # made before all others, because it may refuse to begin
        logger = board(config["logger"], folder, config, start)

    callbacks: list[Callback] = [
        StopIfDiverged(state, folder),
        LossLog(folder, start),
        ProgressBar(start, state.total),
    ]

    if config["record"] or config["viewer"]:
        viewer = config["viewer"]
        callbacks.append(Snapshots(folder, state.pipeline, start, state.total, viewer, stack))

    grids: list[Path] = []
    if (config["viz_save"] or config["viz_live"]) and isinstance(state.data, ImageSet):
        painter = Grids(folder, state.pipeline, state.data, state.moment, state.total)
        grids = painter.saved
        callbacks.append(painter)

    conditions = loss_conditions(state.pipeline, state.data)
    if conditions:
        callbacks.append(Probes(folder, state.pipeline, conditions, start, state.total))

    if config["early_ema"]:
        due = max(1, round(config["early_ema"] * state.total))
        callbacks.append(EarlySnapshot(state.learner, due))

    callbacks += added_callbacks(state, folder)
    if logger is not None:
        follower = Follower(folder, logger, start, grids)
        stack.callback(follower.end)
        callbacks.append(follower)

    checkpoints = Checkpoints(folder / config["ckpt_save_name"], state)
    return [*callbacks, *comparison, checkpoints]


def added_callbacks(state: TrainingState, folder: Path) -> list[Callback]:
    """The callbacks that a user has added (registry.register_callback).

    Raises:
        ValueError: what was added makes no callback.
    """
    made = []
    for name, row in CALLBACKS.items():
        callback = implementation(row)(state, folder)
        if not callable(getattr(callback, "after", None)) or not callable(getattr(callback, "close", None)):
            raise ValueError(f"{called('callback', name)} has no methods after(moment) and close()")
        made.append(callback)
    return made


class ProgressBar(Callback):
    """The bar on the terminal, with the loss beside it. Without a terminal nothing is shown."""

    def __init__(self, start: int, total: int) -> None:
        self.bar = steady_bar(total=total, initial=start, desc="training", unit="step")

    def after(self, moment: Moment) -> None:
        if moment.loss is not None:
            self.bar.set_postfix(loss=f"{moment.loss:.4f}", refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()


class Probes(Callback):
    """Measures the excess over the Bayes floor at log-spaced steps, and writes it to excess.csv."""

    def __init__(
        self, folder: Path, pipeline: Pipeline, conditions: Sequence[Condition], start: int, total: int
    ) -> None:
        self.pipeline = pipeline
        self.conditions = conditions
        self.due = set(log_spaced_steps(start, total))
        self.probes = []
        for condition in conditions:
            probes = make_probes(
                condition.mixture,
                pipeline.scheduler,
                num_steps=PROBE_STEPS,
                num_points=PROBE_POINTS // len(conditions),
                seed=pipeline.config["seed"],
            )
            self.probes.append(probes)
        floor = loss_floor(conditions, pipeline.scheduler)
        self.log = ExcessLog(folder, self.probes[0].timesteps.tolist(), floor, start)

    def after(self, moment: Moment) -> None:
        if moment.done not in self.due:
            return
        excess_by_step = torch.zeros(len(self.probes[0].timesteps))
        for condition, probes in zip(self.conditions, self.probes):
            denoise = self.pipeline.denoiser_for_label(condition.label)
            excess_by_step += condition.weight * excess(denoise, probes, self.pipeline.device)
        self.log.add(moment.done, excess_by_step.tolist())

    def close(self) -> None:
        self.log.close()


class EarlySnapshot(Callback):
    """Keeps a copy of the averaged weights after step `due` (see Learner.keep_early)."""

    def __init__(self, learner: Learner, due: int) -> None:
        self.learner = learner
        self.due = due

    def after(self, moment: Moment) -> None:
        if moment.done >= self.due:
            self.learner.keep_early()


# ---------------------------------------------------------------- a training that diverges


class StopIfDiverged(Callback):
    """Stops a training whose loss is not finite, before that is written anywhere."""

    def __init__(self, state: TrainingState, folder: Path) -> None:
        self.state = state
        self.folder = folder

    def after(self, moment: Moment) -> None:
        if moment.loss is not None and not isfinite(moment.loss):
            raise divergence_error(f"the loss is {moment.loss}", moment, self.state, self.folder)


def divergence_error(what: str, moment: Moment, state: TrainingState, folder: Path) -> ValueError:
    """The error of a training that diverged: what is not finite, when, and what to try."""
    when = f"after step {moment.done} at a learning rate of {moment.lr:.3g}"
    advice = _advice_on_divergence(state)
    checkpoint = last_checkpoint_summary(folder)
    return ValueError(f"the training diverged: {what} {when}; {advice}; {checkpoint}")


def _advice_on_divergence(state: TrainingState) -> str:
    extreme = _extreme_number(state)
    if extreme:
        return f"look at the data, which hold extreme values: {extreme}"
    lr = state.config["lr"]
    weight_decay = state.config["weight_decay"]
    if lr < 1 < lr * weight_decay:
        return f"weight_decay={weight_decay:g} times lr={lr:g} must stay far below 1: lower it"
    return "try a lower lr or a longer warmup_steps"


def _extreme_number(state: TrainingState) -> str | None:
    """An extreme number and its place, among the rows learnt from since the last loss, and the first ones.

    A large file has rows that nobody has looked at before they were learnt from.
    """
    if not isinstance(state.data, PointSet):
        return None  # pixels are between -1 and 1
    done = state.moment.done
    recent = state.rows_of_steps(max(0, done - LOG_EVERY), done)
    first = torch.arange(min(ROWS_TO_BLAME, len(state.data)))
    for rows in (recent, first):
        points = state.data[rows][0]
        normalised = state.pipeline.normaliser.normalise(points)
        extreme = ~(normalised.abs() < EXTREME_VALUE)  # NaN, too
        if extreme.any():
            i, column = extreme.nonzero()[0].tolist()
            return f"{points[i, column]:.3g} in {state.data.place_of(int(rows[i]), column)}"
    return None


# ---------------------------------------------------------------- checkpoints


def is_due(moment: Moment, every: int) -> bool:
    """Whether a checkpoint is saved now: every so many steps, and at the end."""
    return moment.last or moment.done % every == 0


class SameWeights(Callback):
    """Compares the weights of all processes before each save: they must be the same to the bit."""

    def __init__(self, folder: Path, learner: Learner, every: int) -> None:
        self.folder = folder
        self.learner = learner
        self.every = every

    def after(self, moment: Moment) -> None:
        if not is_due(moment, self.every):
            return
        sentence = (
            f"after step {moment.done} the weights of process {{number}} are no longer those of the"
            " first: the machines are of different kinds, or one of them miscounts;"
            f" {last_checkpoint_summary(self.folder)}"
        )
        distributed.check_same({"weights": self.learner.weights_checksum()}, sentence)


class Checkpoints(Callback):
    """Saves all that a training needs to go on, unless it has diverged."""

    def __init__(self, path: Path, state: TrainingState) -> None:
        self.path = path
        self.state = state
        self.loss = state.moment.loss  # the newest
        columns = state.pipeline.columns
        self.fixed: dict[str, Any] = {
            "config": state.config,
            "classes": state.pipeline.classes,
            "label_counts": state.pipeline.label_counts,
            "columns": None if columns is None else columns.as_plain(),
            "normaliser": vars(state.pipeline.normaliser),
            "data": checksum(state.data),
            "total": state.total,
        }

    def after(self, moment: Moment) -> None:
        if moment.loss is not None:
            self.loss = moment.loss
        if is_due(moment, self.state.config["checkpoint_every"]):
            self._save(moment)

    def _save(self, moment: Moment) -> None:
        checkpoint = {
            "step": moment.done,
            "moment": moment._replace(loss=self.loss)._asdict(),
            **self.fixed,
            **self.state.learner.state(),
        }
        name = checkpoint_file.first_non_finite(checkpoint)
        if name:
            raise divergence_error(f"{name} is not finite", moment, self.state, self.path.parent)
        sync_tables(self.path.parent)
        checkpoint_file.save(self.path, checkpoint)
