"""Campaigns against a training: a crash at every point of its saves, kills at random times, damaged checkpoints.

tests/training/test_crashes.py runs them in short, tests/campaigns/soak.py at length.
Most trainings run in forked children: real
processes, killed by real signals, without the seconds that importing torch takes; some as a person starts them.
"""

import _pyio
import builtins
import errno
import io
import os
import random
import runpy
import shutil
import signal
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
import torch._dynamo  # which every fork would import with its first optimizer, for 1.5 s
from conftest import QUIET, ROOT

import train
from conf.config import Train
from conf.groups import MLP, Gaussians
from loss.moments import LOG_EVERY
from runtime import checkpoint_file

OPERATIONS = ("open", "write", "fsync", "replace", "unlink", "truncate")
EVERY = 3
POINTS = Train(dataset=Gaussians(), model=MLP(hidden=8, layers=1, frequencies=1), num_samples=64, batch_size=16,
               references=8, num_timesteps=8, warmup_steps=2, max_steps=24,
               checkpoint_every=EVERY, eval_samples=0)  # fmt: skip
SHORT = "num_samples=500 batch_size=16 references=8 num_timesteps=8 checkpoint_every=7 eval_samples=0"
SHORT_POINTS = f"{SHORT} model.hidden=8 model.layers=1 max_steps=403"
KINDS = {
    "points": SHORT_POINTS,
    "labels": f"{SHORT_POINTS} conditional=true",
    "images": f"{SHORT} dataset=digits model=unet_small model.channels=[8,8] model.heads=2 max_steps=103",
}


def training(options, folder, report=True):
    """In this process, in silence."""
    with redirect_stdout(io.StringIO()):
        real = train.report
        train.report = real if report else lambda *_: {}  # its pictures take three times as long as the training
        try:
            train.begin_or_resume(options, folder, {"resume"} if options.resume else set())
        finally:
            train.report = real


def resumed(folder):
    return Train(dataset=Gaussians(), model=MLP(), resume=str(folder))


def child(work):
    """The process id of a fork that does some work: exit code 0, or 1 with the error as the last line of `said`."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 0
    try:
        work()
    except (OSError, ValueError) as error:
        code = 1
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(code if sys.exc_info()[0] is None else 3)


# ---------------------------------------------------------------- are two runs the same?


def rows(folder, name):
    """A table without its seconds."""
    return [[field for i, field in enumerate(line.split(",")) if name == "excess.csv" or i < 3]
            for line in (folder / name).read_text().splitlines()]  # fmt: skip


def assert_same_state(a, b):
    assert a["step"] == b["step"] and torch.equal(a["losses"], b["losses"])
    for part in ("net", "ema"):
        assert a[part].keys() == b[part].keys() and all(torch.equal(a[part][k], b[part][k]) for k in a[part]), part
    for one, other in zip(a["optimizers"], b["optimizers"], strict=True):
        assert one["state"].keys() == other["state"].keys()
        for i, moments in one["state"].items():
            assert all(torch.equal(moments[k], other["state"][i][k]) for k in moments)


def assert_same_run(one, other):
    """Bit for bit: weights, averages, optimizer, losses and excess."""
    assert_same_state(checkpoint_file.load(one), checkpoint_file.load(other))
    for name in ("loss.csv", "excess.csv"):
        assert (one / name).exists() == (other / name).exists()
        if (one / name).exists():
            assert rows(one, name) == rows(other, name), name


# ---------------------------------------------------------------- crash points


def break_files(folder, log, at, how):
    """From now on, before the `at`-th operation on a file in `folder`, this process is killed, or the disk is full.

    Where the power is cut, rows of tables that have not been forced to the disk are lost as well.

    Python's own implementation of files stands in for that in C, because it goes through os.open and os.write. Each
    operation is noted in the file descriptor `log`; of a write that kills, half is done.
    """
    builtins.open = io.open = _pyio.open
    real = {name: getattr(os, name) for name in OPERATIONS}
    ours, count, safe = {}, 0, {}

    def broken(name):
        def operation(what, *args, **options):
            nonlocal count
            mine = what in ours if isinstance(what, int) else Path(os.fsdecode(what)).is_relative_to(folder)
            if not mine:
                return real[name](what, *args, **options)
            count += 1
            real["write"](log, f"{name}\n".encode())
            if name == "fsync" and what in ours:
                safe[ours[what]] = os.fstat(what).st_size
            needs_room = name != "unlink" and (name != "open" or args[0] & os.O_CREAT)
            if how == "disk full" and count >= at and needs_room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if how != "disk full" and count == at:
                if name == "write":
                    real["write"](what, args[0][: len(args[0]) // 2])
                for table in folder.glob("*.csv") if how == "power cut" else ():
                    real["truncate"](table, min(table.stat().st_size, safe.get(table, 0)))
                os.kill(os.getpid(), signal.SIGKILL)
            result = real[name](what, *args, **options)
            if name == "open":
                ours[result] = Path(os.fsdecode(what))
            return result

        return operation

    for name in OPERATIONS:
        setattr(os, name, broken(name))


def operations(folder, log, at=10**9, how="killed"):
    """What a training in `folder` does with its files until it breaks down; and the status of its process."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    errors = os.open(f"{log}.err", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)

    def work():
        os.dup2(errors, 2)
        break_files(folder, descriptor, at, how)
        training(POINTS, folder, report=False)

    folder.mkdir()
    _, status = os.waitpid(child(work), 0)
    os.close(descriptor)
    os.close(errors)
    return log.read_text().split(), status


