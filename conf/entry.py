"""The door that every command enters by: flags, Hydra, a plain dictionary, and one sentence when something is wrong."""

import difflib
import functools
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from conf.config import COMMANDS
from conf.flags import to_overrides
from conf.groups import GROUPS
from conf.option import plain
from conf.store import register

# What a person can cause. Anything else is a fault of ours and keeps its traceback.
EXPECTED = (ValueError, OSError, HydraException, OmegaConfBaseException)


def command(name: str) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Make `main(run_folder=..., **options)` the command `name` of conf/config.py.

    With HYDRA_FULL_ERROR=1 in the environment errors keep their traceback.
    """

    def decorate(main: Callable[..., Any]) -> Callable[[], None]:
        full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"

        def stop(error: Exception) -> None:
            if full_error:
                raise error
            sys.exit(sentence(name, error))

        @functools.wraps(main)
        def job(cfg: DictConfig) -> Any:
            run_folder = _short(HydraConfig.get().runtime.output_dir)
            try:
                return main(run_folder=run_folder, **plain(cfg))
            except EXPECTED as error:
                if os.listdir(run_folder) == [".hydra"]:  # it failed before it began
                    shutil.rmtree(run_folder)
                if HydraConfig.get().mode is RunMode.RUN:
                    stop(error)
                raise CompactHydraException(sentence(name, error)) from error  # a sweep goes on

        def launch() -> None:
            register()
            OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
            OmegaConf.register_new_resolver("sweep_folder", _sweep_folder, replace=True)
            sys.argv[1:] = to_overrides(sys.argv[1:])
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its own errors on, and we make one sentence of them
            try:
                hydra.main(version_base="1.3", config_path=None, config_name=name)(job)()
            except KeyboardInterrupt:
                sys.exit(130)
            except BrokenPipeError:  # `| head` has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except EXPECTED as error:
                stop(error)

        return launch

    return decorate


def _short(folder: str) -> Path:
    """Relative to where the person stands, if it is below."""
    path = Path(folder)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _run_folder(name: str, task_name: str | None, stamp: str) -> str:
    """Where Hydra puts a run: `task_name`, or a new stamped folder. Refuses a folder that already holds something.

    Called before Hydra writes its first file there.
    """
    if task_name and Path(task_name).is_dir() and any(Path(task_name).iterdir()):
        raise ValueError(f"task_name={task_name}: that folder already holds a run; choose another name")
    return _sweep_folder(name, task_name, stamp)


def _sweep_folder(name: str, task_name: str | None, stamp: str) -> str:
    return task_name or f"outputs/{name}/{stamp}"


# ---------------------------------------------------------------- one sentence


def sentence(name: str, error: BaseException) -> str:
    """What is wrong and what is allowed, in one line: for the user of command `name`."""
    cause = error.__cause__
    if isinstance(error, InterpolationResolutionError):  # raised by _run_folder; OmegaConf keeps only the text
        return _first_line(error).split("resolving interpolation: ")[-1]
    help = f"`python {name}.py --help` lists what is allowed"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return f"unknown option {cause.full_key}{_nearest(name, cause.full_key)}; {help}"
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {_first_line(cause)}; {help}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot use {error.filename}: {error.strerror}"
    if available := getattr(error, "options", None):  # Hydra's MissingConfigException: an unknown group choice
        group, _, choice = (error.missing_cfg_file or "").partition("/")
        return f"{group}={choice} is unknown; choose one of {', '.join(available)}"
    if isinstance(error, HydraException) and type(error) is not CompactHydraException:
        return f"{_first_line(error)}; {help}"
    return " ".join(str(error).split())


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


def _nearest(name: str, key: str) -> str:
    """' (did you mean lr?)' where an option of a similar name exists."""
    known = [f.name for f in fields(COMMANDS[name][0])]
    known += [f"{group}.{f.name}" for group, members in GROUPS.items() for m in members.values() for f in fields(m)]
    close = difflib.get_close_matches(key, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
