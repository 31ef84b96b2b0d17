"""trajectory.npz: the states of a process in a file, from which films can be made later."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.atomic_file import atomic_file
from runtime.checkpoint_contents import excess_in_archive
from viz.scene import Process, Scene

SIDES = ("forward", "reverse")
OPTIONAL = ("data", "alpha_bar", "labels")  # arrays of a scene that may be missing
PREDICTIONS = ("tracked", "guesses")  # the names of Scene.predictions in the file


def save_scene(scene: Scene, path: Path) -> Path:
    """Write a scene of points as trajectory.npz, and return its path.

    The file holds for each side SIDE (S, N, d) and SIDE_steps (S,). Where they are known it also
    holds:

    * data (N, d), clean; alpha_bar (T + 1,); labels (N,);
    * classes, the names of the labels, names, those of the coordinates, and steered, how sampling was guided, in words;
    * aspect, the length of a unit of y in units of x;
    * tracked and guesses (S, K, d), places and predicted x_0 of tracked samples.

    The names steered and guesses are older than those of Scene; files keep them.

    Raises:
        OSError: the file cannot be written.
    """
    arrays: dict[str, Any] = {}
    for name in OPTIONAL:
        array = getattr(scene, name)
        if array is not None:
            arrays[name] = array
    arrays["classes"] = np.array(scene.classes, str)
    arrays["names"] = np.array(scene.names, str)
    arrays["aspect"] = np.array(scene.aspect)
    arrays["steered"] = np.array(scene.guidance_text)
    if scene.predictions is not None:
        arrays |= dict(zip(PREDICTIONS, scene.predictions))
    for process in scene.processes:
        arrays[process.side] = process.states
        arrays[f"{process.side}_steps"] = process.steps
    with atomic_file(path) as file:
        np.savez(file, **arrays)
    return path


def load_scene(path: str | Path) -> Scene:
    """Read what `save_scene` has written.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no {path}; save_trajectory=true makes one")
    if not Path(path).is_file():
        raise ValueError(f"{path} is no trajectory.npz of moonwalk: it is not a file")
    with open(path, "rb") as file:
        try:
            excess = _excess_in(file)
            scene = Scene([])
            if not excess:
                file.seek(0)
                with np.load(file, allow_pickle=False) as arrays:
                    scene = _scene_from(arrays)
        except Exception as error:  # numpy reports damaged files by many kinds of errors
            raise ValueError(f"{path} is no trajectory.npz of moonwalk") from error
    if excess:
        raise ValueError(f"{path} is no trajectory.npz of moonwalk: it {excess}")
    if not scene.processes or not all(_is_whole(process) for process in scene.processes):
        raise ValueError(
            f"{path} is no trajectory.npz of moonwalk: it holds neither a forward nor a reverse process",
        )
    return scene


def _excess_in(file: io.BufferedReader) -> str | None:
    """Say in what the arrays of a .npz file exceed it, before numpy makes room for them; or None."""
    excess = excess_in_archive(file)
    if excess:
        return excess
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as array:
                np.lib.format.read_magic(array)  # pyright: ignore[reportArgumentType]
                shape, _, dtype = np.lib.format.read_array_header_1_0(array)  # pyright: ignore[reportArgumentType]
            if math.prod(shape) * max(1, dtype.itemsize) > member.file_size:
                return f"claims more bytes for {member.filename} than it has"
    return None


def _scene_from(arrays: Mapping[str, Any]) -> Scene:
    """Return the scene that these arrays describe; it may lack processes."""
    processes = []
    for side in SIDES:
        if side in arrays:
            processes.append(Process(side, arrays[side], _steps_from(arrays, side)))
    known: dict[str, Any] = {name: arrays[name] for name in OPTIONAL if name in arrays}
    if PREDICTIONS[0] in arrays:
        known["predictions"] = tuple(arrays[name] for name in PREDICTIONS)
    known["classes"] = [str(name) for name in arrays.get("classes", ())]
    known["names"] = [str(name) for name in arrays.get("names", ())]
    known["aspect"] = _aspect_from(arrays)
    known["guidance_text"] = str(arrays.get("steered", ""))
    return Scene(processes, **known)


def _aspect_from(arrays: Mapping[str, Any]) -> float:
    """Return the length of a unit of y in units of x; older files have none.

    Raises:
        ValueError: it is no possible length.
    """
    aspect = float(arrays.get("aspect", 1.0))
    if not 0 < aspect < math.inf:
        raise ValueError("the aspect is no length")
    return aspect


def _steps_from(arrays: Mapping[str, Any], side: str) -> NDArray:
    """Return the steps of a process, which older files call SIDE_noisings."""
    name = f"{side}_steps"
    if name not in arrays:
        name = f"{side}_noisings"
    return arrays[name]


def _is_whole(process: Process) -> bool:
    """Return whether a process has states, and as many steps."""
    return len(process.states) > 0 and len(process.states) == len(process.steps)
