"""Measure our line of docs/records.md again: seconds of one core to indistinguishable points.

Run as `python -m benchmarks.record --seeds 20` in the root of the repository, and for another set
as `python -m benchmarks.record --seeds 5 dataset=spirals`. Beside the seconds stands their ratio to
a yardstick measured in the same minute: 10 000 products of matrices (1024, 112) and (112, 112).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median_high
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parent.parent
YARDSTICK_PRODUCTS = 10_000
MEASURED_PRODUCTS = 1000  # of which the yardstick is extrapolated


class Result(NamedTuple):
    """One training and its evaluation.

    cpu_seconds: of the training.
    ratio: of the seconds to the yardstick.
    failed: names of the failed tests.
    excess: error of epsilon above its Bayes floor, relative to the floor; NaN where it is unknown.
    """

    cpu_seconds: float
    ratio: float
    failed: list[str]
    excess: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="number of seeds; default: 20")
    parser.add_argument("--first", type=int, default=0, help="the first seed; default: 0")
    args, options = parser.parse_known_args()

    results = []
    for seed in range(args.first, args.first + args.seeds):
        result = run(seed, options)
        results.append(result)
        print(line(seed, result), flush=True)

    passed = sum(not result.failed for result in results)
    seconds = median_high(result.cpu_seconds for result in results)
    ratio = median_high(result.ratio for result in results)
    excess = median_high(result.excess for result in results)
    print(
        f"{passed} of {len(results)} seeds indistinguishable; medians: {seconds:.1f} s of CPU,"
        f" {ratio:.2f} yardsticks, {excess:.3%} above the Bayes floor"
    )


def run(seed: int, options: list[str]) -> Result:
    """One training with its evaluation, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run_folder = Path(folder, "run")
        before = yardstick()
        done = run_script("train.py", *options, f"seed={seed}", f"task_name={run_folder}")
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads((run_folder / "metrics.json").read_text())
    after = yardstick()

    figures = found["figures"]
    error = figures.get("error of epsilon")
    return Result(
        cpu_seconds=found["cpu_seconds"],
        ratio=found["cpu_seconds"] / ((before + after) / 2),
        failed=[name for name, row in figures.items() if not row["passed"]],
        excess=error["value"] / error["floor"] - 1 if error else float("nan"),
    )


def run_script(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of our commands with one thread to its end, and return what it said."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def yardstick() -> float:
    """Seconds of CPU for 10 000 products of (1024, 112) and (112, 112), from 1 000 of them."""
    torch.set_num_threads(1)
    a = torch.randn(1024, 112)
    b = torch.randn(112, 112)
    begin = time.process_time()
    for _ in range(MEASURED_PRODUCTS):
        torch.mm(a, b)
    seconds = time.process_time() - begin
    return seconds * YARDSTICK_PRODUCTS / MEASURED_PRODUCTS


def line(seed: int, result: Result) -> str:
    verdict = "indistinguishable"
    if result.failed:
        verdict = f"distinguishable by {', '.join(result.failed)}"
    return (
        f"seed {seed:2d}  {result.cpu_seconds:5.1f} s of CPU  {result.ratio:5.2f} yardsticks"
        f"  {result.excess:.3%}  {verdict}"
    )


if __name__ == "__main__":
    main()
