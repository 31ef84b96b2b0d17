"""The door that every command enters by: flags, Hydra, checked options, and one sentence when something is wrong.

Each command imports it before anything else, because importing it answers `--help` (first.py).
"""

from conf.first import answer_help  # answers --help, and sets the environment, before what follows is imported

# isort: split
import difflib
import functools
import importlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
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
from conf.sweep import LAUNCHERS, AfterSweep, broken_off, end_sweep, note_failure, short

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


Main = Callable[[Any, Path], object]
MAINS: dict[str, Main] = {}  # of the commands that this process has imported


def command(name: str, after_sweep: AfterSweep | None = None) -> Callable[[Main], Callable[[], None]]:
    """Make `main(options, run_folder)` the command `name` of conf/config.py; options: that dataclass, checked.

    after_sweep: called once with the folder of a sweep, when its runs have ended. With HYDRA_FULL_ERROR=1 in the
    environment errors keep their traceback.
    """

    def decorate(main: Main) -> Callable[[], None]:
        MAINS[name] = main

        @functools.wraps(main)
        def launch() -> None:
            answer_help(name, sys.argv[1:])
            job = Job(name, full_error=os.environ.get("HYDRA_FULL_ERROR") == "1")
            try:
                _run(job)
                end_sweep(after_sweep)
            except KeyboardInterrupt:
                sys.exit(130)
            except BrokenPipeError:  # `| head` has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except EXPECTED as error:
                job.stop(error)
            except Exception as error:
                if job.full_error or not (said := broken_off(error)):
                    raise
                sys.exit(said)

        return launch

    return decorate


@dataclass(frozen=True)
class Job:
    """What Hydra calls for every run of a command: in this process or, of a sweep, in one that it is pickled for."""

    name: str
    full_error: bool

    def __call__(self, cfg: DictConfig) -> object:
        if self.name not in MAINS:
            importlib.import_module(self.name)
        run_folder, sweep = short(HydraConfig.get().runtime.output_dir), HydraConfig.get().mode is RunMode.MULTIRUN
        fresh = run_folder.is_dir() and set(os.listdir(run_folder)) <= {".hydra"}
        try:
            return MAINS[self.name](checked(cfg), run_folder)
        except (SystemExit, Exception) as error:
            said = isinstance(error, SystemExit)  # all that is to be said
            expected = said or isinstance(error, EXPECTED)
            if sweep and not said and not self.full_error:  # the other runs go on
                return note_failure(run_folder, sentence(self.name, error), expected, fresh)
            if expected and run_folder != Path() and os.listdir(run_folder) == [".hydra"]:  # it never began
                shutil.rmtree(run_folder)
            if said or sweep or not expected:
                raise
            return self.stop(error)

    def stop(self, error: Exception) -> NoReturn:
        if self.full_error:
            raise error
        if not _is_first():  # it fails for the same reason; when the first has said it, torchrun ends the others
            time.sleep(10)
        sys.exit(sentence(self.name, error))


def _run(job: Job) -> None:
    """`job` with the options of the command line, as Hydra composes them."""
    register(job.name)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", _new_sweep_folder, replace=True)
    sys.argv[1:] = to_overrides(sys.argv[1:])
    sweep = not {"-m", "--multirun"}.isdisjoint(sys.argv)
    if os.environ.get("WORLD_SIZE", "1") != "1" and (job.name != "train" or sweep):
        raise ValueError("torchrun is for one training, with train.py and without -m: start everything else by python")
    if any(re.match("resume=(?!null$)", word) for word in sys.argv):  # it goes on in a folder that there is
        if sweep:
            raise ValueError("resume= goes on with one training: leave out -m")
        sys.argv += NO_FOLDER
    elif not _is_first() or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":  # see runtime.distributed
        sys.argv += NO_FOLDER
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its own errors on, and we make one sentence of them
    hydra.main(version_base="1.3", config_path=None, config_name=job.name)(job)()


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


def _new_sweep_folder(name: str, task_name: str | None, stamp: str) -> str:
    """Where Hydra puts a sweep. Refuses a folder that already holds something: once, as the launcher soon writes there,
    and this resolver goes with the runs into other processes."""
    folder = _sweep_folder(name, task_name, stamp)
    if task_name and Path(folder).exists() and any(Path(folder).iterdir()):
        raise ValueError(f"task_name={task_name}: that folder already holds something; choose another name")
    OmegaConf.register_new_resolver("sweep_folder", _sweep_folder, replace=True)
    return folder


def _sweep_folder(name: str, task_name: str | None, stamp: str) -> str:
    return task_name or f"outputs/{name}/{stamp}"


OmegaConf.register_new_resolver("sweep_folder", _sweep_folder, replace=True)  # for runs in other processes


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
        return f"{cause.full_key}{_wrong_value(cause)}; {help}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot use {error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and choice in LAUNCHERS:
            return f"hydra/launcher={choice} needs more packages: `pip install -r requirements/sweep.txt`"
        return f"{group}={choice} is unknown; choose one of {', '.join(error.options)}"
    if isinstance(error, HydraException) and type(error) is not CompactHydraException:
        return f"{_first_line(error)}; {help}"
    return " ".join(str(error).split())


def _wrong_value(error: OmegaConfBaseException) -> str:
    """What is wrong with the value of an option, in words that follow its name."""
    said = _first_line(error)
    if "is not a ListConfig" in said:
        return f" takes a list: write its values in brackets, as in {error.full_key}=[A,B]"
    return " needs a value, and null is none" if "is not Optional" in said else f": {said}"


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
