"""Every option of every command, once: its default, what it means and what it may be.

The dataclasses are registered in Hydra's ConfigStore, so `python train.py lr=1e-3` checks names and types;
ranges and choices stand in the fields' metadata and are checked by option.plain. `--help` (store.py) is made from the
same fields. The choices of dataset= and model= are in groups.py.
"""

from dataclasses import dataclass
from typing import Any

from conf.option import option

# ---------------------------------------------------------------- what several commands share


@dataclass
class Seeded:
    seed: int = option(0, "same seed, same machine: same result to the last bit", low=0)


@dataclass
class Machine(Seeded):
    device: str = option("auto", "auto takes a GPU where there is one; or cpu, cuda, cuda:1, mps ...")
    threads: int | None = option(
        None, "CPU threads; default: 1 for points (a second one rarely helps a small network), all for images", low=1
    )
    precision: str = option(
        "auto",
        "numbers inside the network; auto: bf16 for images on a GPU that has it, else fp32",
        choices=("auto", "fp32", "bf16"),
    )


@dataclass
class Process:
    schedule: str = option("linear", "how alpha-bar falls", choices=("linear", "cosine", "sigmoid"))
    num_timesteps: int = option(1000, "T, the number of noising steps", low=2)
    beta_start: float | None = option(None, "variance of the first step's noise; default 0.1 / T", above=0, below=1)
    beta_end: float | None = option(
        None, "variance of the last step's noise; default 20 / T, which leaves no signal", above=0, below=1
    )


@dataclass
class Sampling:
    sampler: str | None = option(
        None,
        "ddpm takes all T steps; ddim and dpm (DPM-Solver++) far fewer; default: ddpm for points, ddim for images",
        choices=("ddpm", "ddim", "dpm"),
    )
    sampling_steps: int | None = option(
        None, "network evaluations; default: T for ddpm, 50 for ddim and dpm, 25 for images", low=2
    )
    eta: float = option(0.0, "fresh noise in ddim: 0 none, 1 as much as ddpm", low=0, high=1)
    guidance: float | None = option(
        None,
        "w in eps = (1 + w) eps_cond - w eps_uncond; 0: off; default: 0 for points, 0.35 for images with labels",
        low=0,
    )


@dataclass
class Recording:
    rerun: bool = option(True, "make a rerun recording (--no-rerun: none)")
    viewer: str = option(
        "auto",
        "where it goes: a window, a web page on this machine, a file; auto: a window where there is a display",
        choices=("auto", "window", "web", "file"),
    )
    viz_steps: int = option(50, "states recorded, evenly chosen, always with the first and the last", low=2)
    track_samples: list[int] | None = option(None, "rows drawn in cyan with their paths; default: the first six")
    port: int | None = option(None, "port of viewer=web; default: a free one", low=1, high=65535)
    animation: str = option(
        "none", "also write the process as a short film; mp4 needs ffmpeg", choices=("none", "gif", "mp4")
    )
    save_trajectory: bool = option(
        False, "also write trajectory.npz, the states recorded, for `python scripts/animate.py trajectory.npz`"
    )


# ---------------------------------------------------------------- the commands


@dataclass
class Train(Machine, Process):
    dataset: Any = option("moons", "what to learn")
    model: Any = option("mlp", "the network")
    num_samples: int | None = option(20000, "points or images to learn from, at most; null: all there are", low=2)
    num_epochs: int = option(220, "passes over them", low=1)
    max_steps: int | None = option(None, "stop after so many optimizer steps instead of num_epochs", low=1)
    batch_size: int = option(1024, "points or images per optimizer step", low=1)
    conditional: bool = option(False, "learn the labels as well, so that samples can be asked for by label")
    label_dropout: float = option(0.1, "how often a label is withheld in training; guidance needs it", low=0, below=1)
    loss_weight: str = option(
        "eps", "whose error counts evenly over the steps: that of eps or v; or min_snr", choices=("eps", "v", "min_snr")
    )
    lr: float = option(4e-3, "peak learning rate: reached by a linear warm-up, left by a cosine to 0", above=0)
    warmup_steps: int = option(100, "optimizer steps of warm-up", low=0)
    weight_decay: float = option(0.01, "AdamW's weight decay", low=0)
    ema_decay: float = option(0.999, "decay of the averaged weights that samples are made with", low=0, below=1)
    eval_samples: int = option(10000, "samples drawn and judged at the end; 0: no judgement", low=0)
    checkpoint_every: int = option(1000, "optimizer steps between checkpoints", low=1)
    ckpt_save_name: str = option("last.pt", "name of the checkpoint in the run folder, ending in .pt or .pth")
    task_name: str | None = option(None, "run folder, such as runs/first; default: a new stamped one")
    record: bool = option(False, "record how samples of the same noise emerge as training goes on: training.rrd")
    viewer: str | None = option(
        None,
        "watch that recording while it grows, in a window or a web page on this machine; implies record",
        choices=("auto", "window", "web", "file"),
    )
    viz_save: bool = option(False, "save grids of the denoising on the way, and progress.gif of them, in viz/")
    viz_live: bool = option(False, "show these grids in a window while training; needs a display")
    viz_interval: int = option(500, "optimizer steps between grids", low=1)
    viz_num: int = option(8, "images in a grid", low=1)
    viz_t: int = option(-1, "the step t from which a grid denoises; -1: the last, pure noise", low=-1)
    resume: str | None = option(None, "a checkpoint or run folder to go on from, with the same options")


@dataclass
class Inference(Machine, Sampling, Recording):
    checkpoint: str | None = option(None, "a checkpoint or its run folder; default: the newest readable one")
    num_samples: int | None = option(None, "how many to generate; default: 2000 points, 100 images", low=1)
    labels: Any = option(None, "what to generate: [0,1,2], or all in turn (the default of a conditional model)")
    viz_steps: int = option(100, "states recorded, evenly chosen, always with the first and the last", low=2)
    animation: str | None = option(
        None,
        "also write the process as a short film; mp4 needs ffmpeg; default: none for points, gif for images",
        choices=("none", "gif", "mp4"),
    )


@dataclass
class Main(Seeded, Process, Recording):
    dataset: Any = option("moons", "what to add noise to")
    num_samples: int = option(500, "points; of images at most 64 are shown", low=1)
    num_timesteps: int = option(100, "T, the number of noising steps", low=2)
    save_plots: bool = option(False, "also write stills: the process, its schedule, its statistics against theory")
    compare_schedules: bool = option(False, "also write one sheet that compares the schedules")


@dataclass
class Evaluate(Machine, Sampling):
    dataset: Any = option("moons", "what samples=FILE is held against; a checkpoint knows its own")
    checkpoint: str | None = option(None, "a checkpoint or its run folder; default: the newest readable one")
    samples: str | None = option(None, "judge these points instead (.npy or a table of numbers, data units)")
    num_samples: int | None = option(None, "samples to draw and judge; default: 10000 points, 2000 images", low=100)
    sampler: str | None = option(
        None,
        "ddpm takes all T steps; ddim and dpm (DPM-Solver++) far fewer; default: dpm for points, ddim for images",
        choices=("ddpm", "ddim", "dpm"),
    )


COMMANDS = {
    "train": (Train, "Train an epsilon-network, then sample with it."),
    "inference": (Inference, "Replay the learned reverse process of a checkpoint."),
    "evaluate": (Evaluate, "Say how good a checkpoint, or a file of samples, is: every figure beside its floor."),
    "main": (Main, "Show the forward process: clean points turn into noise."),
}
