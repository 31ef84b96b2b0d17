"""How much faster one training runs in several processes: the tables of docs/scaling.md, measured and on paper.

`python benchmarks/scaling.py` needs as many quiet cores as processes: beside other work its figures mean nothing. Each
process has one thread; the first line of each training is plain `python train.py`. Of two runs the quicker counts.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TRAININGS = {  # name: options, optimizer steps
    "digits, batches of 32": ("dataset=digits model=unet_small", 400),
    "digits, batches of 256": ("dataset=digits model=unet_small batch_size=256", 80),
    "moons, batches of 1024": ("dataset=moons batch_size=1024", 1500),
}
ALONE, SEVERAL = [sys.executable], [sys.executable, "-m", "torch.distributed.run", "--standalone"]


class Measured(NamedTuple):
    """Of the first process: seconds of an optimizer step, and of its CPU; and how many parameters the network has."""

    seconds: float
    cpu_seconds: float
    parameters: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="default: 1 2 4")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, of which the quickest counts; default: 2")
    parser.add_argument("--paper", action="store_true", help="only the table of what 8 to 4096 GPUs would do")
    o = parser.parse_args()
    print(f"{os.cpu_count()} cores; load before the start: {os.getloadavg()[0]:.1f}, which should be near 0\n")
    if not o.paper:
        print("| training | processes | step | speed-up | sent by each | waiting |\n|---|---|---|---|---|---|")
        for name, (options, steps) in TRAININGS.items():
            alone = None
            for p in o.processes:
                found = min(measured(p, options, steps) for _ in range(o.repeats))
                alone = alone or found.seconds
                print(row(name, p, found, alone), flush=True)
        print()
    print(on_paper())


def measured(processes: int, options: str, steps: int) -> Measured:
    """One training, its evaluation left out."""
    launch = ALONE if processes == 1 else [*SEVERAL, f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        words = [*options.split(), f"max_steps={steps}", "threads=1", "eval_samples=0", f"task_name={folder}/run"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [*launch, str(ROOT / "train.py"), *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        figures = json.loads(Path(folder, "run", "metrics.json").read_text())
    parameters = re.search(r"([\d,]+) parameters", done.stdout)
    assert parameters
    count = int(parameters[1].replace(",", ""))
    return Measured(figures["seconds"] / steps, figures["cpu_seconds"] / steps, count)


def row(name: str, p: int, found: Measured, alone: float) -> str:
    sent, waiting = sent_by_each(found.parameters, p), max(0.0, 1 - found.cpu_seconds / found.seconds)
    step = f"{1e3 * found.seconds:.1f} ms | {alone / found.seconds:.2f}"
    return f"| {name} | {p} | {step} | {sent / 1e6:.2f} MB | {waiting:.0%} |"


def sent_by_each(parameters: int, processes: int, shards: int | None = None) -> float:
    """Bytes of a step that each process sends (see distributed.sum_over_processes); by default a shard for each."""
    k = (shards or processes) // processes
    return 4 * (k + 1) * parameters * (processes - 1) / processes


# ---------------------------------------------------------------- on paper

# Assumed, not measured: a network of 10^8 parameters, batches of 4096 images, GPUs like an H100 with 8 to a machine.
PARAMETERS, ROWS = 1e8, 4096
PER_ROW, IN_FULL = 1e-3, 3e-3  # s: forward and backward of an image; optimizer, averages and launches, done by each
BANDWIDTH = {8: 3e11, 4096: 4e10}  # bytes/s of each GPU, up to so many: within a machine, and between machines
MESSAGE = 3e-6  # s: what each of the p - 1 messages of an exchange costs beside its bytes


def on_paper() -> str:
    lines = [
        "| GPUs | compute | in full | bytes | messages | step | speed-up | efficiency |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for p in (1, 8, 64, 512, 4096):
        bandwidth = next(speed for most, speed in BANDWIDTH.items() if p <= most)
        parts = [PER_ROW * ROWS / p, IN_FULL, sent_by_each(int(PARAMETERS), p) / bandwidth, 2 * (p - 1) * MESSAGE]
        step, alone = sum(parts), PER_ROW * ROWS + IN_FULL
        cells = " | ".join(f"{1e3 * part:.1f} ms" for part in (*parts, step))
        lines.append(f"| {p} | {cells} | {alone / step:.0f} | {alone / step / p:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
