"""The two kinds of files in a folder that holds a model: JSON with its options, safetensors with its weights.

Both come from other people. Reading them executes nothing, and allocates no more than they have bytes.
"""

import json
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

MAX_JSON_BYTES = 10_000_000  # options and lists of betas are far smaller


def read_json(path: Path) -> dict[str, Any]:
    """The options in a JSON file.

    Raises:
        FileNotFoundError: the folder lacks the file.
        ValueError: it is no JSON, no object of names and values, too large, or holds NaN or infinity.
    """
    _check_exists(path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} has more than {MAX_JSON_BYTES:,} bytes, which no options need")
    try:
        found = json.loads(path.read_bytes(), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be used: {error or 'it is nested too deeply'}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} cannot be used: it holds no names and values")
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"it holds {word}, which is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if abs(number) == float("inf"):
        _refuse_constant(digits)
    return number


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by name.

    The library compares every size in the header with the bytes of the file before it allocates anything.

    Raises:
        FileNotFoundError: the folder lacks the file.
        ValueError: it is damaged, cut short, or no safetensors file.
    """
    from safetensors import SafetensorError  # a checkpoint that is no folder does not need it
    from safetensors.torch import load_file

    _check_exists(path)
    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged, cut short, or no safetensors file ({reason})") from error


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"the model folder {path.parent} lacks the file {path.name}")
