"""What must happen before Hydra and torch are imported: `--help` answered, the environment of threads set.

Imported by conf.entry before anything else, and only for that. A command's first import is conf.entry, so its help
takes a tenth of a second instead of the several that torch takes.
"""

import os
import signal
import sys
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from conf.config import COMMANDS
from conf.help import help_text

ROOT = Path(__file__).resolve().parent.parent


def answer_help(name: str, arguments: Iterable[str]) -> None:
    """Print the help of command `name` and end the program, if the arguments ask for it."""
    if not {"--help", "-h"}.isdisjoint(arguments):
        if hasattr(signal, "SIGPIPE"):  # not on Windows
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends without a word
        print(help_text(name))
        sys.exit()


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP's threads sleep soon where they wait for each other, unless the user has said how they shall wait.

    By default they spin, and beside other busy programs that burns the time in which the last one could finish: 100
    steps of `dataset=digits model=unet_small` on two cores beside two busy processes took 101 s; with
    OMP_WAIT_POLICY=PASSIVE 7.2 s and with GOMP_SPINCOUNT=1000 7.1 s. On the quiet machine: 2.1, 3.9 and 2.7 s.
    libgomp, which torch has on Linux, reads it when it is loaded. Intel's library has no such middle way: with
    KMP_BLOCKTIME=0 it took 3.2 s for 1.5 s when quiet and 6 s for 41 s when busy, so that is left to the user.
    """
    if environment.keys().isdisjoint({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}):
        environment["GOMP_SPINCOUNT"] = "1000"


def running_command() -> str | None:
    """The command that Python was started with, such as "train"; None where something else imports it, pytest say."""
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve()
    return script.stem if script.parent == ROOT and script.stem in COMMANDS else None


spin_briefly(os.environ)
os.environ.setdefault(
    "RUST_LOG", "warn,re_log_encoding=off,re_sdk=off"
)  # read by rerun; viz.viewer says it in a sentence
if name := running_command():
    answer_help(name, sys.argv[1:])
