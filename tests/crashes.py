"""Campaigns against a training: a crash at every point of its saves, kills at random times, damaged checkpoints.

tests/test_crashes.py runs them in short, scripts/soak.py at length. Most trainings run in forked children: real
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
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
from conftest import QUIET, ROOT

import train
from conf.config import Train
from conf.groups import MLP, Digits, Moons, UNetSmall
from runtime import checkpoint

OPERATIONS = ("open", "write", "fsync", "replace", "unlink", "truncate")
EVERY = 3
POINTS = Train(dataset=Moons(), model=MLP(hidden=8, layers=1, frequencies=1), num_samples=64, batch_size=16,
               references=8, num_timesteps=8, warmup_steps=2, max_steps=24,
               checkpoint_every=EVERY, eval_samples=0)  # fmt: skip
LONG = {"max_steps": 403, "checkpoint_every": 7, "num_samples": 500}
UNET = UNetSmall(channels=[8, 8], heads=2)
KINDS = {
    "points": {**vars(POINTS), **LONG},
    "labels": {**vars(POINTS), **LONG, "conditional": True},
    "images": {**vars(POINTS), **LONG, "dataset": Digits(), "model": UNET, "conditional": True, "max_steps": 101},
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
    return Train(dataset=Moons(), model=MLP(), resume=str(folder))


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
    assert_same_state(checkpoint.load(one), checkpoint.load(other))
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
    assert checkpoint.load(folder)["step"] == saved
    training(resumed(folder), folder, report)
    assert_same_run(whole, folder)
    assert not list(folder.glob(".*")), "litter"
    return last


# ---------------------------------------------------------------- kills at random times


def kills(place, kind, count, seed):
    """Kill trainings of that kind at random times, `count` times in all; each goes on in its folder to the same end."""
    rng, options, whole = random.Random(seed), Train(**KINDS[kind]), place / f"{kind}-whole"
    whole.mkdir()
    begin = time.monotonic()
    training(options, whole)
    seconds, killed, runs = time.monotonic() - begin, 0, 0
    while killed < count:
        folder, runs, status = place / f"{kind}-{runs}", runs + 1, -1
        while killed < count and status != 0:
            status = killed_after(rng.uniform(0, seconds), options, folder)
            assert status in (0, -signal.SIGKILL), f"{kind}: exit code {status}"
            killed += status != 0
        if status and (folder / "last.pt").exists():
            training(resumed(folder), folder)
        if (folder / "last.pt").exists():
            assert_same_run(whole, folder)
            assert (folder / "metrics.json").exists() and not list(folder.glob(".*.pt.*"))
    return killed


def killed_after(seconds, options, folder):
    """The exit code of a training that begins or goes on in `folder`: 0 where it was quicker than the kill."""
    if not (folder / "last.pt").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    else:
        options = resumed(folder)
    process = child(lambda: training(options, folder))
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


REAL = "num_samples=500 batch_size=16 references=8 num_timesteps=8 checkpoint_every=7 eval_samples=0"
REAL_POINTS = f"{REAL} model.hidden=8 model.layers=1 max_steps=603"
LINES = {
    "points": REAL_POINTS,
    "labels": f"{REAL_POINTS} conditional=true",
    "images": f"{REAL} dataset=digits model=unet_small model.channels=[8,8] model.heads=2 max_steps=303",
}


def real_kills(place, kind, count, seed):
    """The same with `python train.py`, killed at a random time after its first save, and resumed as a person would."""
    rng, whole, killed = random.Random(seed), place / f"{kind}-uninterrupted", 0
    assert os.waitpid(child(lambda: command_here(f"{LINES[kind]} task_name={whole}")), 0)[1] == 0
    seconds = checkpoint.load(whole)["moment"]["seconds"]
    while killed < count:
        folder, code = place / f"{kind}-killed-{killed}", -1
        line = f"{LINES[kind]} task_name={folder}"
        while code != 0:
            code = command_killed(line, folder, rng.uniform(0, seconds) if killed < count else None)
            assert code in (0, -signal.SIGKILL), f"{kind}: exit code {code}"
            line, killed = f"resume={folder}", killed + (code != 0)
        assert_same_run(whole, folder)
        assert (folder / "metrics.json").exists() and not list(folder.glob(".*.pt.*"))
    return killed


def command_here(line):
    """`python train.py` in this process, in silence."""
    sys.argv = [str(ROOT / "train.py"), *line.split()]
    with redirect_stdout(io.StringIO()):
        runpy.run_path(sys.argv[0], run_name="__main__")


def command_killed(line, folder, seconds):
    """The exit code of a `python train.py` that is killed so many seconds after its first save (None: never)."""
    path, command = folder / "last.pt", [sys.executable, str(ROOT / "train.py"), *line.split()]
    before = path.stat().st_mtime_ns if path.exists() else 0
    process = subprocess.Popen(command, cwd=folder.parent, env=QUIET, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
        time.sleep(0.002)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


# ---------------------------------------------------------------- damaged checkpoints


def damage(path, truncations, flips, seed):
    """Load a checkpoint cut short, and with one bit changed: an error in our words or the right content.

    Returns how often it was refused, and how often it was right.
    """
    rng, whole, content = random.Random(seed), checkpoint.load(path), path.read_bytes()
    broken, refused, right = path.with_name("broken.pt"), 0, 0
    for i in range(truncations + flips):
        damaged = bytearray(content)
        if i < truncations:
            del damaged[rng.randrange(len(content)) :]
        else:
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        broken.write_bytes(damaged)
        try:
            state = checkpoint.load(broken)
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
