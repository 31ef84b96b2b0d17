"""The states of a process in a file, trajectory.npz, of which films can be made later."""

from pathlib import Path
from typing import Any

import numpy as np

from runtime.atomic_file import atomic_file
from viz.scene import Process, Scene

SIDES = ("forward", "reverse")
GUESSES = ("tracked", "guesses")  # of tracked samples: where they are, and their x_0


def save_scene(scene: Scene, path: Path) -> Path:
    """trajectory.npz: for each side SIDE (S, N, d) and SIDE_steps (S,); where they are known the clean data (N, d),
    alpha_bar (T + 1,), labels (N,), the names of their `classes`, in words how the samples were `steered`, and of
    `tracked` samples (S, K, d) the network's `guesses` of x_0."""
    around = {"data": scene.data, "alpha_bar": scene.alpha_bar, "labels": scene.labels}
    arrays: dict[str, Any] = {name: array for name, array in around.items() if array is not None}
    arrays |= {"classes": np.array(scene.classes, str), "steered": np.array(scene.steered)}
    if scene.guesses is not None:
        arrays |= dict(zip(GUESSES, scene.guesses))
    for p in scene.processes:
        arrays |= {p.side: p.states, f"{p.side}_steps": p.steps}
    with atomic_file(path) as file:
        np.savez(file, **arrays)
    return path


def load_scene(path: str | Path) -> Scene:
    """What `save_scene` wrote. Raises FileNotFoundError or ValueError, each with a sentence."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no {path}; save_trajectory=true makes one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            sides = [s for s in SIDES if s in arrays]
            steps = {
                s: arrays[f"{s}_steps" if f"{s}_steps" in arrays else f"{s}_noisings"] for s in sides
            }  # its former name
            processes = [Process(s, arrays[s], steps[s]) for s in sides]
            around = {name: arrays[name] for name in ("data", "alpha_bar", "labels") if name in arrays}
            around |= {"guesses": tuple(arrays[name] for name in GUESSES)} if GUESSES[0] in arrays else {}
            around |= {"classes": [*map(str, arrays.get("classes", ()))], "steered": str(arrays.get("steered", ""))}
    except Exception as error:  # a damaged zip file has many ways to say so
        raise ValueError(f"{path} is no trajectory.npz of moonwalk") from error
    if not processes or any(len(p.states) != len(p.steps) or not len(p.states) for p in processes):
        raise ValueError(f"{path} is no trajectory.npz of moonwalk: it holds neither a forward nor a reverse process")
    return Scene(processes, **around)
