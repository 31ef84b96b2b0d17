"""Train an epsilon-network: `python train.py`, `python train.py --model linear --num-epochs 50`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
import json
import math
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf.config import Train
from conf.option import fixed_options

LOG_EVERY = 10  # optimizer steps in a row of loss.csv
PROBE_STEPS, PROBE_POINTS = 20, 100  # with which the excess over the Bayes floor is measured on the way


@command("train")
def main(options: Train, run_folder: Path) -> float:
    """One training run in its own folder. Returns the last mean loss, for sweepers."""
    config = asdict(options)
    with ExitStack() as stack:
        return train(run_folder, config, stack)["loss"]


def train(run_folder: Path, config: dict[str, Any], stack: ExitStack) -> dict[str, Any]:
    """Train as `config` says (conf/config.py: Train), leave everything in `run_folder`, return the figures.

    A recording, where one is asked for, ends with `stack`; a web page lasts until Ctrl-C.
    """
    import torch  # here and not above: --help must not wait for it
    from torch.optim.swa_utils import AveragedModel
    from tqdm import tqdm

    from dataset import IMAGE_DATASETS, Normaliser, make_sets
    from diffusion import denoiser, training_loss
    from loader import batches, make_loader
    from loss.log import ExcessLog, LossLog
    from metrics.bayes import bayes_floor, excess, make_probes
    from model import check_takes
    from runtime import checkpoint, snapshots, training_grids
    from runtime import device as devices
    from runtime.preflight import startup_check
    from runtime.randomness import generator, integer_seed
    from runtime.trained import Trained, build, take_weights

    seed, device = config["seed"], devices.choose(config["device"])
    images = config["dataset"]["name"] in IMAGE_DATASETS
    checkpoint.check_name(config["ckpt_save_name"])
    check_takes(config["model"]["name"], images)
    training_grids.check(config, images)
    devices.use_threads(config["threads"], images)
    mixed = devices.mixed_precision(config["precision"], device, images)
    resumed = _resumed(config)

    # ------------------------------------------------------------ data; points get mean 0 and standard deviation 1
    data, unseen = make_sets(n_samples=config["num_samples"], seed=seed, **config["dataset"])
    classes = _classes(data, config)
    normaliser = Normaliser.of(data)
    loader = make_loader(data, batch_size=config["batch_size"], seed=seed)
    total = config["max_steps"] or config["num_epochs"] * len(loader)

    # ------------------------------------------------------------ network, schedule, optimizer
    torch.manual_seed(integer_seed(seed, "weights"))
    net, scheduler = build(config, tuple(normaliser.mean.shape), len(classes))
    net.to(device, memory_format=torch.channels_last if images and device.type == "cuda" else torch.preserve_format)
    average = AveragedModel(net, multi_avg_fn=_averaging(config["ema_decay"]))
    optimizer = torch.optim.AdamW(net.parameters(), config["lr"], weight_decay=config["weight_decay"], fused=True)
    start = 0
    if resumed:
        take_weights(net, resumed["net"], config["resume"])
        take_weights(average, resumed["ema"], config["resume"])
        optimizer.load_state_dict(resumed["optimizer"])
        start = resumed["step"]
    denoise = denoiser(devices.in_bf16(net) if mixed else net, scheduler, config["model"]["prediction"])
    trained = Trained(average.module, scheduler, normaliser, config, classes, mixed)
    startup_check(data, normaliser, scheduler, net, denoise, config, total=total - start)

    # ------------------------------------------------------------ what is measured on the way
    log, probes = LossLog(run_folder, LOG_EVERY), None
    if data.mixture and not classes and config["loss_weight"] == "eps":  # else the floor is not that of this loss
        mixture = data.mixture.scaled(normaliser.mean, normaliser.std)
        probes = make_probes(mixture, scheduler, num_steps=PROBE_STEPS, num_points=PROBE_POINTS, seed=seed)
        excess_log = ExcessLog(run_folder, probes.timesteps.tolist(), bayes_floor(mixture, scheduler))
        moments = set(snapshots.moments(start, total))

    # ------------------------------------------------------------ the loop
    snapshot = stack.enter_context(snapshots.recorded(run_folder, config, scheduler, normaliser, start, total))
    grid = stack.enter_context(training_grids.drawn(run_folder, trained, data, len(loader), total))
    snapshot(start, average.module, None)
    clock, cpu = time.perf_counter(), time.process_time()
    bar = tqdm(total=total, initial=start, desc="training", unit="step", disable=None)
    for step, (x_0, label) in zip(range(start, total), batches(loader, start)):
        g = generator(seed, "noise", step)
        t = torch.randint(scheduler.num_timesteps, x_0.shape[:1], generator=g).to(device)
        eps = torch.randn(x_0.shape, generator=g).to(device)
        x_0 = normaliser.normalise(x_0).to(device)
        label = drop_labels(label, len(classes), config["label_dropout"], g).to(device) if classes else None
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total, config["warmup_steps"], config["lr"])

        loss = training_loss(denoise, scheduler, x_0, t, eps, label, config["loss_weight"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(net)

        done = step + 1
        if (mean := log.add(done, loss, group["lr"], time.perf_counter() - clock)) is not None:
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        snapshot(done, average.module, mean)
        grid(done, mean)
        bar.update()
        if probes and done in moments:
            excess_log.add(done, excess(trained.denoise(), probes, device).tolist())
        if done % config["checkpoint_every"] == 0 or done == total:
            state = {
                "step": done,
                "config": config,
                "normaliser": vars(normaliser),
                "classes": classes,
                "net": net.state_dict(),
                "ema": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            checkpoint.save(run_folder / config["ckpt_save_name"], state)
    bar.close()
    log.close()
    if probes:
        excess_log.close()
    figures = {"steps": total - start, "seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
    return _report(run_folder, trained, data, unseen, figures, device)


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """A linear rise to `peak` over `warmup` steps, then half a cosine down to 0 at `total`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def drop_labels(label: Any, num_labels: int, dropout: float, generator: Any) -> Any:
    """Labels (B,), of which a share is replaced by the null label: from these the unconditional epsilon is learnt."""
    import torch

    hidden = torch.rand(label.shape, generator=generator) < dropout
    return torch.where(hidden, num_labels, label)


