"""Ctrl-C, SIGTERM and SIGHUP: a training finishes its step and saves before it ends."""

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is unknown to Windows


@contextmanager
def caught() -> Iterator[list[int]]:
    """The list that the first of these signals is put into; a second one ends the program at once.

    A signal that is ignored (nohup) stays so, and outside the main thread all stay as they are.
    """
    found: list[int] = []

    def note(number: int, frame: object) -> None:
        if found:
            raise SystemExit(128 + number)
        found.append(number)

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, note)
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end(number: int, run_folder: Path, viewer: str | None, stack: ExitStack) -> None:
    """End the program after signal `number`: close the recording in `stack`, say how to go on, give the exit code.

    A web page would wait for another Ctrl-C, so that it ends as where something fails.
    """
    if viewer != "web":
        stack.close()
    print(f"interrupted and saved; go on with  python train.py resume={shlex.quote(str(run_folder))}", flush=True)
    raise SystemExit(128 + number)
