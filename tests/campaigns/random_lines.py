"""The command lines that fuzz.py tries: right ones of all commands, and the same with mistakes."""

import random
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch

from conf.choices import MASKS
from conf.config import COMMANDS
from conf.groups import GROUPS
from registry.posterior_rows import METHODS
from registry.process_rows import LOSS_WEIGHTS, SCHEDULE_ALIASES, SCHEDULES
from registry.sampler_rows import SAMPLER_ALIASES, SAMPLERS, SPACINGS, VARIANCES
from runtime.device import has_bf16

# Shares of the commands. The last ones take longest.
SHARES = {"train": 0.4, "inference": 0.3, "main": 0.24, "evaluate": 0.04, "compare": 0.02}
# Shares of the lines of inference.py.
OBSERVING = 0.12
FLOW_LINES = 0.04
RIGHT = 0.6  # share of the lines without a mistake

# Ranges (lowest, highest) of the options that decide how long a line takes, and of those that have
# no limits of their own.
RANGES: dict[str, tuple[float, float]] = {
    "num_samples": (2, 200),
    "num_timesteps": (2, 40),
    "max_steps": (1, 3),
    "batch_size": (1, 64),
    "hidden": (1, 16),
    "layers": (1, 3),
    "frequencies": (0, 4),
    "viz_steps": (2, 6),
    "viz_num": (1, 6),
    "viz_interval": (1, 3),
    "checkpoint_every": (1, 3),
    "warmup_steps": (0, 5),
    "num_epochs": (1, 3),
    "modes": (1, 9),
    "arms": (1, 4),
    "noise": (0, 0.3),
    "lr": (1e-6, 1e-2),
    "weight_decay": (0, 0.2),
    "seed": (0, 10**9),
    "threads": (1, 2),
    "factor": (0.05, 0.95),
    "ema_decay": (0, 0.999),
    "label_dropout": (0, 0.9),
    "side": (1, 5),
    "references": (0, 100),
    "t_power": (0.1, 5),
    "early_ema": (0.01, 0.99),
    "observe_noise": (0.01, 1),
    "observe_image": (0, 20),
}
# Options that depend on others, so that `some_options` leaves them out.
DEPENDENT = {
    *("dataset", "model", "checkpoint", "resume", "task_name", "ckpt_save_name", "device"),
    *("precision", "samples", "viewer", "logger", "viz_live", "viz_t", "viz_save"),
    *("labels", "track_samples", "eval_samples", "animation", "max_steps", "sampling_steps"),
    *("num_samples", "threads", "conditional", "guidance", "eta", "sampler", "beta_start"),
    *("beta_end", "schedule", "num_timesteps", "loss_weight", "guidance_sheet", "observe_method"),
    *("observe_noise", "observe_image", "variance", "spacing", "samplers", "zero_snr", "flow"),
}
PRECISIONS = ["fp32", "bf16"] if has_bf16(torch.device("cpu")) else ["fp32"]

FILES = ("points.npy", "points.csv", "labelled.csv", "wide.npy", "far.npy")
CURVES = (*("moons", "circles", "gaussians", "swiss_roll", "spirals", "helix", "grid", "pinwheel"),)
SHEETS = ("s_curve", "swiss_roll_3d", "checkerboard")  # slow to evaluate with little noise
# Sets without labels, or with labels in some files only.
UNLABELLED = {"file", "swiss_roll", "helix", *SHEETS, "text", "picture"}
FOR_POINTS_ONLY = "save_trajectory=true"
TINY_UNET = ["dataset=digits", "model=unet_small", "model.channels=[8,8]", "model.heads=2"]

JUNK = [
    *("", "null", "nan", "-1", "1e400", "0", "99999999999999999999", "[1,2", "{a:b}", "é", "'"),
    *('"', "a b", "${x}", "true", "[]", "../..", "/dev/null", "/", "1e-320", "\t", "=", "none"),
    *("[a,b]", "0x10", "1_000"),
]


class Line(NamedTuple):
    words: list[str]
    right: bool


# ---------------------------------------------------------------- parts of lines


