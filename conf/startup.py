"""Tasks that come before the import of Hydra and torch: run the files of include=, answer `--help` and set the
environment of threads.

The first import of every command is conf.entry, and conf.entry imports this module before anything
else. The help therefore appears after a tenth of a second instead of the several seconds that torch
takes.
"""

# First, because it runs the files of include=, and the options are made from what these add.
import conf.include  # noqa: F401

# isort: split
import importlib.util
import os
import signal
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from conf.config import COMMANDS
from conf.help import help_text

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hydra", "numpy", "torch")  # some of those that requirements.txt installs


def check_packages() -> None:
    """End the program with one sentence where Python lacks the packages, as outside of .venv."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"this Python ({sys.executable}) lacks {', '.join(missing)}: activate the environment first"
            " (source .venv/bin/activate), or install the packages of requirements.txt"
        )


def answer_help(name: str, arguments: Sequence[str]) -> None:
    """Print the help of command `name` and end the program, if the arguments ask for it."""
    if {"--help", "-h"}.isdisjoint(arguments):
        return
    try:
        text = help_text(name, arguments)
    except ValueError as error:
        sys.exit(str(error))
    if hasattr(signal, "SIGPIPE"):  # Windows has none
        # By default Python ends `--help | head` with a traceback.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(text)
    sys.exit()


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP's waiting threads sleep soon, unless the user has chosen how they wait.

    By default they spin. Beside other busy programs this burns the time in which the last thread
    could finish. libgomp, which torch uses on Linux, reads the variable when it is loaded. Measured
    once, with 100 steps of `dataset=digits model=unet_small` on two cores, beside two busy
    processes and on the quiet machine:

        default                     101 s     2.1 s
        OMP_WAIT_POLICY=PASSIVE     7.2 s     3.9 s
        GOMP_SPINCOUNT=1000         7.1 s     2.7 s

    Intel's library has no such middle way. KMP_BLOCKTIME=0 took 6 s instead of 41 s beside the busy
    processes, but 3.2 s instead of 1.5 s on the quiet machine. That choice stays with the user.
    """
    if environment.keys().isdisjoint({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}):
        environment["GOMP_SPINCOUNT"] = "1000"


def running_command() -> str | None:
    """The command that Python was started with, such as "train".

    None where another program imports the command, for example pytest.
    """
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve()
    return script.stem if script.parent == ROOT and script.stem in COMMANDS else None


spin_briefly(os.environ)
# rerun reads this variable. viz.viewer reports in one sentence what these log lines would say.
os.environ.setdefault("RUST_LOG", "warn,re_log_encoding=off,re_sdk=off")
running = running_command()
if running:
    answer_help(running, sys.argv[1:])
    check_packages()
