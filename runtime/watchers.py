"""What watches a training: small objects that are called `after` every optimizer step and closed at its end."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from dataset import DataSet
from images.sets import ImageSet
from loss.log import ExcessLog, LossLog
from metrics.bayes import bayes_floor, excess, make_probes
from mixture import GaussianMixture
from runtime import checkpoint
from runtime.moments import Moment, moments
from runtime.resume import Learner
from runtime.snapshots import Snapshots
from runtime.trained import Trained
from runtime.training_grids import Grids

PROBE_STEPS, PROBE_POINTS = 20, 100  # with which the excess over the Bayes floor is measured on the way


class Watcher(Protocol):
    """`after` is called after every optimizer step; `close` once, at the end or where the training is broken off."""

    def after(self, moment: Moment) -> None: ...

    def close(self) -> None: ...


@contextmanager
def watched(
    folder: Path, trained: Trained, learner: Learner, data: DataSet, start: int, total: int, stack: ExitStack
) -> Iterator[list[Watcher]]:
    """All that watches a training, as trained.config asks for it, in the order in which it is called.

    A recording ends with `stack`, everything else where the training ends.
    """
    o = trained.config
    watchers: list[Watcher] = [LossLog(folder), ProgressBar(start, total)]
    if o["record"] or o["viewer"]:
        watchers.append(Snapshots(folder, trained, start, total, o["viewer"], stack))
    if (o["viz_save"] or o["viz_live"]) and isinstance(data, ImageSet):
        watchers.append(Grids(folder, trained, data, total))
    if data.mixture and not trained.classes and o["loss_weight"] == "eps":  # else the floor is not that of this loss
        watchers.append(Probes(folder, trained, data.mixture, start, total))
    watchers.append(Checkpoints(folder / o["ckpt_save_name"], trained, learner, o["checkpoint_every"], total))
    with ExitStack() as closing:
        for watcher in watchers:
            closing.callback(watcher.close)
        yield watchers


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

    def __init__(self, folder: Path, trained: Trained, mixture: GaussianMixture, start: int, total: int) -> None:
        scheduler, seed = trained.scheduler, trained.config["seed"]
        self.trained, self.due = trained, set(moments(start, total))
        mixture = mixture.scaled(trained.normaliser.mean, trained.normaliser.std)
        self.probes = make_probes(mixture, scheduler, num_steps=PROBE_STEPS, num_points=PROBE_POINTS, seed=seed)
        self.log = ExcessLog(folder, self.probes.timesteps.tolist(), bayes_floor(mixture, scheduler))

    def after(self, moment: Moment) -> None:
        if moment.done in self.due:
            over = excess(self.trained.denoise(), self.probes, self.trained.device)
            self.log.add(moment.done, over.tolist())

    def close(self) -> None:
        self.log.close()


class Checkpoints:
    """Saves everything that a training needs to go on, every so many steps and at the end."""

    def __init__(self, path: Path, trained: Trained, learner: Learner, every: int, total: int) -> None:
        self.path, self.trained, self.learner, self.every, self.total = path, trained, learner, every, total

    def after(self, moment: Moment) -> None:
        if moment.done % self.every == 0 or moment.done == self.total:
            facts = {"step": moment.done, "config": self.trained.config, "classes": self.trained.classes}
            normaliser = vars(self.trained.normaliser)
            checkpoint.save(self.path, {**facts, "normaliser": normaliser, **self.learner.state()})

    def close(self) -> None:
        pass
