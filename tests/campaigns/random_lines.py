"""The command lines that tests/campaigns/fuzz.py tries: right ones of all commands, and the same with mistakes."""

import random
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

SHARES = {"train": 0.4, "inference": 0.3, "main": 0.24, "evaluate": 0.04, "compare": 0.02}  # the last take longest
STEERED, FLOWING = 0.12, 0.04  # of the samplings
# of the options that decide how long a line takes, or that have no limits of their own: (least, most)
SMALL: dict[str, tuple[float, float]] = {
    "num_samples": (2, 200), "num_timesteps": (2, 40), "max_steps": (1, 3), "batch_size": (1, 64), "hidden": (1, 16),
    "layers": (1, 3), "frequencies": (0, 4), "viz_steps": (2, 6), "viz_num": (1, 6), "viz_interval": (1, 3),
    "checkpoint_every": (1, 3), "warmup_steps": (0, 5), "num_epochs": (1, 3), "modes": (1, 9), "arms": (1, 4),
    "noise": (0, 0.3), "lr": (1e-6, 1e-2), "weight_decay": (0, 0.2), "seed": (0, 10**9), "threads": (1, 2),
    "factor": (0.05, 0.95), "ema_decay": (0, 0.999), "label_dropout": (0, 0.9), "side": (1, 5), "references": (0, 100),
    "t_power": (0.1, 5), "early_ema": (0.01, 0.99), "observe_noise": (0.01, 1), "observe_image": (0, 20),
}  # fmt: skip
SEPARATE = {"dataset", "model", "checkpoint", "resume", "task_name", "ckpt_save_name", "device", "precision", "samples",
            "viewer", "logger", "viz_live", "viz_t", "viz_save", "labels", "track_samples",
            "eval_samples", "animation", "max_steps", "sampling_steps", "num_samples", "threads", "conditional",
            "guidance", "eta", "sampler", "beta_start", "beta_end", "schedule", "num_timesteps", "loss_weight",
            "guidance_sheet", "observe_method", "observe_noise", "observe_image", "variance", "spacing", "samplers",
            "zero_snr", "flow"}  # fmt: skip
PRECISIONS = ["fp32", "bf16"] if has_bf16(torch.device("cpu")) else ["fp32"]
FILES = ("points.npy", "points.csv", "labelled.csv", "wide.npy", "far.npy")
CURVES = ("moons", "circles", "gaussians", "swiss_roll", "spirals", "helix", "grid", "pinwheel")
SHEETS = ("s_curve", "swiss_roll_3d", "checkerboard")  # with little noise their exact density takes long
SINGLE = {"file", "swiss_roll", "helix", *SHEETS, "text", "picture"}  # no labels, or not in every file
NO_IMAGES = "save_trajectory=true"  # belongs to points
JUNK = ["", "null", "nan", "-1", "1e400", "0", "99999999999999999999", "[1,2", "{a:b}", "é", "'", '"', "a b", "${x}",
        "true", "[]", "../..", "/dev/null", "/", "1e-320", "\t", "=", "none", "[a,b]", "0x10", "1_000"]  # fmt: skip


class Line(NamedTuple):
    words: list[str]
    right: bool


def value(f: Any, r: random.Random) -> str:
    """A value that an option may have."""
    if f.metadata["choices"]:
        return r.choice([*f.metadata["choices"], *f.metadata["aliases"]])
    if f.type is bool:
        return r.choice(["true", "false"])
    low, high = SMALL[f.name]
    return str(r.randint(int(low), int(high))) if "int" in str(f.type) else f"{r.uniform(low, high):.6g}"


def some(options: type, r: random.Random, prefix: str = "", share: float = 0.25) -> list[str]:
    """Random values for some options that stand for themselves."""
    chosen = [f for f in fields(options) if f.name in SMALL or f.metadata["choices"] or f.type is bool]
    chosen = [f for f in chosen if (prefix or f.name not in SEPARATE) and f.name != "name" and r.random() < share]
    return [f"{prefix}{f.name}={value(f, r)}" for f in chosen if not (prefix == "model." and f.name == "conditioning")]


def process(r: random.Random) -> list[str]:
    schedule = r.choice([*SCHEDULES, *SCHEDULE_ALIASES])
    words = [f"schedule={schedule}", f"num_timesteps={r.randint(2, 40)}"]
    words += [f"zero_snr={r.choice(['true', 'false'])}"] if r.random() < 0.3 else []
    betas = ["beta_start=0.001", f"beta_end={r.uniform(0.01, 0.3):.4g}"]
    return words + betas * (schedule in ("linear", "scaled_linear", "quadratic") and r.random() < 0.3)


