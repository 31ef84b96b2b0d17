"""One training in several processes, as torchrun starts them: who this one is, and what all of them do together.

In a single process nothing here does anything. Everything that all do together must be called by all, in one order.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store
from torch.distributed.rendezvous import rendezvous
from tqdm import tqdm

Made = TypeVar("Made")
PATIENCE = timedelta(days=1)  # the others wait while the first draws and saves; one that has died is noticed at once
ENDED = "another process of this training has ended, so none can go on; resume= goes on from its last checkpoint"

OTHER_OPTIONS = "process {number} has {name}={theirs}, the first {name}={first}: start all with the same options"
OTHER_DATA = "the data of process {number} are not those of the first: give all the same files"


def world() -> int:
    """How many processes take part."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes, prints and draws."""
    return rank() == 0


# ---------------------------------------------------------------- coming and going


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Together with the other processes, where torchrun has started several. What goes wrong is said by one of them.

    Raises:
        ValueError: a device that they cannot share.
        OSError: they cannot meet.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    _join(device)
    signal.signal(signal.SIGTERM, _end)
    try:
        with open(os.devnull, "w") as silence, redirect_stdout(sys.stdout if is_first() else silence):
            yield
    except Exception as error:
        if not is_first():
            _let_the_first_say_it()
        if not _first_to_say_it():
            raise SystemExit(1) from error
        if is_first():
            raise
        sys.exit(f"process {rank()}: {' '.join(str(error).split())}")
    finally:
        first = is_first()
        dist.destroy_process_group()
        if not first:
            _end_at_once()


def _end_at_once() -> NoReturn:
    """End this process with the code of the SystemExit on its way. Python's own end, of a process that is not the
    first, aborted in 3 of 18 starts: a thread of gloo's had not come to its end."""
    error = sys.exc_info()[1]
    code = error.code if isinstance(error, SystemExit) else int(error is not None)
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(code, str) else code or 0)


def _join(device: str) -> None:
    backend, local = "gloo", int(os.environ.get("LOCAL_RANK", "0"))
    if device != "cpu" and torch.cuda.is_available():
        if ":" in device or local >= torch.cuda.device_count():
            raise ValueError(
                f"each process takes a GPU of its own: start at most {torch.cuda.device_count()} on this machine, with"
                " device=cuda, or take device=cpu"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
        store = PrefixStore(f"start {restarts()}", store)  # else they would look for those that have died
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    except RuntimeError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        why = "that port is in use; torchrun --standalone finds a free one" if "EADDRINUSE" in str(error) else error
        raise OSError(f"the processes cannot meet at {where}: {why}") from error


def _end(number: int, frame: object) -> None:
    """Torchrun ends all where one has failed: they clear up. While a training runs, interrupts.caught rules."""
    raise SystemExit(128 + number)


def leave_to_first() -> None:
    """The others have done their part and end here."""
    if not is_first():
        raise SystemExit(0)


def _said() -> str:
    return f"said in start {restarts()}"


def _first_to_say_it() -> bool:
    """Whether no other process has said yet what went wrong."""
    try:
        return _store().add(_said(), 1) == 1
    except RuntimeError:  # whoever held the store has gone as well
        return True


def _let_the_first_say_it() -> None:
    """Where all fail for one reason, the sentence needs no number of a process."""
    with suppress(RuntimeError):  # it has not said anything in this time, or is gone
        _store().wait([_said()], timedelta(seconds=5))


def _store() -> Store:
    """What torchrun keeps for the processes as long as it runs, and from one start of them to the next."""
    store = _get_default_store()
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    return store


@contextmanager
def _together() -> Iterator[None]:
    """Around what all do together: it fails where a process has died, which one of the others says at once."""
    try:
        yield
    except RuntimeError as error:
        if _first_to_say_it():
            tqdm.write(ENDED, file=sys.stderr)
        raise SystemExit(1) from error


# ---------------------------------------------------------------- what all agree on


def restarts() -> int:
    """How often `torchrun --max-restarts` has started these processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def from_first(make: Callable[[], Made]) -> Made:
    """What `make` returns in the first process, in all of them."""
    found = [make() if is_first() else None]
    if world() > 1:
        with _together():
            dist.broadcast_object_list(found)
    return found[0]  # pyright: ignore[reportReturnType] (the first has put it there)


def shared_out(work: Sequence[Callable[[], Made]]) -> list[Made]:
    """What each piece of work returns, in their order, in all processes; each piece is done by one of them, in turn.

    The pieces must not depend on each other, nor on how many processes there are: then neither does what they return.
    What holds tensors should leave them on the CPU, as another process's GPU cannot be reached.
    """
    if world() == 1:
        return [piece() for piece in work]
    found: list[list[Made]] = [[]] * world()
    own = [piece() for piece in work[rank() :: world()]]
    with _together():
        dist.all_gather_object(found, own)
    return [found[i % world()][i // world()] for i in range(len(work))]


def run_folder(own: Path) -> Path:
    """The run folder of the first process for all; after a restart by torchrun that of the first start.

    Raises:
        OSError: restarted before there was one.
    """
    return own if world() == 1 else from_first(lambda: _of_first_start(own))


def _of_first_start(own: Path) -> Path:
    store, key = _store(), "run folder"
    if not restarts():
        store.set(key, str(own))
    elif not store.check([key]):
        raise OSError("the processes ended before their training began: start it again")
    return Path(store.get(key).decode()) if restarts() else own


def check_same(values: Mapping[str, object], sentence: str) -> None:
    """Compare the values of all processes; `sentence` may name {number}, {name}, {theirs} and {first}.

    Raises:
        ValueError: they differ, in all of the processes.
    """
    if world() == 1:
        return
    found: list[Mapping[str, object]] = [{}] * world()
    with _together():
        dist.all_gather_object(found, values)
    for number, theirs in enumerate(found):
        for name, first in found[0].items():
            if theirs.get(name) != first:
                raise ValueError(sentence.format(number=number, name=name, theirs=theirs.get(name), first=first))


# ---------------------------------------------------------------- sums


def added_up(own: Tensor) -> Tensor:
    """The sum of all vectors of all processes, those of the first before those of the second: (k, n) -> (n,).

    Whoever holds them, they are added in this one order, so that the sum has the same bits for every number of
    processes. Each process adds up its share of the n entries, so that (k + 1) n (p - 1) / p numbers are sent by each:
    for k = 1 as many as by a ring that cares for no order (Patarasuk and Yuan 2009).
    """
    if world() == 1:
        return in_order(own)
    (k, n), p = own.shape, world()
    width = -(-n // p)
    outgoing = torch.nn.functional.pad(own, (0, p * width - n)).view(k, p, width).transpose(0, 1).contiguous()
    incoming, whole = torch.empty_like(outgoing), own.new_empty(p * width)
    with _together():
        dist.all_to_all_single(incoming, outgoing)
        dist.all_gather_single(whole, in_order(incoming.view(p * k, width)))
    return whole[:n]


def in_order(vectors: Tensor) -> Tensor:
    """The sum of vectors (k, n), one after the other: what torch.sum does depends on n."""
    total = vectors[0].clone()
    for vector in vectors[1:]:
        total += vector
    return total