def crash_points(place):
    """How many there are, and the run that comes through."""
    (place / "first").mkdir()
    training(POINTS, place / "first", report=False)  # imports what forks would have to import again and again
    done, status = operations(place / "whole", place / "log")
    assert status == 0, (place / "log.err").read_text()
    return len(done), place / "whole"


def crash(place, whole, at, how, report=False):
    """Break a training down at one point; then it must go on, in its folder, to the same end. Returns the operation."""
    folder, log = place / "run", place / "log"
    shutil.rmtree(folder, ignore_errors=True)
    done, status = operations(folder, log, at, how)
    said, last, code = Path(f"{log}.err").read_text(), done[at - 1], os.waitstatus_to_exitcode(status)
    saved = EVERY * done[: at - 1].count("replace")
    if how != "disk full":
        assert code == -signal.SIGKILL, (at, last, said)
    elif saved < POINTS.max_steps:  # else all was written before the disk was full
        words = f"the last checkpoint, of step {saved}, is intact" if saved else "there is no checkpoint yet"
        assert code == 1 and "cannot write" in said and "No space left on device" in said and words in said, (at, said)
        assert not list(folder.glob(".*")), (at, last)
    if not saved:
        assert not (folder / "last.pt").exists()
        return last
    state = checkpoint_file.load(folder)
    assert state["step"] == saved and (state["moment"]["loss"] is None) == (saved < LOG_EVERY)
    training(resumed(folder), folder, report)
    assert_same_run(whole, folder)
    assert not list(folder.glob(".*")), "litter"
    return last


# ---------------------------------------------------------------- kills at random times


def kills(place, kind, count, seed, start):
    """Kill trainings of that kind at random times after their first save, `count` times in all.

    Each goes on in its folder as a person would resume it, to the same end as one that nobody disturbed. start: forked
    or spawned.
    """
    rng = random.Random(seed)
    whole = place / f"{kind}-{start.__name__}-whole"
    assert ended(forked(f"{KINDS[kind]} task_name={whole}"), whole, None) == 0
    seconds = checkpoint_file.load(whole)["moment"]["seconds"]
    killed, begun = 0, 0
    while killed < count:
        # A training may end before it is killed, if the machine is less busy than before: then another one begins.
        folder = place / f"{kind}-{start.__name__}-{begun}"
        begun += 1
        code = -1
        line = f"{KINDS[kind]} task_name={folder}"
        while code != 0:
            code = ended(start(line), folder, rng.uniform(0, 0.9 * seconds) if killed < count else None)
            assert code in (0, -signal.SIGKILL), f"{kind}: exit code {code}"
            line, killed = f"resume={folder}", killed + (code != 0)
        assert_same_run(whole, folder)
        assert (folder / "metrics.json").exists() and not list(folder.glob(".*.pt.*"))
    return killed


def forked(line):
    """The process id of a `python train.py` that this process, which has imported everything, forks."""

    def work():
        sys.argv = [str(ROOT / "train.py"), *line.split()]
        with redirect_stdout(io.StringIO()):
            runpy.run_path(sys.argv[0], run_name="__main__")

    return child(work)


def spawned(line):
    """The process id of a `python train.py` as a person starts it."""
    command, silence = [sys.executable, str(ROOT / "train.py")], (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    return os.posix_spawn(sys.executable, [*command, *line.split()], QUIET, file_actions=[silence])


def ended(process, folder, seconds):
    """The exit code of a training, which is killed so many seconds after it has next saved; None: never."""
    path, end = folder / "last.pt", float("inf")
    before = path.stat().st_mtime_ns if path.exists() else 0
    while not (status := os.waitpid(process, os.WNOHANG))[0]:
        if seconds is not None and path.exists() and path.stat().st_mtime_ns > before:
            end, seconds = time.monotonic() + seconds, None
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(status[1])


# ---------------------------------------------------------------- damaged checkpoints


def damage(path, truncations, flips, seed):
    """Load a checkpoint cut short, and with one bit changed: an error in our words or the right content.

    Returns how often it was refused, and how often it was right.
    """
    rng, whole, content = random.Random(seed), checkpoint_file.load(path), path.read_bytes()
    broken, refused, right = path.with_name("broken.pt"), 0, 0
    for i in range(truncations + flips):
        damaged = bytearray(content)
        if i < truncations:
            del damaged[rng.randrange(len(content)) :]
        else:
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        broken.write_bytes(damaged)
        try:
            state = checkpoint_file.load(broken)
        except ValueError as error:
            assert any(words in str(error) for words in ("is damaged", "no checkpoint", "not finite")), repr(error)
            refused += 1
            continue
        assert_same_state(state, whole)
        assert all(state[k] == whole[k] for k in ("config", "classes", "data", "total", "moment"))
        assert all(torch.equal(state["normaliser"][k], whole["normaliser"][k]) for k in ("mean", "std"))
        right += 1
    broken.unlink()
    return refused, right
