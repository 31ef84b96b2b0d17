"""Random command lines, right and wrong, run for real: `python -m tests.campaigns.fuzz 2000`.

A right line must end with 0. A wrong line must end with 0, or with 1 and one line on stderr. No
line may leave a temporary file. Every line runs in a forked child of this process, which has
imported everything, and in an empty folder. Ctrl-C ends the campaign with the counts so far.
"""

import argparse
import os
import random
import resource
import runpy
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from PIL import Image

import compare  # noqa: F401  (imported once for all children)
import evaluate  # noqa: F401
import inference  # noqa: F401
import main  # noqa: F401
import rerun_viz  # noqa: F401
import train  # noqa: F401
from runtime.progress import progress_bar
from tests.campaigns.random_lines import SHARES, Line, random_line
from tests.warm import prepare as prepare_packages

ROOT = Path(__file__).resolve().parents[2]
MAX_CPU_SECONDS = 200  # for one line, however busy the machine is
MAX_SECONDS = 3600  # for a line that waits for something and does not compute
TIMED_OUT = 124  # exit code
POLL_SECONDS = 0.005


class Result(NamedTuple):
    code: int
    stderr: str
    left: list[str]  # temporary files
    seconds: float


def run(words: Sequence[str]) -> Result:
    """Run one line in a forked child, in an empty folder that is removed afterwards."""
    began = time.monotonic()
    folder = tempfile.mkdtemp(prefix="fuzz-")
    with tempfile.TemporaryFile("w+") as stderr:
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            child(words, folder, stderr.fileno())
        code = _exit_code(process, began)
        left = [str(path) for path in Path(folder).rglob(".*") if path.is_file()]
        shutil.rmtree(folder, ignore_errors=True)
        stderr.seek(0)
        return Result(code, stderr.read(), left, time.monotonic() - began)


def _exit_code(process: int, began: float) -> int:
    """Wait for a child; one that takes too long is killed."""
    while time.monotonic() - began < MAX_SECONDS:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_SECONDS)
    os.kill(process, 9)
    os.waitpid(process, 0)
    return TIMED_OUT


def child(words: Sequence[str], folder: str, stderr: int) -> NoReturn:
    """Turn this forked process into `python NAME.py OPTIONS`, for words NAME and OPTIONS."""
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(stderr, 2)
        script = ROOT / f"{words[0]}.py"
        sys.argv = [str(script), *words[1:]]
        sys.path.insert(0, str(script.parent))
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:  # what follows is what Python itself does
        code = int(bool(end.code))
        if isinstance(end.code, int):
            code = end.code
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


def fault(line: Line, result: Result) -> str | None:
    """What is wrong with how a line ended; None if nothing is."""
    lines = result.stderr.strip().splitlines()
    if result.left:
        return f"temporary files: {result.left}"
    if result.code == 0:
        return f"says on stderr {lines}" if lines else None
    if line.right:
        return f"is right and ended with {result.code}: {lines[-1:]}"
    if result.code == 1 and len(lines) == 1:
        return None
    return f"ended with {result.code}: {lines[-3:]}"


def prepare(folder: Path) -> None:
    """Make files of points, a picture and three trained models.

    Raises:
        ValueError: a training failed.
    """
    x = np.random.default_rng(0).normal(size=(300, 2))
    np.save(folder / "points.npy", x)
    np.save(folder / "wide.npy", np.random.default_rng(0).normal(size=(300, 5)))
    np.save(folder / "far.npy", np.c_[x + 1e8, np.full(300, 0.1)])
    np.savetxt(folder / "points.csv", x, delimiter=",")

    kinds = np.array(["up", "down"])[(x[:, 0] > 0).astype(int)]
    rows = "\n".join(f"{a},{b},{kind}" for (a, b), kind in zip(x, kinds))
    (folder / "labelled.csv").write_text(f"a,b,kind\n{rows}\n")

    radius = np.hypot(*np.mgrid[-1:1:24j, -1:1:24j])
    paper = np.abs(radius - 0.7) > 0.15  # a dark ring on white
    Image.fromarray((255 * paper).astype(np.uint8)).save(folder / "ring.png")

    small = [
        *("eval_samples=0", "max_steps=3", "num_samples=200", "num_timesteps=20"),
        "early_ema=0.5",
    ]
    models = {
        "points": [],
        "labels": ["conditional=true"],
        "images": [
            *("dataset=digits", "model=unet_small", "model.channels=[8,8]", "model.heads=2"),
        ],
    }
    for name, words in models.items():
        done = run(["train", *small, *words, f"task_name={folder / name}"])
        if done.code:
            raise ValueError(f"no training to begin with: {done.stderr}")


def campaign(
    count: int,
    seed: int,
    max_seconds: float = float("inf"),
) -> tuple[dict[str, int], list[str]]:
    """Run random lines for at most `max_seconds`; returns counts of lines, and the faults."""
    torch.set_num_threads(1)
    os.environ.pop("DISPLAY", None)
    os.environ["MPLBACKEND"] = "agg"
    prepare_packages()

    r = random.Random(seed)
    began = time.monotonic()
    faults = []
    counts = dict.fromkeys(["lines", "right", "ended with 0", "ended with 1", *SHARES], 0)
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        prepare(Path(folder))
        for _ in progress_bar(range(count), "lines"):
            line = random_line(r, Path(folder))
            result = run(line.words)
            keys = ["lines", line.words[0], f"ended with {result.code}"]
            if line.right:
                keys.append("right")
            for key in keys:
                counts[key] = counts.get(key, 0) + 1
            problem = fault(line, result)
            if problem:
                faults.append(f"{line.words} {problem}")
                print(faults[-1], flush=True)
            if time.monotonic() - began > max_seconds:
                break
    return counts, faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Random command lines.")
    parser.add_argument("count", type=int, nargs="?", default=2000, help="number of lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=7200, help="longest time")
    args = parser.parse_args()
    counted, found = campaign(args.count, args.seed, args.seconds)
    print(counted, f"{len(found)} faults")
    sys.exit(bool(found))
