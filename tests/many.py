"""What each process that tests/test_processes.py starts does: `many.py trainings` or `many.py dies STEP ...`.

The trainings are real ones; where one has to end in the middle, the process really gets the signal, at a step that is
known, so that no test hangs on how fast the machine is.
"""

import json
import os
import runpy
import signal
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

import train
from conf.config import Train
from conf.groups import MLP, Digits, Moons, UNetSmall
from runtime import distributed
from training import shards

ROOT = Path(__file__).resolve().parent.parent
SHARDS = 4
# The last batch of an epoch, of 10 rows, is cut unevenly; parts of 20 rows reach over two batches of 24 references.
POINTS = Train(dataset=Moons(), model=MLP(hidden=8, layers=2, frequencies=2), num_samples=170, batch_size=80,
               references=24, num_timesteps=20, warmup_steps=2, max_steps=12, checkpoint_every=5, shards=SHARDS,
               conditional=True, eval_samples=2600)  # fmt: skip
DIGITS = Train(dataset=Digits(), model=UNetSmall(channels=[8, 8], heads=2), num_samples=60, batch_size=16,
               references=0, schedule="cosine", num_timesteps=20, loss_weight="target", max_steps=10, shards=SHARDS,
               conditional=True, threads=1, t_power=1.0, checkpoint_every=4, eval_samples=0)  # fmt: skip
STOPPED = Train(dataset=Moons(), model=MLP(hidden=8, layers=1), num_samples=64, batch_size=16, max_steps=10_000,
                references=0, shards=SHARDS, eval_samples=0)  # fmt: skip
SIGNALLED_IN = 7
LOOK = 6  # steps of the look before a training, which adds up gradients as well


def pipeline(options, folder):
    """A training in `folder`; the code with which it ends its process."""
    Path(folder).mkdir(exist_ok=True)
    try:
        train.begin_or_resume(options, Path(folder), set())
    except SystemExit as end:
        return end.code
    return None


@contextmanager
def signalled(number, at, rank=1):
    """The process of that rank gets a signal while it adds up gradients for the `at`-th time."""
    real, count = distributed.sum_over_processes, 0

    def sum_over_processes(own):
        nonlocal count
        count += 1
        if count == at and distributed.rank() == rank:
            os.kill(os.getpid(), number)
        return real(own)

    distributed.sum_over_processes = sum_over_processes
    yield
    distributed.sum_over_processes = real


def sums_are_in_order():
    """sum_over_processes against all vectors one after the other, of lengths that divide and that do not."""
    p, rank, g, right = distributed.world_size(), distributed.rank(), torch.Generator().manual_seed(0), []
    for n in (1, 7, 1000):
        for k in (1, 3):
            vectors = torch.randn(p * k, n, generator=g) * 10 ** (8 * torch.rand(p * k, 1, generator=g))
            found = distributed.sum_over_processes(vectors[rank * k : (rank + 1) * k].clone())
            right.append(torch.equal(found, distributed.sum_in_order(vectors)))
    return all(right)


def refusal(work):
    try:
        work()
    except ValueError as error:
        return str(error)
    return None


def trainings():
    with distributed.process_group("cpu"):
        found = {
            "in order": sums_are_in_order(),
            "of the first": distributed.from_first(lambda: f"process {distributed.rank()}"),
            "same": refusal(lambda: distributed.check_same({"lr": 1, "data": "x"}, distributed.OTHER_OPTIONS)),
            "other": refusal(
                lambda: distributed.check_same({"a": 0, "lr": distributed.rank()}, distributed.OTHER_OPTIONS)
            ),
            "uneven": refusal(lambda: shards.check(9, 81)),
            "points": pipeline(POINTS, "points"),
            "digits": pipeline(DIGITS, "digits"),
        }
        with signalled(signal.SIGTERM, LOOK + SIGNALLED_IN):
            found["stopped"] = pipeline(STOPPED, "stopped")
        Path(f"{distributed.rank()}.json").write_text(json.dumps(found))


def dies(step, *arguments):
    """`train.py` as it is started by torchrun, in which process 1 is killed in its so-many-th step."""
    with signalled(signal.SIGKILL, LOOK + int(step)):
        sys.argv = [str(ROOT / "train.py"), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")


def fails():
    """Process 1 raises an error that the others do not have."""
    with distributed.process_group("cpu"):
        if distributed.rank() == 1:
            raise ValueError("the data of this process cannot be read")
        distributed.check_same({"lr": 1}, distributed.OTHER_OPTIONS)


def siblings(count):
    """`trainings` in so many forks of this process, with the environment that torchrun gives to each."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in "0123456789"[: int(count)]:
        if not (child := os.fork()):
            os.environ.update({**shared, "RANK": rank, "LOCAL_RANK": rank})
            return trainings()
        children.append(child)
    failed = [os.waitpid(child, 0)[1] for child in children]
    return sys.exit(any(failed))


if __name__ == "__main__":
    {"trainings": trainings, "dies": dies, "fails": fails, "siblings": siblings}[sys.argv[1]](*sys.argv[2:])
