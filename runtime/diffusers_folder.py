"""A folder that diffusers has saved, as the parts of a checkpoint. Nothing that it names is imported or called.

The words on the left of the tables are those of diffusers, those on the right are moonwalk's. An option that
moonwalk cannot honour is refused. How diffusers would sample (timestep_spacing, steps_offset, set_alpha_to_one,
variance_type) is left out: moonwalk has options of its own for it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.exported_folder import as_average
from runtime.model_folder import read_json, read_tensors

INDEX_FILE = "model_index.json"
CONFIG_FILE = "config.json"
SCHEDULER_FILE = "scheduler_config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
FILES = (INDEX_FILE, CONFIG_FILE, SCHEDULER_FILE, WEIGHTS_FILE, "unet")  # one of them stands in every such folder
NETWORK = "diffusers_unet"  # its name in a configuration
NO_DATA = "unknown"  # in place of the name of a data set

UNET = "UNet2DModel"
FLOW = "FlowMatchEulerDiscreteScheduler"
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", FLOW)
SUPPORTED = f"{UNET} with {', '.join(SCHEDULERS[:-1])} or {FLOW}"
TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
# Options of the flow that change its noise levels in ways that moonwalk's processes do not know, and their "off".
FLOW_REFUSED = {"use_dynamic_shifting": False, "invert_sigmas": False, "shift_terminal": None}

MAX_NUMBERS = 2**26  # of one sample: a coloured image of 4096 x 4096 pixels has fewer
# Attention layers were renamed in 2023. Older files hold the old names.
RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def load(folder: Path) -> dict[str, Any]:
    """The network, the process and the labels of a diffusers folder.

    Args:
        folder: with model_index.json, unet/ and scheduler/, or with config.json, scheduler_config.json and the weights
            beside each other.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, of another architecture, or asks for what moonwalk cannot honour.
    """
    unet_folder = scheduler_folder = folder
    if (folder / INDEX_FILE).exists() or (folder / "unet").is_dir():
        _check_parts(folder, read_json(folder / INDEX_FILE))
        unet_folder, scheduler_folder = folder / "unet", folder / "scheduler"
    unet = _Options(unet_folder / CONFIG_FILE, (UNET,))
    scheduler = _Options(scheduler_folder / SCHEDULER_FILE, SCHEDULERS)

    dims = _sample_shape(unet)
    process = _flow(scheduler) if scheduler.class_name == FLOW else _process_with_betas(scheduler)
    target = process.pop("prediction")
    weights = read_tensors(unet_folder / WEIGHTS_FILE)
    labels = _count_labels(unet, weights, unet_folder)
    options = {name: value for name, value in unet.values.items() if not name.startswith("_")}

    network = {"name": NETWORK, "prediction": target, "options": options, "flow_shift": process.get("flow_shift")}
    config = {
        "dataset": {"name": NO_DATA},
        "num_samples": None,
        "seed": 0,
        "label_dropout": 0.0,  # there is no null label
        "model": network,
        **process,
    }
    return {
        "config": config,
        "classes": [str(label) for label in range(labels)],
        "normaliser": {"mean": torch.zeros(dims), "std": torch.ones(dims)},
        "ema": as_average({f"module.unet.{_new_name(name)}": w.float() for name, w in weights.items()}),
    }


class _Options:
    """The options in a JSON file of diffusers, which are checked as they are read.

    Raises:
        ValueError: the file is of a class that is not among `classes`.
    """

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        self.path = path
        self.values = read_json(path)
        self.class_name = self.values.get("_class_name")
        if self.class_name not in classes:
            raise ValueError(f"{path} is of {self.class_name or 'no class'}; moonwalk reads {SUPPORTED}")

    def number(self, name: str, default: float) -> float:
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, "must be a number")
        return value

    def whole(self, name: str, default: int) -> int:
        value = self.values.get(name, default)
        if not _is_whole(value):
            raise self.error(name, "must be a whole number from 1")
        return value

    def choice(self, name: str, default: str, choices: Mapping[str, str]) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in choices:
            raise self.error(name, f"must be one of {', '.join(choices)}")
        return choices[value]

    def must_be(self, name: str, wanted: Any) -> None:
        if self.values.get(name, wanted) != wanted:
            raise self.error(name, f"must be {wanted}: moonwalk has nothing else")

    def error(self, name: str, rule: str) -> ValueError:
        return ValueError(f"{self.path}: {name} {rule}; got {self.values.get(name)!r:.200}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_parts(folder: Path, index: Mapping[str, Any]) -> None:
    """Raises ValueError where a pipeline needs more than a network and a scheduler, such as a decoder of latents."""
    parts = [name for name, value in index.items() if isinstance(value, list) and value != [None, None]]
    others = sorted(set(parts) - {"unet", "scheduler"})
    if others:
        name = index.get("_class_name", "a pipeline")
        raise ValueError(f"{folder} is {name} with {', '.join(others)}; moonwalk reads {SUPPORTED}, and nothing beside")


# ---------------------------------------------------------------- the network


def _sample_shape(unet: _Options) -> tuple[int, int, int]:
    """(C, H, W).

    Raises:
        ValueError: it is not given, too large, or the network has more outputs, such as a variance.
    """
    size = unet.values.get("sample_size")
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(_is_whole(side) for side in sides):
        raise unet.error("sample_size", "must be one or two whole numbers from 1, the sides of an image in pixels")
    channels = unet.whole("in_channels", 3)
    if unet.whole("out_channels", 3) != channels:
        raise unet.error("out_channels", f"must be in_channels, {channels}: moonwalk knows no learned variance")
    if channels * math.prod(sides) > MAX_NUMBERS:
        raise unet.error("sample_size", f"asks for more than {MAX_NUMBERS:,} numbers in one sample")
    return channels, sides[0], sides[1]


def _count_labels(unet: _Options, weights: Mapping[str, Tensor], folder: Path) -> int:
    """The number of labels; 0 for an unconditional network.

    Raises:
        ValueError: labels of another kind, or another number of them than the weights have.
    """
    unet.must_be("class_embed_type", None)
    if unet.values.get("num_class_embeds") is None:
        return 0
    labels = unet.whole("num_class_embeds", 1)
    embedding = weights.get("class_embedding.weight")
    held = 0 if embedding is None or not embedding.ndim else len(embedding)
    if held != labels:
        raise unet.error("num_class_embeds", f"must be {held}, as {folder / WEIGHTS_FILE} has it")
    return labels


def _new_name(name: str) -> str:
    for old, new in RENAMED.items():
        if ".attentions." in name:
            name = name.replace(old, new)
    return name


# ---------------------------------------------------------------- the process


def _process_with_betas(scheduler: _Options) -> dict[str, Any]:
    """The options of a process with betas, and what the network predicts. Raises ValueError for others."""
    scheduler.must_be("thresholding", False)
    betas = scheduler.values.get("trained_betas")
    process: dict[str, Any] = {
        "schedule": scheduler.choice("beta_schedule", "linear", SCHEDULES),
        "num_timesteps": scheduler.whole("num_train_timesteps", 1000),
        "beta_start": scheduler.number("beta_start", 0.0001),
        "beta_end": scheduler.number("beta_end", 0.02),
        "zero_snr": bool(scheduler.values.get("rescale_betas_zero_snr", False)),
        "prediction": scheduler.choice("prediction_type", "epsilon", TARGETS),
        "clip_sample": None,
    }
    if scheduler.values.get("clip_sample", True):
        process["clip_sample"] = scheduler.number("clip_sample_range", 1.0)
        if process["clip_sample"] <= 0:
            raise scheduler.error("clip_sample_range", "must be above 0")
    if betas is not None:
        if not isinstance(betas, list) or len(betas) != process["num_timesteps"]:
            raise scheduler.error("trained_betas", f"must be {process['num_timesteps']} numbers")
        process |= {"betas": betas, "schedule": "linear"}
    if betas is not None or process["schedule"] == "cosine":
        process |= {"beta_start": None, "beta_end": None}
    return process


def _flow(scheduler: _Options) -> dict[str, Any]:
    """The options of a flow, and what the network predicts. Raises ValueError for one that moonwalk cannot honour."""
    for name, off in FLOW_REFUSED.items():
        scheduler.must_be(name, off)
    shift = scheduler.number("shift", 1.0)
    if shift <= 0:
        raise scheduler.error("shift", "must be above 0")
    return {
        "schedule": "flow",
        "num_timesteps": scheduler.whole("num_train_timesteps", 1000),
        "beta_start": None,
        "beta_end": None,
        "flow_shift": shift,
        "prediction": "velocity",
        "clip_sample": None,
    }
