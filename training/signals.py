"""Ctrl-C, SIGTERM and SIGHUP: a training finishes its step and saves before it ends."""

import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime import distributed

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextmanager
def caught() -> Iterator[list[int]]:
    """Catch the signals: the first one is put into the list that is returned, a second one ends the
    program at once.

    A signal that is ignored (nohup) stays ignored. Outside the main thread all handlers stay as
    they are.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received:
            raise SystemExit(128 + number)
        received.append(number)

    old_handlers = {}
    if threading.current_thread() is threading.main_thread():
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                old_handlers[number] = signal.getsignal(number)

    try:
        for number in old_handlers:
            signal.signal(number, note)
        yield received
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


def agreed(received: Sequence[int]) -> int:
    """The signal that ends the training in all processes after the same step; 0 for none."""
    own = received[0] if received else 0
    return distributed.largest(own)


def end(number: int, run_folder: Path, viewer: str | None, stack: ExitStack) -> None:
    """End the program after signal `number`: finish the recording in `stack`, and say how to go on.

    The recording of a web page is not finished: it would wait for another Ctrl-C.

    Raises:
        SystemExit: always, with the exit code of the signal.
    """
    if viewer != "web":
        stack.close()
    folder = shlex.quote(str(run_folder))
    print(f"interrupted and saved; go on with  python train.py resume={folder}", flush=True)
    raise SystemExit(128 + number)
