"""A sweep, `-m`: its folder, what becomes of runs that fail, what is done once at its end.

Its runs may be processes of their own (hydra/launcher=joblib) or of other machines (submitit_slurm). What they leave
for the process that began the sweep are files, so that a run that fails costs no other.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

ROOT = Path(__file__).resolve().parent.parent
ERROR = "error.txt"  # the sentence of a run that failed, in its folder
NAMED = 5  # failed runs
LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm")  # that requirements/sweep.txt brings
AfterSweep = Callable[[Path], None]


class Sweep(Callback):
    """Hydra calls it where a sweep begins (see store.py): nobody else learns the sweep's folder in time."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with suppress(OmegaConfBaseException):  # a folder that is refused: the sweep ends with its sentence
            Sweep.folder = short(config.hydra.sweep.dir)
        known = os.environ.get("PYTHONPATH")  # submitit starts Python anew, which must find our modules
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), known]))


def short(folder: str) -> Path:
    """Relative to where the person stands, if it is below."""
    path = Path(folder)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def note_failure(run_folder: Path, sentence: str, expected: bool, fresh: bool) -> None:
    """Print why a run of a sweep failed, with a traceback if nobody expected it; keep it in a folder that was fresh."""
    if not expected:
        traceback.print_exc()
    print(f"{run_folder} failed: {sentence}", file=sys.stderr, flush=True)
    if fresh:
        (run_folder / ERROR).write_text(f"{sentence}\n", encoding="utf-8")


def end_sweep(after: AfterSweep | None) -> None:
    """What is done once, when all runs of a sweep have ended. Ends the program where one of them failed.

    after: is given the folder of the sweep.
    """
    if Sweep.folder is None:
        return
    if after:
        after(Sweep.folder)
    failed = [f"{path.parent} ({path.read_text(encoding='utf-8').strip()})" for path in Sweep.folder.rglob(ERROR)]
    if failed:
        some = ", ".join(sorted(failed)[:NAMED]) + ", ..." * (len(failed) > NAMED)
        sys.exit(f"{len(failed)} of the sweep's runs failed: {some}")


def broken_off(error: Exception) -> str:
    """Why the launcher of a sweep gave up, of which a process was killed, say; "" where no sweep had begun."""
    if Sweep.folder is None:
        return ""
    causes = re.findall(r"^[\w.]+(?:Error|Exception): .*", str(error), re.MULTILINE)  # in a traceback from submitit
    why = f"{type(error).__name__}, {' '.join((causes or [str(error)])[-1].split())}"[:200]
    return f"the sweep was broken off: {why}; `python loss/report.py {Sweep.folder}` says how each of its runs ended"
