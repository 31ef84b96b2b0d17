"""The door that every command enters by: flags, Hydra, checked options, and one sentence when something is wrong.

Each command imports it before anything else, because importing it answers `--help` (first.py).
"""

from conf.first import answer_help  # answers --help, and sets the environment, before what follows is imported

# isort: split
import difflib
import functools
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException, MissingConfigException
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
from conf.help import groups_of
from conf.option import check
from conf.store import register

# What a person can cause. Anything else is a fault of ours and keeps its traceback.
EXPECTED = (ValueError, OSError, HydraException, OmegaConfBaseException)
NO_FOLDER = "hydra.run.dir=.", "hydra.output_subdir=null"
# Words that users of other repositories type, and the options that they may mean: the first that the command has.
MEANT = {
    "learning_rate": ("lr",),
    "epochs": ("num_epochs",),
    "batch": ("batch_size",),
    "steps": ("max_steps", "sampling_steps", "num_timesteps"),
    "timesteps": ("num_timesteps", "sampling_steps"),
    "samples": ("num_samples",),
    "eval_samples": ("num_samples",),
    "cfg_scale": ("guidance",),
    "arch": ("model",),
    "data": ("dataset",),
}


def command(name: str) -> Callable[[Callable[[Any, Path], object]], Callable[[], None]]:
    """Make `main(options, run_folder)` the command `name` of conf/config.py; options: that dataclass, checked.

    With HYDRA_FULL_ERROR=1 in the environment errors keep their traceback.
    """

    def decorate(main: Callable[[Any, Path], object]) -> Callable[[], None]:
        full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"

        def stop(error: Exception) -> NoReturn:
            if full_error:
                raise error
            if not _is_first():  # it fails for the same reason; when the first has said it, torchrun ends the others
                time.sleep(10)
            sys.exit(sentence(name, error))

        @functools.wraps(main)
        def job(cfg: DictConfig) -> object:
            run_folder = _short(HydraConfig.get().runtime.output_dir)
            try:
                return main(checked(cfg), run_folder)
            except (SystemExit, *EXPECTED) as error:
                if run_folder != Path() and os.listdir(run_folder) == [".hydra"]:  # it failed before it began
                    shutil.rmtree(run_folder)
                if isinstance(error, SystemExit):  # all is said
                    raise
                if HydraConfig.get().mode is RunMode.RUN:
                    stop(error)
                raise CompactHydraException(sentence(name, error)) from error  # a sweep goes on

        def launch() -> None:
            answer_help(name, sys.argv[1:])
            try:
                _run(name, job)
            except KeyboardInterrupt:
                sys.exit(130)
            except BrokenPipeError:  # `| head` has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except EXPECTED as error:
                stop(error)

        return launch

    return decorate


def _run(name: str, job: Callable[[DictConfig], object]) -> None:
    """`job` with the options of the command line, as Hydra composes them."""
    register(name)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", _sweep_folder, replace=True)
    sys.argv[1:] = to_overrides(sys.argv[1:])
    if os.environ.get("WORLD_SIZE", "1") != "1" and (name != "train" or not {"-m", "--multirun"}.isdisjoint(sys.argv)):
        raise ValueError("torchrun is for one training, with train.py and without -m: start everything else by python")
    if any(re.match("resume=(?!null$)", word) for word in sys.argv):  # it goes on in a folder that there is
        if not {"-m", "--multirun"}.isdisjoint(sys.argv):
            raise ValueError("resume= goes on with one training: leave out -m")
        sys.argv += NO_FOLDER
    elif not _is_first() or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":  # see runtime.processes
        sys.argv += NO_FOLDER
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its own errors on, and we make one sentence of them
    hydra.main(version_base="1.3", config_path=None, config_name=name)(job)()


def _is_first() -> bool:
    """Whether this is the only process, or of those that torchrun has started the first."""
    return os.environ.get("RANK", "0") == "0"


def checked(cfg: DictConfig) -> Any:
    """The composed configuration as the dataclass of its command; dataset and model are dataclasses in it.

    Raises:
        ValueError: an option is out of its range or not among its choices.
    """
    options = OmegaConf.to_object(cfg)
    check(options)
    return options


def typed_options() -> set[str]:
    """The options that the user has given a value, such as lr and model.hidden."""
    return {word.split("=")[0] for word in HydraConfig.get().overrides.task}


def sweep_folder() -> Path | None:
    """The folder that holds all runs of a sweep; None where this is no sweep."""
    config = HydraConfig.get()
    return _short(config.sweep.dir) if config.mode is RunMode.MULTIRUN else None


def _short(folder: str) -> Path:
    """Relative to where the person stands, if it is below."""
    path = Path(folder)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@functools.cache
def _run_folder(name: str, task_name: str | None, stamp: str) -> str:
    """Where Hydra puts a run: `task_name`, or a new stamped folder. Refuses a folder that already holds something.

    Called before Hydra writes its first file there: of several runs that want a folder at once, one can make .hydra.
    """
    folder = Path(_sweep_folder(name, task_name, stamp))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if any(folder.iterdir()):
            raise FileExistsError
        (folder / ".hydra").mkdir()
    except FileExistsError:
        raise ValueError(f"task_name={task_name}: that folder already holds a run; choose another name") from None
    return str(folder)


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
        return f"unknown option {cause.full_key}{_advice(name, str(cause.full_key))}; {help}"
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {_first_line(cause)}; {help}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot use {error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).partition("/")
        return f"{group}={choice} is unknown; choose one of {', '.join(error.options)}"
    if isinstance(error, HydraException) and type(error) is not CompactHydraException:
        return f"{_first_line(error)}; {help}"
    return " ".join(str(error).split())


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


def _advice(name: str, key: str) -> str:
    """' (did you mean lr?)', or which data set, network or command has such an option; '' where none is similar."""
    command = COMMANDS[name]
    own = [f.name for f in fields(command)]
    parts = {  # the options of every data set and network, by "dataset=moons" and so on
        f"{group}={choice}": [f"{group}.{f.name}" for f in fields(member)]
        for group in groups_of(command)
        for choice, member in GROUPS[group].items()
    }
    if having := [choice for choice, options in parts.items() if key in options]:
        return f": it belongs to {_listed(having)}"
    for meant in MEANT.get(key, ()):
        if meant in own:
            return f" (did you mean {meant}?)"
    if having := [f"{other}.py" for other in COMMANDS if key in {f.name for f in fields(COMMANDS[other])}]:
        return f": it belongs to {_listed(having)}"
    close = difflib.get_close_matches(key, own + [option for options in parts.values() for option in options], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _listed(names: list[str]) -> str:
    """'a, b and c'"""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
