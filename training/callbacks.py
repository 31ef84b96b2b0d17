"""What watches a training: small objects that are called `after` every optimizer step and closed at its end."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import isfinite
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from dataset import DataSet
from images.sets import ImageSet
from loss.log import ExcessLog, LossLog, secure
from loss.moments import Moment, moments
from loss.objective import weight_of
from metrics.bayes import bayes_floor, excess, make_probes
from pipeline import Pipeline
from points.mixture import GaussianMixture
from runtime import checkpoint_file, distributed
from training.denoising_grids import Grids
from training.learner import Learner, checksum
from training.loggers import Follower, board
from training.run_folder import standing
from training.snapshots import Snapshots

PROBE_STEPS, PROBE_POINTS = 20, 100  # with which the excess over the Bayes floor is measured on the way
LOOKED_AT, EXTREME = 20_000, 300.0  # rows, and standard deviations from which the data are blamed where a loss is NaN


class Watcher(Protocol):
    """`after` is called after every optimizer step; `close` once, at the end or where the training is broken off."""

    def after(self, moment: Moment) -> None: ...

    def close(self) -> None: ...


@contextmanager
def watched(
    folder: Path, pipeline: Pipeline, learner: Learner, data: DataSet, begin: Moment, total: int, stack: ExitStack
) -> Iterator[list[Watcher]]:
    """All that watches a training, as trained.config asks for it, in the order in which it is called.

    Of several processes the first has all of them, and the others one: all compare their weights before a save. The
    checkpoint comes last: whatever it counts as done is in the other files by then, and rows of tables are on the
    disk. A recording ends with `stack`, everything else where the training ends.
    """
    watchers: list[Watcher] = []
    if distributed.world() > 1:
        watchers.append(SameWeights(folder, learner, pipeline.config["checkpoint_every"]))
    if distributed.is_first():
        watchers = _of_first(folder, pipeline, learner, data, begin, total, stack, before_saves=watchers)
    with ExitStack() as closing:
        for watcher in watchers:
            closing.callback(watcher.close)
        yield watchers


def _of_first(
    folder: Path,
    pipeline: Pipeline,
    learner: Learner,
    data: DataSet,
    begin: Moment,
    total: int,
    stack: ExitStack,
    before_saves: Sequence[Watcher],
) -> list[Watcher]:
    o, start, finite = pipeline.config, begin.done, Finite(folder, pipeline, learner, data)
    shown_on = board(o["logger"], folder, o, start) if o["logger"] else None  # first: it may be refused
    watchers: list[Watcher] = [finite, LossLog(folder, start), ProgressBar(start, total)]
    drawn: list[Path] = []
    if o["record"] or o["viewer"]:
        watchers.append(Snapshots(folder, pipeline, start, total, o["viewer"], stack))
    if (o["viz_save"] or o["viz_live"]) and isinstance(data, ImageSet):
        watchers.append(grids := Grids(folder, pipeline, data, begin, total))
        drawn = grids.saved
    of_eps = weight_of(pipeline.scheduler, o["loss_weight"]) == "eps"  # else the floor is not that of this loss
    if data.mixture and not pipeline.classes and of_eps:
        watchers.append(Probes(folder, pipeline, data.mixture, start, total))
    if o["early_ema"]:
        watchers.append(EarlySnapshot(learner, max(1, round(o["early_ema"] * total))))
    if shown_on:
        follower = Follower(folder, shown_on, start, drawn)
        stack.callback(follower.end)
        watchers.append(follower)
    return [*watchers, *before_saves, Checkpoints(folder / o["ckpt_save_name"], finite, begin, total)]


class ProgressBar:
    """The bar on the terminal, with the loss beside it; silent where nobody looks."""

    def __init__(self, start: int, total: int) -> None:
        self.bar = tqdm(total=total, initial=start, desc="training", unit="step", disable=None)

    def after(self, moment: Moment) -> None:
        if moment.loss is not None:
            self.bar.set_postfix(loss=f"{moment.loss:.4f}", refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()


class Probes:
    """Measures the excess over the Bayes floor at `moments` and writes it to excess.csv."""

    def __init__(self, folder: Path, pipeline: Pipeline, mixture: GaussianMixture, start: int, total: int) -> None:
        scheduler, seed = pipeline.scheduler, pipeline.config["seed"]
        self.pipeline, self.due = pipeline, set(moments(start, total))
        mixture = pipeline.normaliser.distribution(mixture)
        self.probes = make_probes(mixture, scheduler, num_steps=PROBE_STEPS, num_points=PROBE_POINTS, seed=seed)
        self.log = ExcessLog(folder, self.probes.timesteps.tolist(), bayes_floor(mixture, scheduler), start)

    def after(self, moment: Moment) -> None:
        if moment.done in self.due:
            over = excess(self.pipeline.denoiser(), self.probes, self.pipeline.device)
            self.log.add(moment.done, over.tolist())

    def close(self) -> None:
        self.log.close()


class EarlySnapshot:
    """Keeps a copy of the averaged weights after some optimizer step, once (see Learner.keep_early)."""

    def __init__(self, learner: Learner, due: int) -> None:
        self.learner, self.due = learner, due

    def after(self, moment: Moment) -> None:
        if moment.done >= self.due:
            self.learner.keep_early()

    def close(self) -> None:
        pass


class Finite:
    """Stops a training that diverges before anybody writes that down, and says what to try."""

    def __init__(self, folder: Path, pipeline: Pipeline, learner: Learner, data: DataSet) -> None:
        self.folder, self.pipeline, self.learner, self.data = folder, pipeline, learner, data

    def after(self, moment: Moment) -> None:
        if moment.loss is not None and not isfinite(moment.loss):
            raise self.diverged(moment, f"the loss is {moment.loss}")

    def diverged(self, moment: Moment, what: str) -> ValueError:
        o, advice = self.pipeline.config, "try a lower lr or a longer warmup_steps"
        rows = self.pipeline.normaliser.normalise(self.data[:LOOKED_AT][0])
        if not rows.abs().max() < EXTREME:  # NaN, too
            advice = "look at the data, which hold extreme values"
        elif o["lr"] < 1 < o["lr"] * o["weight_decay"]:
            advice = f"weight_decay={o['weight_decay']:g} times lr={o['lr']:g} must stay far below 1: lower it"
        when = f"after step {moment.done} at a learning rate of {moment.lr:.3g}"
        return ValueError(f"the training diverged: {what} {when}; {advice}; {standing(self.folder)}")

    def close(self) -> None:
        pass


def saved_at(moment: Moment, every: int) -> bool:
    return moment.last or moment.done % every == 0


class SameWeights:
    """Compares the weights of all processes before each save; all have taken the same steps."""

    def __init__(self, folder: Path, learner: Learner, every: int) -> None:
        self.folder, self.learner, self.every = folder, learner, every

    def after(self, moment: Moment) -> None:
        if saved_at(moment, self.every):
            what = f"after step {moment.done} the weights of process {{number}} are no longer those of the first"
            why = "the machines are of different kinds, or one of them miscounts"
            values = {"weights": self.learner.fingerprint()}
            distributed.check_same(values, f"{what}: {why}; {standing(self.folder)}")

    def close(self) -> None:
        pass


class Checkpoints:
    """Saves everything that a training needs to go on, every so many steps and at its end; but nothing diverged."""

    def __init__(self, path: Path, finite: Finite, begin: Moment, total: int) -> None:
        self.path, self.finite, self.loss = path, finite, begin.loss
        self.facts = {
            "config": finite.pipeline.config,
            "classes": finite.pipeline.classes,
            "normaliser": vars(finite.pipeline.normaliser),
            "data": checksum(finite.data),
            "total": total,
        }

    def after(self, moment: Moment) -> None:
        self.loss = self.loss if moment.loss is None else moment.loss
        if saved_at(moment, self.facts["config"]["checkpoint_every"]):
            now = moment._replace(loss=self.loss)._asdict()
            state = {"step": moment.done, "moment": now, **self.facts, **self.finite.learner.state()}
            if name := checkpoint_file.not_finite(state):
                raise self.finite.diverged(moment, f"{name} is not finite")
            secure(self.path.parent)
            checkpoint_file.save(self.path, state)

    def close(self) -> None:
        pass
