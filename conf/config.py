"""Every option of every command, once: its default, its meaning and the values that it may have.

Hydra's ConfigStore holds the dataclasses (store.py), so Hydra checks names and types, for example
in `python train.py lr=1e-3`. Ranges and choices are metadata of the fields, and option.check checks
them. `--help` (help.py) shows the same fields: the docstring of a class is the heading of its
options, and the docstring of a command says what the command does. The options of each data set and
network are in groups.py, those of recordings in recording.py, and those of the machine in
machine.py.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from conf.choices import NUM_SAMPLES, by_kind, default_length, default_sampling, default_steps, meanings
from conf.include import Included
from conf.inference_modes import FlowLines, GuidanceSheet, Observed
from conf.machine import Machine, Seeded
from conf.option import option
from conf.pictures import Pictures
from conf.recording import Recording, Viewing, Watching
from registry.process_rows import LOSS_WEIGHTS, OPTIMIZERS, SCHEDULE_ALIASES, SCHEDULES
from registry.sampler_rows import SAMPLER_ALIASES, SAMPLERS, SAMPLING, SPACINGS, VARIANCES

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
    known = meanings(SAMPLERS)
    return option(
        None, f"reverse process; {known}; {default_sampling('sampler')}", choices=SAMPLERS, aliases=SAMPLER_ALIASES
    )


def steps_option() -> Any:
    return option(
        None, f"network evaluations, at most; those for covariances are not counted; {default_steps()}", low=1
    )


def checkpoint_option() -> Any:
    return option(
        None, "a checkpoint, its run folder, an exported model or a folder of diffusers; default: the newest run"
    )


@dataclass
class Sampling:
    """sampling"""

    checkpoint: str | None = checkpoint_option()
    num_samples: int | None = option(None, f"samples to generate; {by_kind(NUM_SAMPLES['inference'])}", low=1)
    sampler: str | None = sampler_option()
    sampling_steps: int | None = steps_option()
    spacing: str | None = option(
        None,
        f"timestep spacing: the sampling steps are even in this; {meanings(SPACINGS)}; default: the sampler's own",
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
    """The arguments of a `SamplingOptions`: the options of Sampling but the checkpoint and the number of samples."""
    names = [f.name for f in fields(Sampling) if f.name not in ("checkpoint", "num_samples")]
    return {name: getattr(o, name) for name in names}


def data_option() -> Any:
    return option("moons", "images to compare with, for a folder of diffusers, which names none; a run knows its own")


def check_source(o: "Evaluate") -> None:
    """Raises ValueError where samples= names a folder, or stands beside options of a checkpoint."""
    if not o.samples:
        return
    if Path(o.samples).is_dir():
        raise ValueError(f"samples={o.samples} is a folder: name a file, or evaluate a run by checkpoint={o.samples}")
    defaults = Sampling()
    names = ["checkpoint", *sampling_options(defaults)]
    ignored = [name for name in names if getattr(o, name) != getattr(defaults, name)]
    if ignored:
        raise ValueError(
            f"samples={o.samples} is evaluated as it is, without a checkpoint: leave out {' and '.join(ignored)},"
            " or samples"
        )


@dataclass
class Labels:
    """sampling"""

    labels: Any = option(
        None,
        "labels to generate, such as [0,1,2], in turn; all: each equally often; default: as often as in the data",
    )


# ---------------------------------------------------------------- train.py


@dataclass
class Data:
    """data"""

    dataset: Any = option("moons", "data set to learn")
    num_samples: int | None = option(
        200_000,
        "points or images to learn from, at most; null: all there are",
        low=2,
    )


@dataclass
class Network:
    """network"""

    model: Any = option("mlp", "network that learns")


@dataclass
class Training:
    """training"""

    num_epochs: int | None = option(None, f"passes over the data; {default_length()}", low=1)
    max_steps: int | None = option(
        None,
        "optimizer steps, which replace num_epochs; default: by num_epochs",
        low=1,
    )
    batch_size: int = option(2048, "points or images per optimizer step", low=1)
    batches: str = option(
        "even",
        "how rows, steps t and noise of a batch are drawn; even: so that they cover their"
        " distributions evenly, which halves the length of a training; shuffled: the rows in random"
        " order, the noise independently",
        choices=("even", "shuffled"),
    )
    shards: int | None = option(
        None,
        "equal parts of a batch; their gradients are computed one after the other and added in a"
        " fixed order, which needs less memory and gives the same bits in any number of processes"
        " that divides the number of parts; default: the number of processes that torchrun starts",
        low=1,
    )
    lr: float = option(
        0.02,
        "peak learning rate; a linear warm-up precedes it, a cosine decay to 0 follows",
        above=0,
    )
    warmup_steps: int = option(30, "optimizer steps of warm-up", low=0)
    optimizer: str = option(
        "muon",
        f"optimizer of the weights; {meanings(OPTIMIZERS)}",
        choices=OPTIMIZERS,
    )
    weight_decay: float = option(0.01, "weight decay of AdamW", low=0)
    ema_decay: float | None = option(
        None,
        "decay of the moving average of the weights, which is used for sampling; default: an"
        " average over the last tenth of the training",
        low=0,
        below=1,
    )
    early_ema: float | None = option(
        None,
        "fraction of the training after which a copy of the averaged weights is kept for"
        " autoguidance, such as 0.1; default: no copy",
        above=0,
        below=1,
    )
    loss_weight: str | None = option(
        None,
        f"weight of each step t in the loss; {meanings(LOSS_WEIGHTS)}; default: target for images"
        " and for a process that ends in pure noise (schedule=flow, zero_snr=true), where the"
        " error of eps is undefined, otherwise eps",
        choices=LOSS_WEIGHTS,
    )
    references: int | None = option(
        None,
        "rows of a batch that serve as references for the stable target; the network then learns"
        " the expected noise, given x_t, over these rows, which has less variance than the noise"
        " drawn; 0: it learns the noise drawn; default: 512, but 0 for images and for fewer than"
        " 10,240 points, which it would learn by heart",
        low=0,
    )
    t_power: float = option(
        1.6,
        "exponent of the random steps t = T u^t_power, with u ~ Uniform(0, 1); above 1, small t"
        " are drawn more often, and weights in the loss compensate for it",
        low=0.1,
        high=10,
    )
    conditional: bool = option(
        False,
        "learn the labels too, so that samples can be requested by label",
    )
    label_dropout: float = option(
        0.1,
        "fraction of the labels that is dropped, as guidance requires",
        low=0,
        below=1,
    )


@dataclass
class Evaluation:
    """evaluation"""

    eval_samples: int = option(
        NUM_SAMPLES["evaluate"]["points"],
        "samples to evaluate at the end of the training; 0: no evaluation",
        low=0,
    )


@dataclass
class Run:
    """run folder"""

    task_name: str | None = option(
        None,
        "run folder, such as runs/first; default: a new one, named after the time",
    )
    ckpt_save_name: str = option(
        "last.pt",
        "name of the checkpoint in the run folder, ending in .pt or .pth",
    )
    checkpoint_every: int = option(1000, "optimizer steps between two checkpoints", low=1)
    resume: str | None = option(
        None,
        "run folder or checkpoint of a training to resume, or latest; the training keeps its"
        " options, and only its length may grow",
    )
    like: str | None = option(
        None,
        "run folder or checkpoint of a run whose options a new training takes as its defaults, or latest; it takes what"
        " that run learnt, with its seed, and not where it ran: run folder, recording, pictures, machine",
    )


# ---------------------------------------------------------------- the commands: fields of the last base come first


@dataclass
class Train(Included, Machine, Pictures, Watching, Run, Evaluation, Training, Process, Network, Data):
    """Train a denoising network, then sample with it and evaluate the samples."""


@dataclass
class Inference(Included, Machine, Pictures, Recording, FlowLines, GuidanceSheet, Observed, Labels, Sampling):
    """Sample from a checkpoint and show the learned reverse process."""

    dataset: Any = data_option()
    viz_steps: int = option(100, "states recorded, at most: even in log-SNR, with the first and the last", low=2)
    animation: str | None = option(
        None,
        "also save the process as a short film; mp4 needs ffmpeg; default: none for points, gif for images, of flow"
        " lines mp4 where there is ffmpeg, else gif",
        choices=("none", "gif", "mp4"),
    )


@dataclass
class Main(Included, Seeded, Pictures, Recording, Process, Data):
    """Show the forward process: how clean points or images turn into noise.

    The flag --train-ddpm-model trains a network instead, as `python train.py dataset=mnist
    model=unet` does.
    """

    dataset: Any = option("moons", "data set to which noise is added")
    num_samples: int | None = option(
        500,
        "points or images to show; at most 64 images are shown",
        low=1,
    )
    num_timesteps: int = option(100, "T, the number of forward steps", low=2, high=100_000)
    save_plots: bool = option(
        False,
        "also save pictures of the process, of its schedule, and of its statistics beside theory",
    )
    compare_schedules: bool = option(False, "also save one picture that compares the schedules")


@dataclass
class Evaluate(Included, Machine, Pictures, Sampling):
    """Evaluate the samples of a checkpoint or of a file: every metric stands beside its floor."""

    samples: str | None = option(
        None,
        "file of samples to evaluate instead of a checkpoint; a .npy file or a table of numbers, in data units",
    )
    dataset: Any = option(
        "moons",
        "data set with which samples=FILE is compared, or the images of a folder of diffusers, which names none; a"
        " run knows its own",
    )
    num_samples: int | None = option(
        None,
        f"samples to evaluate; {by_kind(NUM_SAMPLES['evaluate'])}",
        low=100,
    )
    sampler: str | None = sampler_option()
    sampling_steps: int | None = steps_option()


@dataclass
class Compare(Included, Machine, Pictures, Viewing):
    """Compare samplers at equal numbers of network evaluations, from the same noise: distances, pictures, paths."""

    checkpoint: str | None = checkpoint_option()
    dataset: Any = data_option()
    samplers: list[str] | None = option(
        None,
        "which, such as [ddim,unipc], of those that inference.py --help explains; default: all",
        choices=SAMPLERS,
        aliases=SAMPLER_ALIASES,
    )
    evaluations: list[int] = option([5, 10, 20], "how often each of them may run the network, at most", low=1)
    num_samples: int | None = option(
        None,
        f"samples by each; {by_kind(NUM_SAMPLES['compare'])}",
        low=100,
    )


COMMANDS = {"train": Train, "inference": Inference, "evaluate": Evaluate, "compare": Compare, "main": Main}
