"""Every option of every command, once: its default, what it means and what it may be.

The dataclasses are registered in Hydra's ConfigStore, so `python train.py lr=1e-3` checks names and types;
ranges and choices stand in the fields' metadata and are checked by `plain`. `--help` (store.py) is made from the
same fields.
"""

import math
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its help, its range (`low` and `high` belong to it) or its choices."""
    metadata = {"help": help, "low": low, "high": high, "above": above, "below": below, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


# ---------------------------------------------------------------- what several commands share


@dataclass
class Seeded:
    seed: int = option(0, "same seed, same machine: same result to the last bit", low=0)


@dataclass
class Machine(Seeded):
    device: str = option("auto", "auto takes a GPU where there is one; or cpu, cuda, cuda:1, mps ...")
    threads: int | None = option(
        None, "CPU threads; default: 1 for points (a second one rarely helps a small network)", low=1
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
    sampler: str = option(
        "ddpm", "ddpm takes all T steps; ddim and dpm (DPM-Solver++) far fewer", choices=("ddpm", "ddim", "dpm")
    )
    sampling_steps: int | None = option(None, "network evaluations; default: T for ddpm, 50 for ddim and dpm", low=2)
    eta: float = option(0.0, "fresh noise in ddim: 0 none, 1 as much as ddpm", low=0, high=1)


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


# ---------------------------------------------------------------- groups: dataset=..., model=...


def noise(default: float) -> Any:
    return option(default, "standard deviation of the Gaussian noise around it", low=0)


@dataclass
class Moons:
    name: str = option("moons", "two interleaved half circles", choices=("moons",))
    noise: float = noise(0.05)


@dataclass
class Circles:
    name: str = option("circles", "a circle inside another", choices=("circles",))
    noise: float = noise(0.05)
    factor: float = option(0.5, "radius of the inner circle; the outer one has 1", above=0, below=1)


@dataclass
class Gaussians:
    name: str = option("gaussians", "equal Gaussians on a circle of radius 1", choices=("gaussians",))
    noise: float = noise(0.1)
    modes: int = option(8, "how many", low=1)


@dataclass
class SwissRoll:
    name: str = option("swiss_roll", "a rolled-up line", choices=("swiss_roll",))
    noise: float = noise(0.03)


@dataclass
class Spirals:
    name: str = option("spirals", "arms winding outwards", choices=("spirals",))
    noise: float = noise(0.03)
    arms: int = option(2, "how many", low=1)


@dataclass
class Helix:
    name: str = option("helix", "a screw line in three dimensions", choices=("helix",))
    noise: float = noise(0.05)


@dataclass
class File:
    name: str = option("file", "your own points; their law is unknown", choices=("file",))
    path: str | None = option(None, "an .npy file or a table of numbers, one point a row")


@dataclass
class MLP:
    name: str = option("mlp", "residual multilayer perceptron", choices=("mlp",))
    hidden: int = option(112, "width", low=1)
    layers: int = option(3, "residual layers", low=1)
    frequencies: int = option(3, "the input also holds sin and cos of x times 1, 2, 4 ...: how many of them", low=0)
    prediction: str = option("v", "what the network's output means", choices=("eps", "v"))


@dataclass
class Linear:
    name: str = option("linear", "one linear map per time step: the best linear denoiser", choices=("linear",))
    prediction: str = option("v", "what the network's output means", choices=("eps", "v"))


DATASETS = (Moons, Circles, Gaussians, SwissRoll, Spirals, Helix, File)
MODELS = (MLP, Linear)
GROUPS = {
    group: {fields(m)[0].default: m for m in members}
    for group, members in {"dataset": DATASETS, "model": MODELS}.items()
}


# ---------------------------------------------------------------- the commands


@dataclass
class Train(Machine, Process):
    dataset: Any = option("moons", "what to learn")
    model: Any = option("mlp", "the network")
    num_samples: int = option(20000, "training points", low=2)
    num_epochs: int = option(220, "passes over the training points", low=1)
    max_steps: int | None = option(None, "stop after so many optimizer steps instead of num_epochs", low=1)
    batch_size: int = option(1024, "points per optimizer step", low=1)
    lr: float = option(4e-3, "peak learning rate: reached by a linear warm-up, left by a cosine to 0", above=0)
    warmup_steps: int = option(100, "optimizer steps of warm-up", low=0)
    weight_decay: float = option(0.01, "AdamW's weight decay", low=0)
    ema_decay: float = option(0.999, "decay of the averaged weights that samples are made with", low=0, below=1)
    judge_samples: int = option(10000, "samples drawn and judged at the end; 0: no judgement", low=0)
    checkpoint_every: int = option(1000, "optimizer steps between checkpoints", low=1)
    task_name: str | None = option(None, "run folder, such as runs/first; default: a new stamped one")
    record: bool = option(False, "record how samples of the same noise emerge as training goes on: training.rrd")
    viewer: str | None = option(
        None,
        "watch that recording while it grows, in a window or a web page on this machine; implies record",
        choices=("auto", "window", "web", "file"),
    )
    resume: str | None = option(None, "a checkpoint or run folder to go on from, with the same options")


@dataclass
class Inference(Machine, Sampling, Recording):
    checkpoint: str | None = option(None, "a checkpoint or its run folder; default: the newest readable one")
    num_samples: int = option(2000, "points to generate", low=1)
    viz_steps: int = option(100, "states recorded, evenly chosen, always with the first and the last", low=2)


@dataclass
class Main(Seeded, Process, Recording):
    dataset: Any = option("moons", "what to add noise to")
    num_samples: int = option(500, "points", low=1)
    num_timesteps: int = option(100, "T, the number of noising steps", low=2)
    save_plots: bool = option(False, "also write stills: the process, its schedule, its statistics against theory")
    compare_schedules: bool = option(False, "also write one sheet that compares the schedules")


@dataclass
class Evaluate(Machine, Sampling):
    dataset: Any = option("moons", "what samples=FILE is held against; a checkpoint knows its own")
    checkpoint: str | None = option(None, "a checkpoint or its run folder; default: the newest readable one")
    samples: str | None = option(None, "judge these points instead (.npy or a table of numbers, data units)")
    num_samples: int = option(10000, "samples to draw and judge", low=100)
    sampler: str = option(
        "dpm", "ddpm takes all T steps; ddim and dpm (DPM-Solver++) far fewer", choices=("ddpm", "ddim", "dpm")
    )


COMMANDS = {
    "train": (Train, "Train an epsilon-network, then sample with it."),
    "inference": (Inference, "Replay the learned reverse process of a checkpoint."),
    "evaluate": (Evaluate, "Say how good a checkpoint, or a file of samples, is: every figure beside its floor."),
    "main": (Main, "Show the forward process: clean points turn into noise."),
}


# ---------------------------------------------------------------- from Hydra to plain dictionaries


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The composed configuration as a plain dictionary of exactly the declared options.

    Raises:
        ValueError: an option is out of its range or not among its choices; the sentence names both.
    """
    options = OmegaConf.to_object(cfg)
    _check(options)
    return asdict(options)


def _check(options: Any, prefix: str = "") -> None:
    for f in fields(options):
        value, name = getattr(options, f.name), prefix + f.name
        if is_dataclass(value):
            _check(value, f"{name}.")
        elif value is not None and not _allows(f.metadata, value):
            raise ValueError(f"{name} must be {allowed(f.metadata)}; got {value!r}")


def _allows(limits: Any, value: Any) -> bool:
    if limits["choices"]:
        return value in limits["choices"]
    if not isinstance(value, int | float):
        return True
    return math.isfinite(value) and (
        (limits["low"] is None or value >= limits["low"])
        and (limits["high"] is None or value <= limits["high"])
        and (limits["above"] is None or value > limits["above"])
        and (limits["below"] is None or value < limits["below"])
    )


def allowed(limits: Any) -> str:
    """What a value may be, in words: 'at least 1', 'above 0 and below 1', 'one of auto, file'; '' for anything."""
    if limits["choices"]:
        return "one of " + ", ".join(limits["choices"])
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    return " and ".join(f"{word} {limits[key]:g}" for key, word in words.items() if limits[key] is not None)