def random_value(f: Any, r: random.Random) -> str:
    """A value that an option may have."""
    if f.metadata["choices"]:
        return r.choice([*f.metadata["choices"], *f.metadata["aliases"]])
    if f.type is bool:
        return r.choice(["true", "false"])
    low, high = RANGES[f.name]
    if "int" in str(f.type):
        return str(r.randint(int(low), int(high)))
    return f"{r.uniform(low, high):.6g}"


def some_options(
    options: type,
    r: random.Random,
    prefix: str = "",
    share: float = 0.25,
) -> list[str]:
    """Random values for some of the options that depend on no others."""
    chosen = []
    for f in fields(options):
        known = f.name in RANGES or f.metadata["choices"] or f.type is bool
        independent = prefix or f.name not in DEPENDENT
        if known and independent and f.name != "name" and r.random() < share:
            chosen.append(f)

    words = []
    for f in chosen:
        if prefix != "model." or f.name != "conditioning":
            words.append(f"{prefix}{f.name}={random_value(f, r)}")
    return words


def process_options(r: random.Random) -> list[str]:
    """Options of a forward process."""
    schedule = r.choice([*SCHEDULES, *SCHEDULE_ALIASES])
    words = [f"schedule={schedule}", f"num_timesteps={r.randint(2, 40)}"]
    if r.random() < 0.3:
        words.append(f"zero_snr={r.choice(['true', 'false'])}")
    beta_end = f"beta_end={r.uniform(0.01, 0.3):.4g}"
    if schedule in ("linear", "scaled_linear", "quadratic") and r.random() < 0.3:
        words += ["beta_start=0.001", beta_end]
    return words


def without_impossible(words: Sequence[str]) -> list[str]:
    """The words without model.prediction=eps where the last step is pure noise."""
    if "schedule=flow" not in words and "zero_snr=true" not in words:
        return list(words)
    return [word for word in words if word != "model.prediction=eps"]


def point_set(r: random.Random, folder: Path) -> tuple[str, list[str]]:
    """The name of a set of points and its options."""
    kinds = [*CURVES, *CURVES, *SHEETS, "file", "file", "file", "text", "picture"]
    name = r.choice(kinds)
    if name == "file":
        file = r.choice(FILES)
        words = [f"dataset.path={folder / file}"]
        if file == "labelled.csv":
            words.append("dataset.label=kind")
        return name, words
    if name in SHEETS:
        return name, [f"dataset.noise={r.uniform(0.1, 0.3):.3f}"]

    words = some_options(GROUPS["dataset"][name], r, "dataset.", 0.5)
    text = r.choice(["a", "HI", "Ab c", "42", "?!"])
    if name == "text":
        words.append(f"dataset.text={text}")
    if name == "picture":
        words.append(f"dataset.path={folder / 'ring.png'}")
    dimensions = r.randint(3, 6)
    if r.random() < 0.1:
        words.append(f"dataset.embed={dimensions}")
    return name, words


def can_be_recorded(own: Sequence[str]) -> bool:
    """Whether points with these options have 2 or 3 coordinates."""
    return not any("wide" in word or "embed" in word for word in own)


def has_labels(name: str, own: Sequence[str]) -> bool:
    """Whether a set of points with these options has more than one label."""
    if "dataset.label=kind" in own:
        return True
    single = {"dataset.modes=1", "dataset.arms=1", "dataset.side=1"}
    return name not in UNLABELLED and single.isdisjoint(own)


def sampling_options(kind: str, r: random.Random) -> list[str]:
    """Sampler, spacing, variance and guidance for one of the trained models.

    The models have T = 20 steps and early snapshots.
    """
    sampler = r.choice([*SAMPLERS, *SAMPLER_ALIASES])
    weight = f"{r.uniform(0.1, 3):.3f}"
    words = [f"sampler={sampler}"]
    if r.random() < 0.5:
        words.append(f"sampling_steps={r.randint(3, 20)}")
    if r.random() < 0.4:
        words.append(f"spacing={r.choice([*SPACINGS])}")
    if sampler == "ddim" and r.random() < 0.5:
        words.append(f"eta={r.random():.3f}")
    if sampler == "ddpm" and r.random() < 0.6:
        known = [name for name in VARIANCES if kind != "images" or name != "exact"]
        words.append(f"variance={r.choice(known)}")

    if r.random() < 0.4:
        autoguidance = kind == "points" or r.random() < 0.5
        words.append(f"autoguidance={weight}" if autoguidance else f"guidance={weight}")
        if r.random() < 0.5:
            low = f"{r.uniform(0, 0.5):.2f}"
            high = f"{r.uniform(0.6, 9):.2f}"
            words.append(f"guidance_interval=[{low},{high}]")
    elif kind != "points":
        words += r.choice([[], ["guidance=0"], ["guidance=-1"]])
    return words


