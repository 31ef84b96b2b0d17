"""Command-line entry point: parses flags, runs Hydra, validates options, reports errors in one
line.

Every command imports this module before anything else, because importing it answers `--help` (see
startup.py).
"""

from conf.startup import answer_help  # first: importing it answers --help and sets the environment

# isort: split
import functools
import importlib
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from conf.flags import to_overrides
from conf.folders import current_run_folder, is_unused, register_folders, removed_if_unused
from conf.messages import EXPECTED, sentence
from conf.option import check
from conf.store import register
from conf.sweep import AfterSweep, broken_off, end_sweep, note_failure

# Hydra must neither reserve nor write a run folder where the run goes on in an existing one.
NO_NEW_FOLDER = ("hydra.run.dir=.", "hydra.output_subdir=null")
SECONDS_FOR_FIRST = 10  # in which the first process reports an error that all processes meet

Main = Callable[[Any, Path], object]
MAINS: dict[str, Main] = {}  # main functions of the commands that this process has imported


def command(
    name: str,
    after_sweep: AfterSweep | None = None,
) -> Callable[[Main], Callable[[], None]]:
    """Make `main(options, run_folder)` the command `name` of conf/config.py.

    `main` receives the checked options as the dataclass of its command. With HYDRA_FULL_ERROR=1 in
    the environment errors keep their traceback.

    after_sweep: called once with the folder of a sweep, after the last of its runs.
    """

    def decorate(main: Main) -> Callable[[], None]:
        MAINS[name] = main

        @functools.wraps(main)
        def launch() -> None:
            answer_help(name, sys.argv[1:])
            full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
            try:
                run_by_hydra(name, full_error)
                end_sweep(after_sweep)
            except KeyboardInterrupt:
                sys.exit(130)
            except BrokenPipeError:  # the reader, such as `| head`, has closed the pipe
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except EXPECTED as error:
                exit_with_sentence(name, error, full_error)
            except Exception as error:
                reason = broken_off(error)
                if full_error or not reason:
                    raise
                sys.exit(reason)

        return launch

    return decorate


def run_by_hydra(name: str, full_error: bool) -> None:
    """Let Hydra compose the options of the command line and start the run, or every run of a sweep.

    Raises:
        ValueError: the command line asks for something that cannot be combined.
    """
    register(name)
    register_folders()
    arguments = to_overrides(sys.argv[1:])
    sweep = not {"-m", "--multirun"}.isdisjoint(arguments)
    resumes = any(re.match("resume=(?!null$)", word) for word in arguments)

    if os.environ.get("WORLD_SIZE", "1") != "1" and (name != "train" or sweep):
        raise ValueError("torchrun is for one training, with train.py and without -m: start everything else by python")
    if resumes and sweep:
        raise ValueError("resume= goes on with one training: leave out -m")
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"  # see runtime.distributed
    if resumes or restarted or not is_first_process():
        arguments += NO_NEW_FOLDER

    sys.argv[1:] = arguments
    # Hydra then raises its own errors, and they end in one sentence.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=None, config_name=name)(Job(name, full_error))()


# ---------------------------------------------------------------- one run


@dataclass(frozen=True)
class Job:
    """What Hydra calls for every run of a command.

    The runs of a sweep may take place in other processes, for which this object is pickled.
    """

    name: str
    full_error: bool

    def __call__(self, cfg: DictConfig) -> object:
        run = run_of_sweep if HydraConfig.get().mode is RunMode.MULTIRUN else single_run
        return run(self.name, self.full_error, cfg)


def single_run(name: str, full_error: bool, cfg: DictConfig) -> object:
    """The only run of command `name`. A mistake of the user ends the program with one sentence."""
    run_folder = current_run_folder()
    with removed_if_unused(run_folder):
        try:
            return main_of(name)(checked(cfg), run_folder)
        except EXPECTED as error:
            exit_with_sentence(name, error, full_error)


def run_of_sweep(name: str, full_error: bool, cfg: DictConfig) -> object:
    """One run of a sweep, in this process or in another. If it fails, the other runs go on."""
    run_folder = current_run_folder()
    unused = is_unused(run_folder)
    with removed_if_unused(run_folder):
        try:
            return main_of(name)(checked(cfg), run_folder)
        except Exception as error:
            if full_error:
                raise
            if not isinstance(error, EXPECTED):
                traceback.print_exc()
            note_failure(run_folder, sentence(name, error), in_file=unused)
            return None


def main_of(name: str) -> Main:
    """The main function of a command, whose module is imported if it has not been yet."""
    if name not in MAINS:
        importlib.import_module(name)
    return MAINS[name]


def checked(cfg: DictConfig) -> Any:
    """The composed configuration as the dataclass of its command; dataset and model are dataclasses
    in it.

    Raises:
        ValueError: an option is out of its range or not among its choices.
    """
    options = OmegaConf.to_object(cfg)
    check(options)
    return options


def typed_options() -> set[str]:
    """The options that the user has given a value, such as lr and model.hidden."""
    return {word.split("=")[0] for word in HydraConfig.get().overrides.task}


# ---------------------------------------------------------------- the end of a program


def exit_with_sentence(name: str, error: Exception, full_error: bool) -> NoReturn:
    """End the program with exit code 1 and one sentence on stderr.

    With `full_error`, raise the error instead.
    """
    if full_error:
        raise error
    if not is_first_process():
        # This process fails for the same reason as the first. Once that one has ended, torchrun
        # ends the others.
        time.sleep(SECONDS_FOR_FIRST)
    sys.exit(sentence(name, error))


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"