def _classes(data: Any, config: dict[str, Any]) -> list[str]:
    """The names of the labels that are learnt: none, unless the training is conditional."""
    if config["conditional"] and not data.classes:
        raise ValueError(f"conditional=true needs labels, and dataset={config['dataset']['name']} has none")
    return data.classes if config["conditional"] else []


def _averaging(decay: float) -> Any:
    """The exponential moving average of weights; it starts short, so that it forgets the random beginning."""
    import torch

    @torch.no_grad()
    def update(averaged: list, current: list, updates: torch.Tensor) -> None:
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + int(updates)) / (10 + int(updates))))

    return update


def _resumed(config: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint to go on from. Raises ValueError where it was trained with other options."""
    from runtime import checkpoint

    if config["resume"] is None:
        return None
    state = checkpoint.load(config["resume"])
    for group in ("model", "dataset"):
        if (have := state["config"][group]["name"]) != (want := config[group]["name"]):
            raise ValueError(f"resume={config['resume']} was trained with {group}={have}, not with {group}={want}")
    if other := [k for k in fixed_options(Train) if state["config"].get(k) != config[k]]:
        raise ValueError(f"resume={config['resume']} was trained with other options: {', '.join(sorted(other))}")
    return state


def _report(
    run_folder: Path, trained: Any, data: Any, unseen: Any, result: dict[str, Any], device: Any
) -> dict[str, Any]:
    """The judgement of a finished training, its pictures, metrics.json and a summary."""
    from loss.log import read_excess, read_losses
    from metrics.evaluation import evaluate_model
    from metrics.report import write_report
    from viz import stills as figures

    config, name = trained.config, run_folder.name
    losses, over = read_losses(run_folder), read_excess(run_folder)
    figures.save(figures.losses({name: losses}, {name: over} if over else {}), run_folder / "loss.png")
    tail = losses["loss"][-max(1, len(losses["loss"]) // 20) :]
    result |= {"loss": float(tail.mean())}

    parameters = sum(p.numel() for p in trained.net.parameters())
    print("training summary")
    print(f"  network   {config['model']['name']}, {parameters:,} parameters")
    print(f"  training  {result['steps']:,} steps in {result['seconds']:.1f} s ({result['cpu_seconds']:.1f} s of CPU)")
    print(f"  loss      {result['loss']:.4f} (mean over the last 5 % of the steps)")
    if config["eval_samples"]:
        clock = time.perf_counter()
        print(f"  judgement of {config['eval_samples']:,} samples", flush=True)
        seed, trained = config["seed"], trained.ready(device)
        evaluation = evaluate_model(trained, data, unseen, device, num_samples=config["eval_samples"], seed=seed)
        options = {"seed": seed, "trained": trained, "history_from": run_folder}
        result = write_report(run_folder, evaluation, unseen, **options, **result)
        print(f"  judged in {time.perf_counter() - clock:.1f} s; pictures and metrics.json in the run folder")
    else:
        (run_folder / "metrics.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"  run       {run_folder}")
    return result


if __name__ == "__main__":
    main()
