"""Every option of every command, once: its default, what it means and what it may be.

The dataclasses are registered in Hydra's ConfigStore (store.py), so `python train.py lr=1e-3` checks names and types;
ranges and choices stand in the fields' metadata and are checked by option.check. `--help` (help.py) is made from the
same fields: the docstring of a class is the heading of its options there, that of a command what it is for.
The choices of dataset= and model= have their own options in groups.py, recordings in recording.py,
the machine in machine.py.
"""

from dataclasses import dataclass, fields
from typing import Any

from conf.choices import (
    LOSS_WEIGHTS,
    MASKS,
    METHODS,
    NUM_SAMPLES,
    OPTIMIZERS,
    SAMPLER_ALIASES,
    SAMPLERS,
    SAMPLING,
    SCHEDULE_ALIASES,
    SCHEDULES,
    SPACINGS,
    VARIANCES,
    by_kind,
    default_length,
    default_sampling,
    default_steps,
    meanings,
)
from conf.machine import Machine, Seeded
from conf.option import free, option
from conf.pictures import Pictures
from conf.recording import Recording, Viewing, Watching

# ---------------------------------------------------------------- what several commands share


@dataclass
class Process:
    """forward process"""

    schedule: str = option(
        "linear", f"noise schedule; {meanings(SCHEDULES)}", choices=SCHEDULES, aliases=SCHEDULE_ALIASES
    )
    num_timesteps: int = option(1000, "T, the number of forward steps", low=2, high=100_000)
    beta_start: float | None = option(
        None, "first noise variance of schedule=linear and scaled_linear; default: 0.1 / T", above=0, below=1
    )
    beta_end: float | None = option(None, "the last; default: 20 / T: no signal left", above=0, below=1)
    zero_snr: bool = option(
        False, "change the schedule a little so that no signal at all is left at the last step; flow is so anyway"
    )


def sampler_option() -> Any:
    known = meanings({name: row.meaning for name, row in SAMPLERS.items()})
    return option(
        None, f"reverse process; {known}; {default_sampling('sampler')}", choices=SAMPLERS, aliases=SAMPLER_ALIASES
    )


def steps_option() -> Any:
    return option(None, f"network evaluations, at most; {default_steps()}", low=1)


@dataclass
class Sampling:
    """sampling"""

    checkpoint: str | None = option(None, "a checkpoint or its run folder; default: the newest one")
    num_samples: int | None = option(None, f"samples to generate; {by_kind(NUM_SAMPLES['inference'])}", low=1)
    sampler: str | None = sampler_option()
    sampling_steps: int | None = steps_option()
    spacing: str | None = option(
        None,
        f"how sampling steps are even; {meanings(SPACINGS)}; default: the sampler's own",
        choices=SPACINGS,
    )
    variance: str | None = option(
        None, f"of the noise in ddpm; {meanings(VARIANCES)}; default: fixed_small", choices=VARIANCES
    )
    eta: float = option(0.0, "fresh noise in ddim: 0 for none, 1 for as much as in ddpm", low=0, high=1)
    guidance: float | None = option(
        None,
        "classifier-free guidance of a conditional model: w in eps = (1 + w) eps_cond - w eps_uncond, 0 for none;"
        " -1 for the unconditional model;"
        f" {default_sampling('guidance')}",
        low=-1,
    )
    guidance_interval: list[float] | None = option(
        None,
        "guide only where the noise sigma/alpha lies in [low,high], such as [0.2,2]; default: everywhere, but the"
        f" default guidance of images in {list(SAMPLING['images'].guidance_interval or ())}",
    )
    autoguidance: float = option(
        0.0, "guidance away from an early snapshot instead (train.py early_ema=0.1), labels or not: its weight w", low=0
    )


def sampling_options(o: Sampling) -> dict[str, Any]:
    """How a command samples: the options of Sampling but the checkpoint and the number of samples."""
    return {f.name: getattr(o, f.name) for f in fields(Sampling) if f.name not in ("checkpoint", "num_samples")}


@dataclass
class Labels:
    """sampling"""

    labels: Any = option(None, "labels to generate, such as [0,1,2]; default: all of a conditional model's, in turn")


@dataclass
class Steering:
    """steering"""

    observe: str | None = option(
        None,
        "sample given an observation: of points a coordinate or a line in data units, y=0.2 or 2x-y=0.3 (also scores"
        f" every method against the exact posterior); of images {', '.join(f'mask:{name}' for name in MASKS)}",
    )
    observe_noise: float = option(0.05, "standard deviation of the noise in the observation", low=1e-3, high=1e3)
    observe_method: str | None = option(
        None, f"posterior sampler; {meanings(METHODS)}; default: sir for points, pigdm for images", choices=METHODS
    )
    observe_image: int = option(0, "which of the held-out images is observed; the next seven follow", low=0)
    guidance_sheet: bool = option(
        False, "instead of sampling: what guidance claims against what it samples, w from 0 to 8, of conditional points"
    )


# ---------------------------------------------------------------- train.py


@dataclass
class Data:
    """data"""

    dataset: Any = option("moons", "what to learn")
    num_samples: int | None = option(200_000, "points or images to learn from, at most; null: all there are", low=2)


@dataclass
class Network:
    """network"""

    model: Any = option("mlp", "the network")


