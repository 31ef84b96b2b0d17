"""A Python that has done once what every command would do again, and forks for each line that it reads.

conftest.command uses it. torch, its dynamo (every first optimizer imports it), scipy, scikit-learn, matplotlib and our
modules cost a training 6 seconds of CPU before its first step, and the tests run two hundred commands. Each child is a
process with a folder, an environment and an exit code of its own. It reads the commands themselves and conf/ again, so
that they find its environment, and finds all that lies below them imported. A child whose PYTHONPATH does not name the
repository has to find all of moonwalk by itself.
"""

import atexit
import gc
import io
import json
import os
import runpy
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["train", "inference", "evaluate", "compare", "main"]  # they import conf, which sets the environment, first
READ_AGAIN = {*COMMANDS, "conf"}
PACKAGES = ["torch", "torch._dynamo", "scipy.stats", "sklearn.datasets", "matplotlib.pyplot"]
HYDRA_PACKAGES = ["conf.entry", "hydra", "pandas"]  # none of them imports torch


def prepare() -> None:
    """Import what commands import, read the fonts of pictures, and make Hydra ready."""
    for name in [*COMMANDS, *PACKAGES]:
        __import__(name)

    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot(title="$x_t$", xscale="log")
    axes.plot([1, 2], label="a line")
    axes.legend()
    figure.savefig(io.BytesIO())
    prepare_hydra()


def prepare_hydra() -> None:
    """Import what the checks before torch import, build Hydra's parser, and find its plugins."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf

    for name in HYDRA_PACKAGES:
        __import__(name)
    OverridesParser.create().parse_overrides(["a=1", "b=[1,2]"])
    OmegaConf.to_container(OmegaConf.create({"a": 1, "b": "${a}"}), resolve=True)
    Plugins.instance()
    gc.collect()
    gc.freeze()  # What the children share stays shared, and their garbage collector does not look at it.


def become(words: list[str], folder: str, environment: dict[str, str], outputs: list[str]) -> NoReturn:
    """Turn this forked child into `python WORDS`."""
    for descriptor, path in enumerate([os.devnull, *outputs]):
        os.dup2(os.open(path, os.O_RDWR), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    first = str(Path(words[0]).parent) if words[0].endswith(".py") else folder
    given = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [first, *filter(None, given)]
    forget(READ_AGAIN if str(ROOT) in given else our_modules())
    sys.argv = words if words[0].endswith(".py") else words[1:]
    code = 0
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            exec(words[1], {"__name__": "__main__"})
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = exit_code(end)
    except BaseException:
        traceback.print_exc()
        code = 1
    finish(code)


def our_modules() -> set[str]:
    """The names of our modules and packages."""
    return {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("[!.]*/*.py")}


def forget(names: set[str]) -> None:
    """Let these modules and what lies in them be imported again."""
    for name in list(sys.modules):
        if name.split(".")[0] in names:
            del sys.modules[name]


def exit_code(end: SystemExit) -> int:
    """The exit code that Python makes of sys.exit(...). A sentence is printed."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    print(end.code, file=sys.stderr)
    return 1


def finish(code: int) -> NoReturn:
    """End as Python does, without taking apart every module, which would take half a second."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def serve() -> None:
    """Answer each line of stdin, which is a request in JSON, with a number.

    {"begin": ...}: the process id of a new child. {"wait": process id}: its exit code, once it has ended.
    {"poll": process id}: the same, or nothing while it runs.
    """
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in requests:
        ((kind, given),) = json.loads(line).items()
        if kind == "begin":
            answer = os.fork()
            if answer == 0:
                become(**given)
        else:
            ended, status = os.waitpid(given, 0 if kind == "wait" else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else ""
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder
    {"commands": prepare, "hydra": prepare_hydra}[sys.argv[1]]()
    del sys.path[0]
    serve()
