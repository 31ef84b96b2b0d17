"""Command-line entry point: parses flags, runs Hydra, validates options, reports errors.

Every command imports this module before anything else. The import answers `--help` (startup.py) and
reports mistakes in the command line (early_check.py) before the command imports torch, which takes
seconds.
"""

# First, because the import answers --help and sets the environment of threads.
from conf.startup import answer_help, running_command

# isort: split
import functools
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from conf.early_check import check_early
from conf.flags import TRAIN_DDPM_MODEL, CommandLine, command_line
from conf.folders import current_run_folder, is_unused, register_folders, removed_if_unused
from conf.messages import EXPECTED, as_expected, sentence
from conf.presets import CONF, EXPERIMENT
from conf.store import checked, register
from conf.sweep import AfterSweep, broken_off, end_sweep, note_failure
from registry.plugins import is_of_plugin, plugin_traceback

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
    """Let Hydra compose the options of the command line and start the run, or each run of a sweep.

    Raises:
        ValueError: the command line asks for something that cannot be combined.
    """
    line = possible_command_line(name)
    register(name, line.overrides)
    register_folders()
    sys.argv[1:] = line.flags + line.overrides
    if continues_in_folder(line):
        sys.argv += NO_NEW_FOLDER

    # Hydra then raises its own errors, and they end in one sentence.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(Job(name, full_error))()


def possible_command_line(name: str) -> CommandLine:
    """The command line of this process, in Hydra's language.

    Raises:
        ValueError: its parts cannot be combined.
    """
    line = command_line(sys.argv[1:])
    if os.environ.get("WORLD_SIZE", "1") != "1" and (name != "train" or line.is_sweep):
        raise ValueError("torchrun is for one training, with train.py and without -m: start everything else by python")
    if line.resumes and line.is_sweep:
        raise ValueError("resume= goes on with one training: leave out -m")
    for option in ("like", EXPERIMENT):
        if line.resumes and line.chooses(option):
            raise ValueError(f"resume= goes on with the options of its training: leave out {option}=")
    return line


def continues_in_folder(line: CommandLine) -> bool:
    """Whether the run needs no new folder.

    A resumed training has one. So has a training that torchrun has restarted, and the processes
    other than the first use that of the first (see runtime.distributed).
    """
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    return line.resumes or restarted or not is_first_process()


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
        except Exception as error:
            expected = as_expected(error)
            if not isinstance(expected, EXPECTED) and not is_of_plugin(expected):
                raise
            exit_with_sentence(name, expected, full_error)


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
            expected = as_expected(error)
            own_traceback = plugin_traceback(expected)
            if own_traceback:
                print(own_traceback, file=sys.stderr)
            elif not isinstance(expected, EXPECTED):
                traceback.print_exc()
            note_failure(run_folder, sentence(name, expected), in_file=unused)
            return None


def main_of(name: str) -> Main:
    """The main function of a command, whose module is imported if it has not been yet."""
    if name not in MAINS:
        importlib.import_module(name)
    return MAINS[name]


def typed_options() -> set[str]:
    """The options that the user has given a value, such as lr and model.hidden."""
    return {word.split("=")[0] for word in HydraConfig.get().overrides.task} - {EXPERIMENT}


# ---------------------------------------------------------------- the end of a program


def exit_with_sentence(name: str, error: Exception, full_error: bool) -> NoReturn:
    """End the program with exit code 1 and one sentence on stderr; or the traceback of an error in a file of include=.

    With `full_error`, raise the error instead.
    """
    if full_error:
        raise error
    if not is_first_process():
        # This process fails for the same reason as the first. Once that one has ended, torchrun
        # ends the others.
        time.sleep(SECONDS_FOR_FIRST)
    sys.exit(plugin_traceback(error) or sentence(name, error))


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


# ---------------------------------------------------------------- before the command imports torch


def check_before_torch(running: str) -> None:
    """End the program with one sentence where its command line holds a mistake."""
    # The flag of older guides turns main.py into train.py.
    name = "train" if running == "main" and TRAIN_DDPM_MODEL in sys.argv else running
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        line = possible_command_line(name)
        check_early(name, line, continues_in_folder(line))
        if line.asks_hydra:  # the answer, such as that of --cfg job, needs no torch either
            run_by_hydra(name, full_error)
            sys.exit()
    except EXPECTED as error:
        exit_with_sentence(name, error, full_error)


def announce_start(stream: TextIO) -> None:
    """Say on a terminal that the command begins, because the imports that follow take seconds in silence."""
    if stream.isatty() and is_first_process():
        print("starting ...", file=stream, flush=True)


running = running_command()
if running:
    check_before_torch(running)
    announce_start(sys.stderr)