@dataclass
class Training:
    """training"""

    num_epochs: int | None = option(None, f"passes over the data; {default_length()}", low=1)
    max_steps: int | None = option(None, "stop after this many optimizer steps instead of num_epochs", low=1)
    batch_size: int = option(2048, "points or images per optimizer step", low=1)
    shards: int | None = option(
        None,
        "equal parts of a batch, whose gradients are computed one at a time and added in one order: less memory, and"
        " the same bits in any number of processes that divides it; default: the number of processes that torchrun"
        " starts",
        low=1,
    )
    lr: float = option(0.012, "peak learning rate, after a linear warm-up and before a cosine decay to 0", above=0)
    warmup_steps: int = option(30, "optimizer steps of warm-up", low=0)
    optimizer: str = option("muon", f"update of the weights; {meanings(OPTIMIZERS)}", choices=OPTIMIZERS)
    weight_decay: float = option(0.01, "weight decay of AdamW", low=0)
    ema_decay: float | None = option(
        None,
        "decay of the moving average of weights used for sampling; default: over the last tenth of the training",
        low=0,
        below=1,
    )
    early_ema: float | None = option(
        None,
        "keep a copy of the averaged weights after this fraction of the training, for autoguidance, such as 0.1;"
        " default: none",
        above=0,
        below=1,
    )
    loss_weight: str | None = option(
        None,
        f"weight of each step in the loss; {meanings(LOSS_WEIGHTS)}; default: eps, and for a process that ends in pure"
        " noise (schedule=flow, zero_snr=true), which has no error of eps, and for images target",
        choices=LOSS_WEIGHTS,
    )
    references: int | None = option(
        None,
        "rows of a batch that serve as references: each learns from its noise expected over them, with less variance"
        " than the noise drawn (stable target); 0: from the noise drawn; default: 512, and 0 for images and for fewer"
        " than 10,240 points, which would be learnt by heart",
        low=0,
    )
    t_power: float = option(
        1.6,
        "steps are drawn as t = T u^t_power, u even in 0..1: above 1 small t more often, weighted back",
        low=0.1,
        high=10,
    )
    conditional: bool = option(False, "also learn the labels, so that samples can be requested by label")
    label_dropout: float = option(0.1, "fraction of labels dropped, which guidance needs", low=0, below=1)


@dataclass
class Evaluation:
    """evaluation"""

    eval_samples: int = free(
        NUM_SAMPLES["evaluate"]["points"],
        "samples to evaluate at the end of the training; 0: no evaluation",
        low=0,
    )


@dataclass
class Run:
    """run folder"""

    task_name: str | None = free(None, "run folder, such as runs/first; default: a new one, named after the time")
    ckpt_save_name: str = free("last.pt", "name of the checkpoint in the run folder, ending in .pt or .pth")
    checkpoint_every: int = free(1000, "optimizer steps between checkpoints", low=1)
    resume: str | None = free(
        None, "go on with a run folder, a checkpoint or latest, there and with its own options; its length may grow"
    )


# ---------------------------------------------------------------- the commands: fields of the last base come first


@dataclass
class Train(Machine, Pictures, Watching, Run, Evaluation, Training, Process, Network, Data):
    """Train a denoising network, then sample with it and evaluate the samples."""


@dataclass
class Inference(Machine, Pictures, Recording, Steering, Labels, Sampling):
    """Sample from a checkpoint and show the learned reverse process."""

    flow: bool = option(
        False,
        "instead: flow lines of points, the paths of a sampler without noise (default here: 1,400 by adams with 200"
        " evaluations) coloured by what they reach, in flow.png and flow_square.png, and growing in films;"
        " flow_exact.png: beside those of the exact denoiser",
    )
    viz_steps: int = option(100, "states recorded, at most: even in log-SNR, with the first and the last", low=2)
    animation: str | None = option(
        None,
        "also save the process as a short film; mp4 needs ffmpeg; default: none for points, gif for images, of flow"
        " lines mp4 where there is ffmpeg, else gif",
        choices=("none", "gif", "mp4"),
    )


@dataclass
class Main(Seeded, Pictures, Recording, Process, Data):
    """Show the forward process: how clean points or images turn into noise.

    --train-ddpm-model, as in older guides, trains instead: see `python train.py --help`.
    """

    dataset: Any = option("moons", "what to add noise to")
    num_samples: int | None = option(500, "points or images to show; of images, at most 64", low=1)
    num_timesteps: int = option(100, "T, the number of forward steps", low=2, high=100_000)
    save_plots: bool = option(False, "also save pictures of the process, its schedule, its statistics against theory")
    compare_schedules: bool = option(False, "also save one picture that compares the schedules")


@dataclass
class Evaluate(Machine, Pictures, Sampling):
    """Measure how good a checkpoint or a file of samples is: every metric beside its floor."""

    samples: str | None = option(
        None, "evaluate the points or images of this file instead (.npy or a table of numbers, in data units)"
    )
    dataset: Any = option("moons", "what samples=FILE is compared with; a checkpoint knows its own")
    num_samples: int | None = option(None, f"samples to evaluate; {by_kind(NUM_SAMPLES['evaluate'])}", low=100)
    sampler: str | None = sampler_option()
    sampling_steps: int | None = steps_option()


@dataclass
class Compare(Machine, Pictures, Viewing):
    """Compare samplers at equal numbers of network evaluations, from the same noise: distances, pictures, paths."""

    checkpoint: str | None = option(None, "a checkpoint or its run folder; default: the newest one")
    samplers: list[str] | None = option(
        None,
        "which, such as [ddim,unipc], of those that inference.py --help explains; default: all",
        choices=SAMPLERS,
        aliases=SAMPLER_ALIASES,
    )
    evaluations: list[int] = option([5, 10, 15, 20, 50], "how often each of them may run the network, at most", low=1)
    num_samples: int | None = option(
        None,
        f"samples by each; {by_kind(NUM_SAMPLES['compare'])}",
        low=100,
    )


COMMANDS = {"train": Train, "inference": Inference, "evaluate": Evaluate, "compare": Compare, "main": Main}