def possible(words: list[str]) -> list[str]:
    """The same without what pure noise at the last step forbids: a network that predicts eps."""
    return [w for w in words if w != "model.prediction=eps" or {"schedule=flow", "zero_snr=true"}.isdisjoint(words)]


def points_of(r: random.Random, folder: Path) -> tuple[str, list[str]]:
    """The name of a set of points and its options."""
    name = r.choice([*CURVES, *CURVES, *SHEETS, "file", "file", "file", "text", "picture"])
    if name == "file":
        file = r.choice(FILES)
        return name, [f"dataset.path={folder / file}", *["dataset.label=kind"] * (file == "labelled.csv")]
    if name in SHEETS:
        return name, [f"dataset.noise={r.uniform(0.1, 0.3):.3f}"]
    own = some(GROUPS["dataset"][name], r, "dataset.", 0.5)
    own += {"text": [f"dataset.text={r.choice(['a', 'HI', 'Ab c', '42', '?!'])}"],
            "picture": [f"dataset.path={folder / 'ring.png'}"]}.get(name, [])  # fmt: skip
    return name, own + [f"dataset.embed={r.randint(3, 6)}"] * (r.random() < 0.1)


def recordable(own: list[str]) -> bool:
    """Whether points with these options have 2 or 3 coordinates."""
    return not any("wide" in word or "embed" in word for word in own)


def labelled(name: str, own: list[str]) -> bool:
    single = name in SINGLE or not {"dataset.modes=1", "dataset.arms=1", "dataset.side=1"}.isdisjoint(own)
    return not single or "dataset.label=kind" in own


def of_train(r: random.Random, folder: Path) -> list[str]:
    images = r.random() < 0.15
    name, own = ("digits", []) if images else points_of(r, folder)
    model = r.choice(["mlp", "mlp", "linear"])
    words = [f"dataset={name}", f"model={model}", *own, *some(GROUPS["model"][model], r, "model.")] if not images else [
        "dataset=digits", "model=unet_small", "model.channels=[8,8]", "model.heads=2", "model.blocks=1"]  # fmt: skip
    words += ["eval_samples=0", f"max_steps={r.randint(1, 3)}", f"num_samples={r.randint(10, 200)}", *process(r)]
    if images or labelled(name, own):
        words.append(f"conditional={r.choice(['true', 'false'])}")
    words += [f"loss_weight={r.choice([*LOSS_WEIGHTS])}"] if r.random() < 0.3 else []
    words += ["viz_save=true", f"viz_num={r.randint(1, 4)}"] if images and r.random() < 0.3 else []
    words += [w for w in some(COMMANDS["train"], r) if (recordable(own) and not images) or w != "record=true"]
    return possible(words)


def of_inference(r: random.Random, folder: Path) -> list[str]:
    kind = r.choice(["points", "labels", "images"])
    if r.random() < STEERED:
        return steered(kind, r, folder)
    if kind != "images" and r.random() < FLOWING:
        return flowing(kind, r, folder)
    words = [f"checkpoint={folder / kind}", f"num_samples={r.randint(1, 60)}", *sampling(kind, r)]
    words += [r.choice(["labels=all", "labels=[0,1]", "labels=1"])] if kind != "points" and r.random() < 0.5 else []
    words += [f"animation={r.choice(['none', 'gif'])}"] if r.random() < 0.2 else []
    return words + [word for word in some(COMMANDS["inference"], r) if kind != "images" or word != NO_IMAGES]


def sampling(kind: str, r: random.Random) -> list[str]:
    """Sampler, spacing, variance and guidance, of the three trained models: of T = 20 steps, with early snapshots."""
    sampler = r.choice([*SAMPLERS, *SAMPLER_ALIASES])
    words, weight = [f"sampler={sampler}"], f"{r.uniform(0.1, 3):.3f}"
    words += [f"sampling_steps={r.randint(3, 20)}"] if r.random() < 0.5 else []
    words += [f"spacing={r.choice([*SPACINGS])}"] if r.random() < 0.4 else []
    words += [f"eta={r.random():.3f}"] if sampler == "ddim" and r.random() < 0.5 else []
    known = [name for name in VARIANCES if kind != "images" or name != "exact"]
    words += [f"variance={r.choice(known)}"] if sampler == "ddpm" and r.random() < 0.6 else []
    if r.random() < 0.4:
        words.append(f"autoguidance={weight}" if kind == "points" or r.random() < 0.5 else f"guidance={weight}")
        words += [f"guidance_interval=[{r.uniform(0, 0.5):.2f},{r.uniform(0.6, 9):.2f}]"] if r.random() < 0.5 else []
    elif kind != "points":
        words += r.choice([[], ["guidance=0"], ["guidance=-1"]])
    return words


