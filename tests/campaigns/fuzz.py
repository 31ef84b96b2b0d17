"""Random command lines, right and wrong, run for real: `python tests/campaigns/fuzz.py 2000`.

A right line must end with 0; a wrong one with 0, or with 1 and one line on stderr; none with a temporary file. Every
line runs in a forked child of this process, which has imported everything, and in an empty folder. Ctrl-C ends it with
what it has counted so far.
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
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

import compare  # noqa: E402, F401  (what the children need is imported once)
import evaluate  # noqa: E402, F401
import inference  # noqa: E402, F401
import main  # noqa: E402, F401
import rerun_viz  # noqa: E402, F401
import train  # noqa: E402, F401
from runtime.progress import progress_bar  # noqa: E402
from tests.campaigns.random_lines import SHARES, Line, line  # noqa: E402
from tests.warm import prepare as prepare_packages  # noqa: E402

CPU_SECONDS = 200  # for one line, however busy the machine is
SECONDS = 3600  # for a line that waits for something and does not compute


class Result(NamedTuple):
    code: int
    stderr: str
    left: list[str]  # temporary files
    seconds: float


def run(words: list[str]) -> Result:
    """One line in a forked child, in an empty folder that is removed."""
    began, here = time.monotonic(), tempfile.mkdtemp(prefix="fuzz-")
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed where this function ends)
    sys.stdout.flush()
    if not (process := os.fork()):
        child(words, here, output.fileno())
    code = None
    while code is None and time.monotonic() - began < SECONDS:
        done, status = os.waitpid(process, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if done else None
        time.sleep(0.005)
    if code is None:
        os.kill(process, 9)
        os.waitpid(process, 0)
        code = 124
    left = [str(p) for p in Path(here).rglob(".*") if p.is_file()]
    shutil.rmtree(here, ignore_errors=True)
    output.seek(0)
    return Result(code, output.read(), left, time.monotonic() - began)


def child(words: list[str], folder: str, stderr: int) -> NoReturn:
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(stderr, 2)
        script = ROOT / f"{words[0]}.py"
        sys.argv = [str(script), *words[1:]]
        sys.path.insert(0, str(script.parent))
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:  # as Python itself ends
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


def fault(line: Line, result: Result) -> str | None:
    """What is wrong with how a line ended; None for nothing."""
    lines = result.stderr.strip().splitlines()
    if result.left:
        return f"temporary files: {result.left}"
    if result.code == 0:
        return f"says on stderr {lines}" if lines else None
    if line.right:
        return f"is right and ended with {result.code}: {lines[-1:]}"
    return None if result.code == 1 and len(lines) == 1 else f"ended with {result.code}: {lines[-3:]}"


def prepare(folder: Path) -> None:
    """Files of points, a picture and three trained models."""
    x = np.random.default_rng(0).normal(size=(300, 2))
    np.save(folder / "points.npy", x)
    np.save(folder / "wide.npy", np.random.default_rng(0).normal(size=(300, 5)))
    np.save(folder / "far.npy", np.c_[x + 1e8, np.full(300, 0.1)])
    np.savetxt(folder / "points.csv", x, delimiter=",")
    kinds = np.array(["up", "down"])[(x[:, 0] > 0).astype(int)]
    rows = "\n".join(f"{a},{b},{kind}" for (a, b), kind in zip(x, kinds))
    (folder / "labelled.csv").write_text(f"a,b,kind\n{rows}\n")
    ring = np.abs(np.hypot(*np.mgrid[-1:1:24j, -1:1:24j]) - 0.7) > 0.15
    Image.fromarray((255 * ring).astype(np.uint8)).save(folder / "ring.png")
    small = ["eval_samples=0", "max_steps=3", "num_samples=200", "num_timesteps=20", "early_ema=0.5"]
    images = ["dataset=digits", "model=unet_small", "model.channels=[8,8]", "model.heads=2"]
    for name, words in {"points": [], "labels": ["conditional=true"], "images": images}.items():
        done = run(["train", *small, *words, f"task_name={folder / name}"])
        if done.code:
            raise ValueError(f"no training to begin with: {done.stderr}")


def campaign(count: int, seed: int, seconds: float = float("inf")) -> tuple[dict[str, int], list[str]]:
    """Counts of lines, and the faults found, in at most `seconds`."""
    torch.set_num_threads(1)
    os.environ.pop("DISPLAY", None)
    os.environ["MPLBACKEND"] = "agg"
    prepare_packages()
    r, began, faults = random.Random(seed), time.monotonic(), []
    counts = dict.fromkeys(["lines", "right", "ended with 0", "ended with 1", *SHARES], 0)
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        prepare(Path(folder))
        for _ in progress_bar(range(count), "lines"):
            asked = line(r, Path(folder))
            result = run(asked.words)
            for key in ("lines", asked.words[0], *["right"] * asked.right, f"ended with {result.code}"):
                counts[key] = counts.get(key, 0) + 1
            if problem := fault(asked, result):
                faults.append(f"{asked.words} {problem}")
                print(faults[-1], flush=True)
            if time.monotonic() - began > seconds:
                break
    return counts, faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Random command lines.")
    parser.add_argument("count", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=7200)
    given = parser.parse_args()
    counted, found = campaign(given.count, given.seed, given.seconds)
    print(counted, f"{len(found)} faults")
    sys.exit(bool(found))