# ---------------------------------------------------------------- right lines of each command


def train_line(r: random.Random, folder: Path) -> list[str]:
    images = r.random() < 0.15
    name = "digits"
    own: list[str] = []
    if not images:
        name, own = point_set(r, folder)
    model = r.choice(["mlp", "mlp", "linear"])
    if images:
        words = [*TINY_UNET, "model.blocks=1"]
    else:
        words = [f"dataset={name}", f"model={model}", *own]
        words += some_options(GROUPS["model"][model], r, "model.")

    words += ["eval_samples=0", f"max_steps={r.randint(1, 3)}", f"num_samples={r.randint(10, 200)}"]
    words += process_options(r)
    if images or has_labels(name, own):
        words.append(f"conditional={r.choice(['true', 'false'])}")
    if r.random() < 0.3:
        words.append(f"loss_weight={r.choice([*LOSS_WEIGHTS])}")
    if images and r.random() < 0.3:
        words += ["viz_save=true", f"viz_num={r.randint(1, 4)}"]
    recorded = can_be_recorded(own) and not images
    for word in some_options(COMMANDS["train"], r):
        if recorded or word != "record=true":
            words.append(word)
    return without_impossible(words)


def inference_line(r: random.Random, folder: Path) -> list[str]:
    kind = r.choice(["points", "labels", "images"])
    if r.random() < OBSERVING:
        return observing_line(kind, r, folder)
    if kind != "images" and r.random() < FLOW_LINES:
        return flow_line(kind, r, folder)

    words = [f"checkpoint={folder / kind}", f"num_samples={r.randint(1, 60)}"]
    words += sampling_options(kind, r)
    if kind != "points" and r.random() < 0.5:
        words.append(r.choice(["labels=all", "labels=[0,1]", "labels=1"]))
    if r.random() < 0.2:
        words.append(f"animation={r.choice(['none', 'gif'])}")
    for word in some_options(COMMANDS["inference"], r):
        if kind != "images" or word != FOR_POINTS_ONLY:
            words.append(word)
    return words


def observing_line(kind: str, r: random.Random, folder: Path) -> list[str]:
    """Samples given an observation, or the sheet of guidance."""
    words = [f"checkpoint={folder / kind}", f"seed={r.randint(0, 99)}"]
    count = r.randint(10, 40)
    if kind != "images":  # there are ten samples of each image
        words.append(f"num_samples={count}")
    if kind == "labels" and r.random() < 0.5:
        words.append("guidance_sheet=true")
        if r.random() < 0.5:
            words.append("guidance_interval=[0.1,5]")
        return words

    y = f"{r.uniform(-0.2, 0.6):.2f}"
    if kind == "images":
        line = r.choice([f"mask:{name}" for name in MASKS])
        method = r.choice(["dps", "pigdm", "repaint"])
    else:
        line = r.choice([f"y={y}", f"x={y}", f"2x-y={y}"])
        method = r.choice([*METHODS])
    words += [
        f"observe={line}",
        f"observe_noise={r.uniform(0.01, 1):.3f}",
        f"observe_method={method}",
    ]
    if kind == "images":
        words.append(f"observe_image={r.randint(0, 20)}")
    return words


def flow_line(kind: str, r: random.Random, folder: Path) -> list[str]:
    """Flow lines, which samplers with fresh noise do not have."""
    words = [f"checkpoint={folder / kind}", "flow=true", f"num_samples={r.randint(2, 40)}"]
    noiseless = [name for name, row in SAMPLERS.items() if not row.noisy]
    words += ["sampling_steps=10", f"sampler={r.choice(noiseless)}"]
    words.append(f"animation={r.choice(['none', 'gif'])}")
    return words


