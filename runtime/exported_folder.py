"""A model as a folder to share: model.safetensors and config.json, without what only a training needs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.atomic_file import atomic_file
from runtime.model_folder import read_json, read_tensors

FORMAT = "moonwalk model 1"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FIRST_BYTES = 40  # of config.json, which begins with the format
# Parts of a checkpoint that are plain values.
PLAIN_PARTS = ("config", "classes", "label_counts", "columns", "data", "step")
# Where a part of a checkpoint stands in the file of weights, and the prefix that torch's average adds to its names.
PREFIXES = {"ema": "net.", "early": "early."}
AVERAGE = "module."
NORMALISER = "normaliser."


def is_exported(folder: Path) -> bool:
    """Whether `save` has written into a folder, even if one of the two files is missing."""
    config = folder / CONFIG_FILE
    if (folder / WEIGHTS_FILE).exists() or not config.is_file():
        return (folder / WEIGHTS_FILE).exists()
    with config.open("rb") as file:
        return FORMAT.partition(" ")[0].encode() in file.read(FIRST_BYTES)


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the averaged weights, the normaliser and the options of a checkpoint into a folder that exists.

    Raises:
        OSError: a file cannot be written.
    """
    from safetensors.torch import save as safetensors_bytes  # only an export needs it

    tensors = {f"{NORMALISER}{name}": tensor for name, tensor in state["normaliser"].items()}
    for part, prefix in PREFIXES.items():
        for name, tensor in state.get(part, {}).items():
            if name.startswith(AVERAGE):  # beside them stands only the number of steps in the average
                tensors[prefix + name.removeprefix(AVERAGE)] = tensor
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}

    plain = {"format": FORMAT} | {name: state[name] for name in PLAIN_PARTS if name in state}
    text = json.dumps(plain, indent=2, allow_nan=False)
    with atomic_file(folder / WEIGHTS_FILE) as file:
        file.write(safetensors_bytes(tensors, {"format": "pt"}))
    with atomic_file(folder / CONFIG_FILE) as file:
        file.write(f"{text}\n".encode())


def load(folder: Path) -> dict[str, Any]:
    """The parts of a checkpoint that an exported folder holds.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or of another version.
    """
    plain = read_json(folder / CONFIG_FILE)
    if plain.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG_FILE} is not of this version of moonwalk ({FORMAT})")
    tensors = read_tensors(folder / WEIGHTS_FILE)

    state: dict[str, Any] = {name: plain[name] for name in PLAIN_PARTS if name in plain}
    state["normaliser"] = _under(tensors, NORMALISER, "")
    for part, prefix in PREFIXES.items():
        weights = _under(tensors, prefix, AVERAGE)
        if weights or part == "ema":
            state[part] = as_average(weights)
    return state


def as_average(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a checkpoint holds them: with the number of steps in their average, which sampling does not use."""
    return {"n_averaged": torch.tensor(0), **weights}


def _under(tensors: Mapping[str, Tensor], prefix: str, new_prefix: str) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            found[new_prefix + name.removeprefix(prefix)] = tensor
    return found
