"""A Python that has spent its seconds on imports already, and forks for each line that it reads: conftest.command.

torch, its dynamo (every first optimizer imports it), scipy, scikit-learn and matplotlib cost a training 4 seconds of
CPU before its first step, and the tests run two hundred commands. Nothing of moonwalk is imported here. Each child is a
process with a folder, an environment and an exit code of its own, reads our code as a fresh interpreter does, and ends
as one does.
"""

import gc
import json
import os
import runpy
import sys
from pathlib import Path

PACKAGES = ["torch", "torch._dynamo", "scipy.stats", "sklearn.datasets", "matplotlib.pyplot", "hydra"]


def become(words: list[str], folder: str, environment: dict[str, str], outputs: list[str]) -> None:
    """Turn this forked child into `python WORDS`."""
    for fd, path in enumerate([os.devnull, *outputs]):
        os.dup2(os.open(path, os.O_RDWR), fd)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    first = str(Path(words[0]).parent) if words[0].endswith(".py") else folder
    sys.path[:0] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = words if words[0].endswith(".py") else words[1:]
    if words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        exec(words[1], {"__name__": "__main__"})
    else:
        runpy.run_path(words[0], run_name="__main__")


def serve() -> None:
    """Answer each line of stdin with the exit code of what it asked for. Returns in each child, when that is done."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for request in requests:
        if not (child := os.fork()):
            return become(**json.loads(request))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
    return None


if __name__ == "__main__":
    for name in PACKAGES:
        __import__(name)
    gc.freeze()  # what the children share stays shared
    sys.path.remove(str(Path(__file__).parent))
    serve()
