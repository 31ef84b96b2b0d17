"""Where Hydra puts a run or a sweep: the resolvers of run folders that store.py refers to."""

import functools
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from conf.messages import EXPECTED, in_one_line

try:
    import fcntl
except ImportError:  # on Windows nothing prevents two commands in one folder
    fcntl: Any = None

# Those of runtime.checkpoint_file, as the next three.
CHECKPOINT_FOLDERS = ("outputs", "runs")
CHECKPOINT_ENDINGS = (".pt", ".pth")
DEFAULT_NAME = "last.pt"
LATEST = "latest"  # the value of resume= and like= for the newest checkpoint
# One of them stands in every folder of a model that was exported, or saved by diffusers; as in runtime/.
MODEL_FILES = (
    "config.json", "model.safetensors", "model_index.json", "scheduler_config.json",
    "diffusion_pytorch_model.safetensors", "unet",
)  # fmt: skip
HYDRA_FOLDER = ".hydra"  # where Hydra writes the options of a run
CLAIMS: list[int] = []  # open folders, which this process has locked to its end


def register_folders() -> None:
    """Register the resolvers `run_folder` and `sweep_folder` for a new run or sweep."""
    OmegaConf.register_new_resolver("run_folder", _new_run_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", _new_sweep_folder, replace=True)


def relative_to_here(folder: str) -> Path:
    """The folder relative to the working directory, if it lies below it."""
    path = Path(folder)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def current_run_folder() -> Path:
    """The folder of the run that Hydra has just started."""
    return relative_to_here(HydraConfig.get().runtime.output_dir)


def is_unused(run_folder: Path) -> bool:
    """Whether the folder exists and holds nothing but what Hydra has written."""
    return run_folder.is_dir() and {path.name for path in run_folder.iterdir()} <= {HYDRA_FOLDER}


def check_folder_is_free(name: str, held: str, option: str = "task_name") -> None:
    """Raises ValueError where the folder already holds something, which the sentence calls `held`.

    option: by which the user has named the folder.
    """
    folder = Path(name)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    advice = "choose another name"
    if has_checkpoint(folder):
        advice = f"continue it by resume={name}, or {advice}"
    raise ValueError(f"{option}={name}: that folder already holds {held}; {advice}")


def claim_folder(name: str, option: str) -> None:
    """Keep the folder that the user has named by an option of Hydra for this process alone.

    Otherwise two commands at once would leave files of both there. Hydra itself writes into the
    folder before our functions are called, so this comes first. The kernel ends the claim together
    with the process.

    Raises:
        ValueError: another command or training is at work there.
        OSError: the folder cannot be made.
    """
    if not fcntl:
        return
    own = Path(name, HYDRA_FOLDER)
    own.mkdir(parents=True, exist_ok=True)
    training = os.open(name, os.O_RDONLY)  # training/run_folder.py locks the folder itself
    command = os.open(own, os.O_RDONLY)
    CLAIMS.append(command)
    try:
        for descriptor in (training, command):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"{option}={name}: another command is at work there; choose another folder"
        raise ValueError(message) from None
    except OSError:  # some network file systems cannot lock folders
        pass
    finally:
        os.close(training)


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint in the folder, by its name."""
    return any(is_checkpoint_name(path) for path in folder.iterdir())


def has_model(folder: Path) -> bool:
    """Whether the folder holds a checkpoint, or a model that was exported or saved by diffusers."""
    return has_checkpoint(folder) or any((folder / name).exists() for name in MODEL_FILES)


def check_checkpoint(path: str | None) -> None:
    """Raises FileNotFoundError where there is no such checkpoint or run folder; None: not any."""
    if path is None:
        if not _any_checkpoint():
            folders = " or ".join(CHECKPOINT_FOLDERS)
            raise FileNotFoundError(f"no checkpoint yet below {folders}: run `python train.py` first, or name one")
        return
    file = Path(path)
    if file.is_dir():
        if has_model(file):
            return
        file = file / DEFAULT_NAME
    if not file.exists():
        raise FileNotFoundError(f"there is no checkpoint at {file}; `python train.py` makes one")
    if file.suffix == ".safetensors":
        raise ValueError(f"{file} holds weights alone: name the folder of the model, in which its options lie as well")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"the checkpoint {file} is damaged or no checkpoint at all")


def _any_checkpoint() -> bool:
    for folder in CHECKPOINT_FOLDERS:
        for path in Path(folder).rglob("*.pt*"):
            if is_checkpoint_name(path):
                return True
    return False


def is_checkpoint_name(path: Path) -> bool:
    """Whether a file of that name is a checkpoint, as runtime.checkpoint_file sees it."""
    return path.suffix in CHECKPOINT_ENDINGS and not path.name.startswith(".")


@contextmanager
def removed_if_unused(run_folder: Path) -> Iterator[None]:
    """Remove the run folder if the run ends with an error before it has written anything there."""
    try:
        yield
    except (SystemExit, *EXPECTED):
        # A training that goes on has the working directory here, which stays.
        if run_folder != Path() and is_unused(run_folder) and (run_folder / HYDRA_FOLDER).exists():
            shutil.rmtree(run_folder)
        raise


# ---------------------------------------------------------------- resolvers


def _folder(name: str, task_name: str | None, stamp: str) -> str:
    return task_name or f"outputs/{name}/{stamp}"


@functools.cache
def _new_run_folder(name: str, task_name: str | None, stamp: str) -> str:
    """The folder of a single run: `task_name`, or a new one named after the time.

    Hydra asks for it before it writes the first file there. If several runs want one folder at
    once, only one of them can make .hydra.

    Raises:
        ValueError: the folder already holds something.
    """
    folder = Path(_folder(name, task_name, stamp))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # Hydra keeps only the text
        raise ValueError(in_one_line(error)) from None
    check_folder_is_free(str(folder), "a run")
    try:
        (folder / HYDRA_FOLDER).mkdir()
    except FileExistsError:
        raise ValueError(f"task_name={task_name}: that folder already holds a run; choose another name") from None
    return str(folder)


def _new_sweep_folder(name: str, task_name: str | None, stamp: str) -> str:
    """The folder of a sweep: `task_name`, or a new one named after the time.

    The check happens once, because the launcher soon writes into the folder, and this resolver goes
    with the runs into other processes.

    Raises:
        ValueError: the folder already holds something.
    """
    folder = _folder(name, task_name, stamp)
    if task_name:
        check_folder_is_free(folder, "something")
    OmegaConf.register_new_resolver("sweep_folder", _folder, replace=True)
    return folder


# The runs of a sweep in other processes use the same folder.
OmegaConf.register_new_resolver("sweep_folder", _folder, replace=True)
