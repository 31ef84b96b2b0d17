"""Train an epsilon-network: `python train.py`, `python train.py --model linear --num-epochs 50`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
import math
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from conf.choices import SAMPLING_DEFAULTS
from conf.config import Train
from conf.option import fixed_options
from dataset import DataSet, Normaliser, make_sets
from diffusion import loss_weights, training_loss
from loader import batches, make_loader
from loss.log import read_excess, read_losses
from metrics.evaluation import evaluate_model, real_rows
from metrics.report import score_fields, write_report
from runtime import device as devices
from runtime import preflight
from runtime.moments import Moment
from runtime.randomness import generator, integer_seed
from runtime.resume import Learner, averaging, resumed_state
from runtime.trained import Trained, build
from runtime.watchers import watched
from viz import stills
from viz.evaluation import save_pictures

LOG_EVERY = 10  # optimizer steps in a row of loss.csv


@command("train")
def main(options: Train, run_folder: Path) -> float:
    """One training run in its own folder. Returns the last mean loss, for sweepers."""
    with ExitStack() as stack:
        return train(options, run_folder, stack)["loss"]


def train(o: Train, run_folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Train as the options say, save everything in `run_folder`, return the figures.

    A recording, where one is asked for, ends with `stack`; a web page lasts until Ctrl-C.
    """
    images, device = preflight.check_options(asdict(o)), devices.choose(o.device)
    resumed = resumed_state(o.resume, asdict(o), fixed_options(Train))

    # ------------------------------------------------------------ 1. data; points get mean 0 and standard deviation 1
    data, unseen = make_sets(n_samples=o.num_samples, seed=o.seed, **asdict(o.dataset))
    classes, normaliser = preflight.classes_to_learn(data, asdict(o)), Normaliser.of(data)
    loader = make_loader(data, batch_size=o.batch_size, seed=o.seed)
    total = o.max_steps or o.num_epochs * len(loader)

    # ------------------------------------------------------------ 2. network, schedule, loss, optimizer
    torch.manual_seed(integer_seed(o.seed, "weights"))
    net, scheduler = build(asdict(o), tuple(normaliser.mean.shape), len(classes))
    devices.place(net, device, channels_last=images and device.type == "cuda")
    mixed = devices.mixed_precision(o.precision, device, images)
    weights = loss_weights(scheduler, o.model.prediction, o.loss_weight).float().to(device)
    run = devices.in_bf16(net) if mixed else net
    loss_of = partial(training_loss, run, scheduler, target=o.model.prediction, weights=weights)
    optimizer = torch.optim.AdamW(net.parameters(), o.lr, weight_decay=o.weight_decay, fused=True)
    learner = Learner(net, AveragedModel(net, multi_avg_fn=averaging(o.ema_decay)), optimizer)
    start = learner.restore(resumed, str(o.resume)) if resumed else 0
    trained = Trained(learner.average.module, scheduler, normaliser, asdict(o), classes, mixed)
    preflight.look_at(data, trained, net, loss_of, weights, total=total - start)

    # ------------------------------------------------------------ 3. the loop
    pending, clock, cpu = [], time.perf_counter(), time.process_time()
    with watched(run_folder, trained, learner, data, start, total, stack) as watchers:
        for step, batch in zip(range(start, total), batches(loader, start)):
            lr = optimizer.param_groups[0]["lr"] = learning_rate(step, total, o.warmup_steps, o.lr)
            loss = loss_of(*noised(*batch, trained, generator(o.seed, "noise", step), device)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            learner.average.update_parameters(net)

            pending.append(loss.detach())
            mean = mean_loss(pending, step + 1) if (step + 1) % LOG_EVERY == 0 or step + 1 == total else None
            for watcher in watchers:
                watcher.after(Moment(step + 1, mean, lr, time.perf_counter() - clock))
    figures = {"steps": total - start, "seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}

    # ------------------------------------------------------------ 4. evaluation
    return report(o, run_folder, trained.ready(device), data, unseen, figures)


def noised(
    x_0: Tensor, label: Tensor | None, trained: Trained, g: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(x_0, t, eps, label) of one optimizer step, on the device: normalised, and some of the labels dropped."""
    t = torch.randint(trained.scheduler.num_timesteps, x_0.shape[:1], generator=g)
    eps = torch.randn(x_0.shape, generator=g)
    if trained.classes and label is not None:
        label = drop_labels(label, len(trained.classes), trained.config["label_dropout"], g).to(device)
    else:
        label = None
    return trained.normaliser.normalise(x_0).to(device), t.to(device), eps.to(device), label


def drop_labels(label: Tensor, num_labels: int, dropout: float, g: torch.Generator) -> Tensor:
    """Labels (B,), of which a share becomes the null label: from these the unconditional epsilon is learnt."""
    return torch.where(torch.rand(label.shape, generator=g) < dropout, num_labels, label)


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """A linear rise to `peak` over `warmup` steps, then half a cosine down to 0 at `total`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def mean_loss(pending: list[Tensor], done: int) -> float:
    """The mean of the pending losses, which are used up. Raises ValueError where it is not finite any more."""
    mean = float(sum(pending)) / len(pending)  # the only moment that waits for a GPU
    pending.clear()
    if not math.isfinite(mean):
        raise ValueError(f"the loss is {mean} after {done} steps: lower lr")
    return mean


def report(
    o: Train, run_folder: Path, trained: Trained, data: DataSet, unseen: DataSet, figures: dict[str, Any]
) -> dict[str, Any]:
    """The evaluation of a finished training, its pictures, metrics.json and a summary."""
    losses, over, name = read_losses(run_folder), read_excess(run_folder), run_folder.name
    stills.save(stills.losses({name: losses}, {name: over} if over else {}), run_folder / "loss.png")
    figures |= {"loss": float(losses["loss"][-max(1, len(losses["loss"]) // 20) :].mean())}
    parameters, clock, evaluation = sum(p.numel() for p in trained.net.parameters()), time.perf_counter(), None
    print(f"""training summary
  network   {o.model.name}, {parameters:,} parameters
  training  {figures["steps"]:,} steps in {figures["seconds"]:.1f} s ({figures["cpu_seconds"]:.1f} s of CPU)
  loss      {figures["loss"]:.4f} (mean over the last 5 % of the steps)""")
    if o.eval_samples:
        print(f"  evaluation of {o.eval_samples:,} samples", flush=True)
        sampling = trained.sampling(SAMPLING_DEFAULTS["evaluate"][trained.kind]._asdict())
        evaluation = evaluate_model(trained, data, unseen, num_samples=o.eval_samples, seed=o.seed, sampling=sampling)
        save_pictures(
            run_folder, evaluation, real_rows(unseen, o.eval_samples, o.seed), score_fields(trained, unseen), over
        )
        print(f"  evaluated in {time.perf_counter() - clock:.1f} s; pictures and metrics.json in the run folder")
    result = write_report(run_folder, evaluation, unseen, **figures)
    print(f"  run       {run_folder}")
    return result


if __name__ == "__main__":
    main()