def steered(kind: str, r: random.Random, folder: Path) -> list[str]:
    """Samples given an observation, or the sheet of guidance."""
    words = [f"checkpoint={folder / kind}", f"seed={r.randint(0, 99)}"]
    words += [f"num_samples={r.randint(10, 40)}"] * (kind != "images")  # of each image there are ten
    if kind == "labels" and r.random() < 0.5:
        return words + ["guidance_sheet=true"] + ["guidance_interval=[0.1,5]"] * (r.random() < 0.5)
    y = f"{r.uniform(-0.2, 0.6):.2f}"
    line = r.choice([f"mask:{name}" for name in MASKS] if kind == "images" else [f"y={y}", f"x={y}", f"2x-y={y}"])
    method = r.choice(["dps", "pigdm", "repaint"] if kind == "images" else [*METHODS])
    words += [f"observe={line}", f"observe_noise={r.uniform(0.01, 1):.3f}", f"observe_method={method}"]
    return words + ([f"observe_image={r.randint(0, 20)}"] if kind == "images" else [])


def flowing(kind: str, r: random.Random, folder: Path) -> list[str]:
    """Flow lines, which samplers with fresh noise do not have."""
    words = [f"checkpoint={folder / kind}", "flow=true", f"num_samples={r.randint(2, 40)}", "sampling_steps=10"]
    noiseless = [name for name, row in SAMPLERS.items() if not row.noisy]
    return words + [f"sampler={r.choice(noiseless)}", f"animation={r.choice(['none', 'gif'])}"]


def of_evaluate(r: random.Random, folder: Path) -> list[str]:
    if r.random() < 0.3:
        name = r.choice(["moons", "circles", "spirals", "text"])
        return [f"samples={folder / 'points.npy'}", f"dataset={name}", f"num_samples={r.randint(100, 120)}"]
    kind = r.choice(["points", "labels"])
    return [f"checkpoint={folder / kind}", f"num_samples={r.randint(100, 120)}", *sampling(kind, r)]


def of_compare(r: random.Random, folder: Path) -> list[str]:
    names = r.sample([*SAMPLERS, *SAMPLER_ALIASES], 2)
    words = [f"checkpoint={folder / r.choice(['points', 'labels'])}", f"samplers=[{','.join(names)}]"]
    words += [f"evaluations=[{r.randint(1, 20)}]", f"num_samples={r.randint(100, 120)}"]
    return words + some(COMMANDS["compare"], r)


def of_main(r: random.Random, folder: Path) -> list[str]:
    name, own = points_of(r, folder) if r.random() < 0.85 else ("digits", [])
    words = [f"dataset={name}", *own, f"num_samples={r.randint(10, 200)}", *process(r)]
    words += [word for word in some(COMMANDS["main"], r) if name != "digits" or word != NO_IMAGES]
    if r.random() < 0.3 and name != "digits":
        words.append(f"track_samples=[{r.randint(0, 9)}]")
    return words + (["animation=gif"] if r.random() < 0.1 else [])


def as_flags(words: list[str], r: random.Random) -> list[str]:
    """The same, some of them as people type them in other programs."""
    out = []
    for word in words:
        name, _, value = word.partition("=")
        flag = "--" + name.replace("_", "-")
        out += [word] if r.random() < 0.6 else r.choice([[flag, value], [f"{flag}={value}"]])
    return out


def spoiled(words: list[str], r: random.Random) -> list[str]:
    """The same with one to three mistakes."""
    words = list(words)
    for _ in range(r.randint(1, 3)):
        i = r.randrange(len(words))
        name, equals, old = words[i].partition("=")
        every = [f.name for c in COMMANDS.values() for f in fields(c)]
        parts = [f"{g}.{f.name}" for g, m in GROUPS.items() for c in m.values() for f in fields(c)]
        words[i] = r.choice([
            f"{name}={r.choice(JUNK)}", f"{name}{equals}{r.choice(JUNK)}{old}", name, f"--{name}", f"--no-{name}",
            f"{r.choice(every + parts)}={r.choice(JUNK + [old])}", f"{name[:-1]}={old}", f"~{name}", f"+{words[i]}",
            f"++{words[i]}", f"{name}.x={old}", r.choice(JUNK), f"{words[i]},{r.choice(JUNK)}", f"--{r.choice(every)}",
        ])  # fmt: skip
    return words


def line(r: random.Random, folder: Path) -> Line:
    name = r.choices(list(SHARES), list(SHARES.values()))[0]
    words, right = globals()[f"of_{name}"](r, folder), r.random() < 0.6
    words += [f"precision={r.choice(PRECISIONS)}"] if name != "main" and r.random() < 0.2 else []
    words = as_flags(words if right else spoiled(words, r), r)
    return Line([name, *(w for w in words if right or "task_name" not in w)], right)
