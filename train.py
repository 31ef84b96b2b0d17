"""Train an epsilon-network: `python train.py`, `python train.py --model linear --num-epochs 50`."""

from conf.entry import command, typed_options  # answers --help before what follows takes its seconds

# isort: split
import math
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from conf.choices import SAMPLING, default_epochs
from conf.config import Train
from conf.resumed import resumed_options
from dataset import DataSet, Normaliser, make_sets
from loader import batches, make_loader, steps_of
from loss.log import last_mean, read_excess
from loss.moments import LOG_EVERY, Moment
from loss.objective import loss_weights, references_for, step_weights, training_loss
from metrics.evaluation import evaluate_model, real_rows
from metrics.results import score_fields, write_report
from pipeline import Pipeline, build
from runtime import checkpoint_file, distributed
from runtime import device as devices
from runtime.randomness import integer_seed
from training import signals as interrupts
from training import startup_check
from training.callbacks import watched
from training.learner import Learner
from training.noise import Noise
from training.optimizers import make_optimizers
from training.run_folder import checkpoint_to_resume, taken
from viz import style
from viz.evaluation_pictures import save_losses, save_pictures, save_sweep


@command("train", after_sweep=save_sweep)
def main(options: Train, run_folder: Path) -> float:
    """One training run in its own folder. Returns the last mean loss, for sweepers."""
    style.use(options.style)
    with distributed.joined(options.device):
        return begin_or_resume(options, distributed.run_folder(run_folder), typed_options())["loss"]


def begin_or_resume(options: Train, run_folder: Path, typed: set[str]) -> dict[str, Any]:
    """A new training in `run_folder`; or with resume= that of another folder, there and with the options it has."""
    path = distributed.from_first(lambda: checkpoint_to_resume(options.resume, run_folder))
    run_folder = checkpoint_file.folder_of(path) if path else run_folder
    with taken(run_folder, new=not path and not distributed.restarts()), ExitStack() as stack:
        if state := distributed.from_first(lambda: checkpoint_file.load(path) if path else None):
            options = resumed_options(options, typed, state.get("config"), run_folder)
        return train(replace(options, shards=options.shards or distributed.world()), run_folder, stack, state)


def train(o: Train, run_folder: Path, stack: ExitStack, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train as the options say, from the checkpoint `state` on; save all in `run_folder`, return the figures.
    A recording, where one is asked for, ends with `stack`; a web page lasts until Ctrl-C."""
    images, device = startup_check.check_options(asdict(o)), devices.choose(o.device)

    # ------------------------------------------------------------ 1. data; points get mean 0 and standard deviation 1
    data, unseen = make_sets(n_samples=o.num_samples, seed=o.seed, **asdict(o.dataset))
    classes, normaliser = startup_check.classes_to_learn(data, asdict(o)), Normaliser.of(data)
    loader = make_loader(data, batch_size=o.batch_size, seed=o.seed, device=device)
    epochs = o.num_epochs or default_epochs(len(data), o.dataset.name)
    o, total = replace(o, num_epochs=epochs), o.max_steps or steps_of(epochs, len(data), o.batch_size)

    # ------------------------------------------------------------ 2. network, schedule, loss, optimizer
    torch.manual_seed(integer_seed(o.seed, "weights"))
    net, scheduler = build(asdict(o), tuple(normaliser.mean.shape), len(classes))
    devices.place(net, device, channels_last=images and device.type == "cuda")
    mixed = devices.mixed_precision(o.precision, device, images)
    weights = loss_weights(scheduler, o.model.prediction, o.loss_weight).float().to(device)
    run = devices.in_bf16(net) if mixed else net
    drawn = weights * step_weights(o.num_timesteps, o.t_power).to(weights)
    loss_of = partial(training_loss, run, scheduler, target=o.model.prediction, weights=drawn, null_label=len(classes))
    optimizers = make_optimizers(net, o.optimizer, lr=o.lr, weight_decay=o.weight_decay)
    learner = Learner.of(net, optimizers, o.ema_decay, o.shards or 1, references_for(len(data), o.references))
    moment = learner.restore(state, data, total, run_folder) if state else Moment()
    pipeline = Pipeline(learner.average.module, scheduler, normaliser, asdict(o), classes, mixed)
    noise = Noise(pipeline, o.seed, o.batch_size)
    startup_check.look_at(data, unseen, pipeline, learner, loss_of, weights, total=total - moment.done)

    # ------------------------------------------------------------ 3. the loop
    with watched(run_folder, pipeline, learner, data, moment, total, stack) as watchers, interrupts.caught() as signals:
        stop, clock, cpu = 0, moment.seconds - time.perf_counter(), moment.cpu_seconds - time.process_time()
        for step, batch in zip(range(moment.done, total), batches(loader, moment.done)):
            lr = learning_rate(step, total, o.warmup_steps, o.lr)
            stop = learner.learn(loss_of, noise.added(step, *batch), lr, signals)
            done, last = step + 1, step + 1 == total or stop > 0
            loss, stable = learner.mean_loss() if done % LOG_EVERY == 0 or done == total else (None, None)
            moment = Moment(done, loss, lr, clock + time.perf_counter(), cpu + time.process_time(), last, stable)
            for watcher in watchers:
                watcher.after(moment)
            if last:
                break
    if stop or signals:
        interrupts.end(stop or signals[0], run_folder, o.viewer, stack)

    # ------------------------------------------------------------ 4. evaluation
    return report(o, run_folder, pipeline.ready(device), data, unseen, moment)


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """A linear rise to `peak` over `warmup` steps, then half a cosine down to 0 at `total`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def report(
    o: Train, run_folder: Path, pipeline: Pipeline, data: DataSet, unseen: DataSet, end: Moment
) -> dict[str, Any]:
    """The evaluation of a finished training, by all processes; pictures, metrics.json and a summary, by the first."""
    loss = distributed.from_first(lambda: last_mean(run_folder))
    if distributed.is_first():
        save_losses(run_folder / "loss.png", {run_folder.name: run_folder}, o.figures)
    figures = {"steps": end.done, "seconds": end.seconds, "cpu_seconds": end.cpu_seconds, "loss": loss}
    clock, evaluation = time.perf_counter(), None
    print(f"""training summary
  network   {o.model.name}, {pipeline.num_parameters:,} parameters
  training  {end.done:,} steps in {end.seconds:.1f} s ({end.cpu_seconds:.1f} s of CPU)
  loss      {loss:.4f} (mean over the last 5 % of the steps)
  run       {run_folder}""")
    if o.eval_samples:
        print(f"  evaluation of {o.eval_samples:,} samples", flush=True)
        sampling = pipeline.sampling(SAMPLING[pipeline.kind]._asdict())
        evaluation = evaluate_model(pipeline, data, unseen, num_samples=o.eval_samples, seed=o.seed, sampling=sampling)
    distributed.leave_to_first()
    if evaluation:
        real, fields = real_rows(unseen, o.eval_samples, o.seed), score_fields(pipeline, unseen)
        save_pictures(run_folder, evaluation, real, fields, read_excess(run_folder), o.figures, pipeline.classes)
        print(f"  evaluated in {time.perf_counter() - clock:.1f} s; pictures and metrics.json in the run folder")
    return write_report(run_folder, evaluation, unseen, **figures)


if __name__ == "__main__":
    main()
