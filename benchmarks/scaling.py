"""How much faster a training runs in several processes: the tables of docs/scaling.md.

Run as `python -m benchmarks.scaling` in the root of the repository. It needs as many idle cores as
processes; beside other work its figures mean nothing. Each process has one thread. The first row of
each training is plain `python train.py`. Of two runs the faster one counts.
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
TRAININGS = {  # name: options and optimizer steps
    "digits, batches of 32": ("dataset=digits model=unet_small", 400),
    "digits, batches of 256": ("dataset=digits model=unet_small batch_size=256", 80),
    "moons, batches of 1024": ("dataset=moons batch_size=1024", 1500),
}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")
BYTES_PER_FLOAT = 4


class Measured(NamedTuple):
    """The first process of a training.

    seconds, cpu_seconds: of an optimizer step.
    parameters: their number in the network.
    """

    seconds: float
    cpu_seconds: float
    parameters: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        default=[1, 2, 4],
        help="numbers of processes; default: 1 2 4",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=2,
        help="runs of each training, of which the fastest counts; default: %(default)s",
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="print only the computed table, for 8 to 4096 GPUs",
    )
    args = parser.parse_args()

    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores; load before the start: {load:.1f}, which should be near 0\n")
    if not args.paper:
        print_measured_table(args.processes, args.repeats)
        print()
    print(computed_table())


# ---------------------------------------------------------------- measured


def print_measured_table(processes: list[int], repeats: int) -> None:
    print("| training | processes | step | speed-up | sent by each | waiting |")
    print("|---|---|---|---|---|---|")
    for name, (options, steps) in TRAININGS.items():
        first_seconds = None
        for count in processes:
            fastest = min(measured(count, options, steps) for _ in range(repeats))
            first_seconds = first_seconds or fastest.seconds
            print(row(name, count, fastest, first_seconds), flush=True)


def measured(processes: int, options: str, steps: int) -> Measured:
    """One training without its evaluation."""
    launch = [sys.executable]
    if processes > 1:
        launch += [*TORCHRUN, f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        run_folder = Path(folder, "run")
        words = [
            *options.split(),
            f"max_steps={steps}",
            "threads=1",
            "eval_samples=0",
            f"task_name={run_folder}",
        ]
        done = subprocess.run(
            [*launch, str(ROOT / "train.py"), *words],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr)
        results = json.loads((run_folder / "metrics.json").read_text())

    parameters = re.search(r"([\d,]+) parameters", done.stdout)
    assert parameters
    count = int(parameters[1].replace(",", ""))
    return Measured(results["seconds"] / steps, results["cpu_seconds"] / steps, count)


def row(name: str, processes: int, found: Measured, seconds_alone: float) -> str:
    milliseconds = 1e3 * found.seconds
    speed_up = seconds_alone / found.seconds
    megabytes = bytes_sent_by_each(found.parameters, processes) / 1e6
    waiting = max(0.0, 1 - found.cpu_seconds / found.seconds)
    return f"| {name} | {processes} | {milliseconds:.1f} ms | {speed_up:.2f} | {megabytes:.2f} MB | {waiting:.0%} |"


def bytes_sent_by_each(parameters: int, processes: int) -> float:
    """Bytes that each process sends in a step with one shard for each process.

    See runtime.distributed.sum_over_processes.
    """
    return BYTES_PER_FLOAT * 2 * parameters * (processes - 1) / processes


# ---------------------------------------------------------------- computed

# Assumed, not measured: a network of 10^8 parameters, batches of 4096 images, GPUs like an H100,
# and 8 GPUs in a machine.
PARAMETERS = 10**8
BATCH_SIZE = 4096
SECONDS_PER_IMAGE = 1e-3  # forward and backward pass
SECONDS_IN_FULL = 3e-3  # optimizer, averages and launches, which every process does itself
GPU_COUNTS = (1, 8, 64, 512, 4096)
# Bytes per second of each GPU, for at most so many GPUs: inside a machine and between machines.
BANDWIDTHS = {8: 3e11, 4096: 4e10}
SECONDS_PER_MESSAGE = 3e-6  # of each of the messages of an exchange, beside its bytes


def computed_table() -> str:
    lines = [
        "| GPUs | compute | in full | bytes | messages | step | speed-up | efficiency |",
        "|---|---|---|---|---|---|---|---|",
    ]
    seconds_alone = SECONDS_PER_IMAGE * BATCH_SIZE + SECONDS_IN_FULL
    for gpus in GPU_COUNTS:
        bandwidth = next(speed for most, speed in BANDWIDTHS.items() if gpus <= most)
        parts = [
            SECONDS_PER_IMAGE * BATCH_SIZE / gpus,
            SECONDS_IN_FULL,
            bytes_sent_by_each(PARAMETERS, gpus) / bandwidth,
            2 * (gpus - 1) * SECONDS_PER_MESSAGE,
        ]
        step = sum(parts)
        cells = " | ".join(f"{1e3 * seconds:.1f} ms" for seconds in (*parts, step))
        speed_up = seconds_alone / step
        lines.append(f"| {gpus} | {cells} | {speed_up:.0f} | {speed_up / gpus:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