def evaluate_line(r: random.Random, folder: Path) -> list[str]:
    if r.random() < 0.3:
        name = r.choice(["moons", "circles", "spirals", "text"])
        words = [f"samples={folder / 'points.npy'}", f"dataset={name}"]
        return [*words, f"num_samples={r.randint(100, 120)}"]
    kind = r.choice(["points", "labels"])
    words = [f"checkpoint={folder / kind}", f"num_samples={r.randint(100, 120)}"]
    return words + sampling_options(kind, r)


def compare_line(r: random.Random, folder: Path) -> list[str]:
    names = ",".join(r.sample([*SAMPLERS, *SAMPLER_ALIASES], 2))
    kind = r.choice(["points", "labels"])
    words = [f"checkpoint={folder / kind}", f"samplers=[{names}]"]
    words += [f"evaluations=[{r.randint(1, 20)}]", f"num_samples={r.randint(100, 120)}"]
    return words + some_options(COMMANDS["compare"], r)


def main_line(r: random.Random, folder: Path) -> list[str]:
    name = "digits"
    own: list[str] = []
    if r.random() < 0.85:
        name, own = point_set(r, folder)
    words = [f"dataset={name}", *own, f"num_samples={r.randint(10, 200)}", *process_options(r)]
    for word in some_options(COMMANDS["main"], r):
        if name != "digits" or word != FOR_POINTS_ONLY:
            words.append(word)
    if r.random() < 0.3 and name != "digits":
        words.append(f"track_samples=[{r.randint(0, 9)}]")
    if r.random() < 0.1:
        words.append("animation=gif")
    return words


LINES = {
    "train": train_line,
    "inference": inference_line,
    "main": main_line,
    "evaluate": evaluate_line,
    "compare": compare_line,
}

# ---------------------------------------------------------------- spellings and mistakes


def as_flags(words: Sequence[str], r: random.Random) -> list[str]:
    """The same options, some of them spelled as flags."""
    out = []
    for word in words:
        name, _, value = word.partition("=")
        flag = "--" + name.replace("_", "-")
        if r.random() < 0.6:
            out.append(word)
        else:
            out += r.choice([[flag, value], [f"{flag}={value}"]])
    return out


def with_mistakes(words: Sequence[str], r: random.Random) -> list[str]:
    """The same words with one to three mistakes."""
    words = list(words)
    options = [f.name for command in COMMANDS.values() for f in fields(command)]
    parts = []
    for group, members in GROUPS.items():
        for member in members.values():
            parts += [f"{group}.{f.name}" for f in fields(member)]

    for _ in range(r.randint(1, 3)):
        i = r.randrange(len(words))
        name, equals, old = words[i].partition("=")
        mistakes = [
            f"{name}={r.choice(JUNK)}",
            f"{name}{equals}{r.choice(JUNK)}{old}",
            name,
            f"--{name}",
            f"--no-{name}",
            f"{r.choice(options + parts)}={r.choice([*JUNK, old])}",
            f"{name[:-1]}={old}",
            f"~{name}",
            f"+{words[i]}",
            f"++{words[i]}",
            f"{name}.x={old}",
            r.choice(JUNK),
            f"{words[i]},{r.choice(JUNK)}",
            f"--{r.choice(options)}",
        ]
        words[i] = r.choice(mistakes)
    return words


def random_line(r: random.Random, folder: Path) -> Line:
    """A command line.

    folder: holds the files and the trained models that the line may name (see fuzz.prepare).
    """
    (name,) = r.choices(list(SHARES), list(SHARES.values()))
    words = LINES[name](r, folder)
    right = r.random() < RIGHT
    if name != "main" and r.random() < 0.2:
        words.append(f"precision={r.choice(PRECISIONS)}")
    if right:
        return Line([name, *as_flags(words, r)], right)
    words = as_flags(with_mistakes(words, r), r)
    # A mistake in task_name would write a run into another folder.
    return Line([name, *(word for word in words if "task_name" not in word)], right)
