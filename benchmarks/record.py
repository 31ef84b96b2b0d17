"""Our line of docs/records.md, run again: seconds of one core to indistinguishable points, over several seeds.

`python benchmarks/record.py --seeds 20`; for another set
`python benchmarks/record.py --seeds 5 dataset=spirals`. Beside the
seconds stands their ratio to a yardstick measured in the same minute: 10 000 products of (1024, 112) and (112, 112).
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

import torch

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="seeds 0 .. seeds - 1 (default: 20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    arguments, options = parser.parse_known_args()
    runs = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        runs.append(run(seed, options))
        print(line(seed, runs[-1]), flush=True)
    passed, seconds = sum(not r["failed"] for r in runs), [r["cpu_seconds"] for r in runs]
    ratios, excess = [r["ratio"] for r in runs], [r["excess"] for r in runs]
    print(
        f"{passed} of {len(runs)} seeds indistinguishable; medians: {median_high(seconds):.1f} s of CPU,"
        f" {median_high(ratios):.2f} yardsticks, {median_high(excess):.3%} above the Bayes floor"
    )


def run(seed: int, options: list[str]) -> dict:
    """One training in a process of its own: its CPU seconds, their ratio to the yardstick, what failed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", *options, f"seed={seed}", f"task_name={folder}/run"]
        before = yardstick()
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(Path(folder, "run", "metrics.json").read_text())
    metrics, seconds = found["figures"], found["cpu_seconds"]
    error = metrics.get("error of epsilon")
    return {
        "cpu_seconds": seconds,
        "ratio": seconds / ((before + yardstick()) / 2),
        "failed": [name for name, row in metrics.items() if not row["passed"]],
        "excess": error["value"] / error["floor"] - 1 if error else float("nan"),
    }


def yardstick() -> float:
    """Seconds of CPU that 10 000 products of (1024, 112) and (112, 112) would take, from 1 000 of them."""
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 112), torch.randn(112, 112)
    begin = time.process_time()
    for _ in range(1000):
        torch.mm(a, b)
    return 10 * (time.process_time() - begin)


def line(seed: int, r: dict) -> str:
    verdict = f"distinguishable by {', '.join(r['failed'])}" if r["failed"] else "indistinguishable"
    return (
        f"seed {seed:2d}  {r['cpu_seconds']:5.1f} s of CPU  {r['ratio']:5.2f} yardsticks  {r['excess']:.3%}  {verdict}"
    )


if __name__ == "__main__":
    main()
