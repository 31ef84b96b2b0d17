"""One training in several processes, which torchrun starts: who this is, and what all do together.

In a single process these functions return at once. In several, all processes must call the same
functions in the same order: a process that calls one waits for the others to call it, too.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store
from torch.distributed.rendezvous import rendezvous

Made = TypeVar("Made")

# The others wait while the first process saves. A process that has died is noticed at once.
TIMEOUT = timedelta(days=1)

ENDED = "another process of this training has ended, so none can go on; resume= goes on from its last checkpoint"
OTHER_OPTIONS = "process {number} has {name}={theirs}, the first {name}={first}: start all with the same options"
OTHER_DATA = "the data of process {number} are not those of the first: give all the same files"


def world_size() -> int:
    """The number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes, prints and draws."""
    return rank() == 0


def restart_count() -> int:
    """How often `torchrun --max-restarts` has started these processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


# ---------------------------------------------------------------- the group of processes


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Run the body in all processes that torchrun has started; in a single process just run it.

    Only the first process prints. Where something goes wrong, one process reports it and all of
    them end with an exit code above 0.

    Raises:
        ValueError: the processes cannot share `device`.
        OSError: the processes cannot reach each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return

    _initialise(device)
    signal.signal(signal.SIGTERM, _exit_on_signal)  # sent by torchrun where one has failed
    with _first_process() if is_first() else _other_process():
        yield


@contextmanager
def _first_process() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if _claim_report():
            raise  # the command prints it in one sentence
        raise SystemExit(1) from error
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the callers may have to remove a run folder
        dist.destroy_process_group()


@contextmanager
def _other_process() -> Iterator[None]:
    """Run the body without output, then end the process."""
    code = 1
    try:
        with open(os.devnull, "w") as silence, redirect_stdout(silence), redirect_stderr(silence):
            yield
        code = 0
    except SystemExit as end:
        code = end.code
    except Exception as error:
        if _claim_report():
            sentence = " ".join(str(error).split())
            print(f"process {rank()}: {sentence}", file=sys.stderr)
    finally:
        dist.destroy_process_group()
        sys.stderr.flush()
        # Python's own exit aborted in 3 of 18 starts, because a thread of gloo was still running.
        os._exit(code if isinstance(code, int) else 1)


def _claim_report() -> bool:
    """Whether this process reports an error: True in the process that asks first.

    A counter in torchrun's store decides. The `record` of torch.distributed.elastic would print a
    traceback of every process, and each of them twice.
    """
    # Where another process has ended, torchrun sends SIGTERM, which must not interrupt the report.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        return _torchrun_store().add(f"reports of start {restart_count()}", 1) == 1
    except RuntimeError:  # the process that held the store has ended
        return True


def _initialise(device: str) -> None:
    backend = _choose_backend(device)
    try:
        store, number, count = next(rendezvous("env://", timeout=TIMEOUT))
        # After a restart the store still holds the addresses of the processes that have died.
        store = PrefixStore(f"start {restart_count()}", store)
        dist.init_process_group(
            backend,
            store=store,
            rank=number,
            world_size=count,
            timeout=TIMEOUT,
        )
    except RuntimeError as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error)
        if "EADDRINUSE" in reason:
            reason = "that port is in use; torchrun --standalone finds a free one"
        raise OSError(f"the processes cannot meet at {address}: {reason}") from error


def _choose_backend(device: str) -> str:
    """gloo on CPUs; on GPUs, of which each process takes its own, NCCL as well."""
    if device == "cpu" or not torch.cuda.is_available():
        return "gloo"
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    num_gpus = torch.cuda.device_count()
    if ":" in device or local_rank >= num_gpus:
        raise ValueError(
            f"each process takes a GPU of its own: start at most {num_gpus} on this machine,"
            " with device=cuda, or take device=cpu"
        )
    torch.cuda.set_device(local_rank)
    return "cpu:gloo,cuda:nccl"


def _exit_on_signal(number: int, frame: object) -> NoReturn:
    """The handler of SIGTERM outside the training loop, in which training.signals has its own."""
    raise SystemExit(128 + number)


def end_other_processes() -> None:
    """End every process but the first, whose work is not needed any more."""
    if not is_first():
        raise SystemExit(0)


def _torchrun_store() -> Store:
    """The key-value store of torchrun, which outlives a restart of the processes."""
    store = _get_default_store()
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    return store


@contextmanager
def _noticing_lost_processes() -> Iterator[None]:
    """Raises ConnectionError where a process has died that the others are waiting for."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(ENDED) from error


# ---------------------------------------------------------------- agreement


def from_first(make: Callable[[], Made]) -> Made:
    """Call `make` in the first process, and return its result in all of them."""
    found = [make() if is_first() else None]
    if world_size() > 1:
        with _noticing_lost_processes():
            dist.broadcast_object_list(found)
    return found[0]  # pyright: ignore[reportReturnType] (the first process has filled it)


def largest(number: int) -> int:
    """The largest of the numbers that the processes give."""
    if world_size() == 1:
        return number
    found = torch.tensor(number)
    with _noticing_lost_processes():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def check_same(values: Mapping[str, object], sentence: str) -> None:
    """Compare the values of all processes.

    Args:
        sentence: the error; it may contain {number}, {name}, {theirs} and {first}.

    Raises:
        ValueError: the values differ. All processes raise it.
    """
    if world_size() == 1:
        return
    found: list[Mapping[str, object]] = [{}] * world_size()
    with _noticing_lost_processes():
        dist.all_gather_object(found, values)
    for number, theirs in enumerate(found):
        for name, first in found[0].items():
            their_value = theirs.get(name)
            if their_value != first:
                words = {"number": number, "name": name, "theirs": their_value, "first": first}
                raise ValueError(sentence.format(**words))


def agreed_run_folder(own: Path) -> Path:
    """The run folder of the first process; after a restart by torchrun, that of the first start.

    Raises:
        OSError: the processes were restarted before they had a run folder.
    """
    if world_size() == 1:
        return own
    return from_first(lambda: _folder_of_first_start(own))


def _folder_of_first_start(own: Path) -> Path:
    store = _torchrun_store()
    key = "run folder"
    if restart_count() == 0:
        store.set(key, str(own))
        return own
    if not store.check([key]):
        raise OSError("the processes ended before their training began: start it again")
    return Path(store.get(key).decode())


# ---------------------------------------------------------------- sums


def sum_over_processes(own: Tensor) -> Tensor:
    """The sum of all vectors of all processes, (k, n) -> (n,): first those of the first process.

    The order of the additions does not depend on which process holds a vector. The sum therefore
    has the same bits for every number p of processes. Each process adds up 1 / p of the n entries,
    and sends (k + 1) n (p - 1) / p numbers. For k = 1 these are as many as in a ring, which keeps
    no order (Patarasuk and Yuan 2009).
    """
    p = world_size()
    if p == 1:
        return sum_in_order(own)

    k, n = own.shape
    width = -(-n // p)  # entries that a process adds up, rounded up
    padded = torch.nn.functional.pad(own, (0, p * width - n))
    outgoing = padded.view(k, p, width).transpose(0, 1).contiguous()
    incoming = torch.empty_like(outgoing)
    total = own.new_empty(p * width)
    with _noticing_lost_processes():
        dist.all_to_all_single(incoming, outgoing)
        dist.all_gather_single(total, sum_in_order(incoming.view(p * k, width)))
    return total[:n]


def sum_in_order(vectors: Tensor) -> Tensor:
    """The sum of vectors (k, n), added one after the other: the order in torch.sum depends on n."""
    total = vectors[0].clone()
    for vector in vectors[1:]:
        total += vector
    return total
