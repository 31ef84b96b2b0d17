"""A sweep, `-m`: its folder, the report of failed runs, and the one action at its end.

The runs may be other processes (hydra/launcher=joblib) or run on other machines (submitit_slurm). A
run that fails leaves a file for the process that began the sweep, so that the other runs go on.
"""

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from conf.folders import relative_to_here

ROOT = Path(__file__).resolve().parent.parent
ERROR = "error.txt"  # holds the sentence of a failed run, in its folder; loss/runs.py reads it
MAX_NAMED = 5  # failed runs that the last line of a sweep names
MAX_REASON_LENGTH = 200  # characters
AfterSweep = Callable[[Path], None]


class Sweep(Callback):
    """Remembers the folder of the sweep.

    Hydra passes it to this callback (see store.py) where the sweep begins.
    """

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # If the folder is refused, Hydra itself ends the sweep with that sentence.
        with suppress(OmegaConfBaseException):
            Sweep.folder = relative_to_here(config.hydra.sweep.dir)
        # submitit starts a new Python, which must find the modules of moonwalk.
        known = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{known}" if known else str(ROOT)


def note_failure(run_folder: Path, message: str, in_file: bool) -> None:
    """Print why a run of a sweep failed; with `in_file`, keep that in the run folder too."""
    print(f"{run_folder} failed: {message}", file=sys.stderr, flush=True)
    if in_file:
        (run_folder / ERROR).write_text(f"{message}\n", encoding="utf-8")


def end_sweep(after: AfterSweep | None) -> None:
    """Call `after` with the folder of the sweep, once all its runs have ended.

    The program ends with exit code 1 if a run has failed. Without a sweep nothing happens.
    """
    if Sweep.folder is None:
        return
    if after:
        after(Sweep.folder)

    failed = []
    for path in sorted(Sweep.folder.rglob(ERROR)):
        failed.append(f"{path.parent} ({path.read_text(encoding='utf-8').strip()})")
    if failed:
        named = ", ".join(failed[:MAX_NAMED])
        more = ", ..." if len(failed) > MAX_NAMED else ""
        sys.exit(f"{len(failed)} of the sweep's runs failed: {named}{more}")


def broken_off(error: Exception) -> str:
    """Why the launcher gave up the sweep, for example because a process was killed.

    "" where no sweep has begun.
    """
    if Sweep.folder is None:
        return ""
    text = str(error)
    # submitit's error holds the traceback of the other process, whose last error is the reason.
    causes = re.findall(r"^[\w.]+(?:Error|Exception): .*", text, re.MULTILINE)
    cause = causes[-1] if causes else text
    reason = f"{type(error).__name__}, {' '.join(cause.split())}"[:MAX_REASON_LENGTH]
    advice = f"`python loss/report.py {Sweep.folder}` says how each of its runs ended"
    return f"the sweep was broken off: {reason}; {advice}"
