"""Campaigns against a training: crashes at every point of its saves, random kills, damaged files.

tests/training/test_crashes.py runs them in short, soak.py at length. Most trainings run in forked
children. These are real processes, killed by real signals, without the seconds that importing torch
takes. Some trainings are started as a user starts them.
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
import torch._dynamo  # every fork would import it with its first optimizer, for 1.5 s

import train
from conf.config import Train
from conf.groups import MLP, Gaussians
from loss.moments import LOG_EVERY
from runtime import checkpoint_file
from tests.conftest import QUIET, ROOT

OPERATIONS = ("open", "write", "fsync", "replace", "unlink", "truncate")  # functions of os
SAVE_EVERY = 3  # optimizer steps
POINTS = Train(
    dataset=Gaussians(),
    model=MLP(hidden=8, layers=1, frequencies=1),
    num_samples=64,
    batch_size=16,
    references=8,
    num_timesteps=8,
    warmup_steps=2,
    max_steps=24,
    checkpoint_every=SAVE_EVERY,
    eval_samples=0,
)
SHORT = "num_samples=500 batch_size=16 references=8 num_timesteps=8 checkpoint_every=7 eval_samples=0"
SHORT_MLP = f"{SHORT} model.hidden=8 model.layers=1 max_steps=403"
SHORT_POINTS = f"{SHORT_MLP} dataset=gaussians"  # their Bayes floor takes a tenth of the time that the moons' takes
SHORT_IMAGES = f"{SHORT} dataset=digits model=unet_small model.channels=[8,8] model.heads=2 max_steps=103"
KINDS = {
    "points": SHORT_POINTS,
    "labels": f"{SHORT_POINTS} conditional=true",
    "images": SHORT_IMAGES,
}

CODE_OF_ERROR = 1
CODE_OF_FAULT = 3  # a child ended with an error that no user can cause
NEVER = 10**9


def run_training(options, folder, report=True):
    """Train in this process, in silence."""
    with redirect_stdout(io.StringIO()):
        real = train.report
        if not report:  # its pictures take three times as long as the training
            train.report = lambda *_: {}
        try:
            typed = {"resume"} if options.resume else set()
            train.begin_or_resume(options, folder, typed)
        finally:
            train.report = real


def resuming(folder):
    return Train(dataset=Gaussians(), model=MLP(), resume=str(folder))


def fork(work):
    """The process id of a child that does some work.

    Its exit code is 0, or 1 with the sentence of an error on stderr.
    """
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 0
    try:
        work()
    except (OSError, ValueError) as error:
        code = CODE_OF_ERROR
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(code if sys.exc_info()[0] is None else CODE_OF_FAULT)


# ---------------------------------------------------------------- are two runs the same?


def table_rows(folder, name):
    """The cells of a table, without the columns of loss.csv that hold seconds."""
    rows = [line.split(",") for line in (folder / name).read_text().splitlines()]
    return rows if name == "excess.csv" else [row[:3] for row in rows]


def assert_same_state(a, b):
    assert a["step"] == b["step"]
    assert torch.equal(a["losses"], b["losses"])
    for part in ("net", "ema"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][key], b[part][key]) for key in a[part]), part
    for one, other in zip(a["optimizers"], b["optimizers"], strict=True):
        assert one["state"].keys() == other["state"].keys()
        for i, moments in one["state"].items():
            assert all(torch.equal(moments[key], other["state"][i][key]) for key in moments)


def assert_same_run(one, other):
    """Bit for bit: weights, averages, optimizers, losses and excess."""
    assert_same_state(checkpoint_file.load(one), checkpoint_file.load(other))
    for name in ("loss.csv", "excess.csv"):
        assert (one / name).exists() == (other / name).exists()
        if (one / name).exists():
            assert table_rows(one, name) == table_rows(other, name), name


# ---------------------------------------------------------------- crash points


class BrokenFiles:
    """From now on a failure strikes this process at one of its operations on files in a folder.

    folder: only operations on files in it count.
    log: a file descriptor to which the name of each such operation is written.
    at: the number of the operation before which the failure strikes, from 1.
    how: "killed", "power cut" or "disk full". At a write, a kill leaves half of the bytes. At a
        power cut, the rows of tables that fsync has not forced to the disk are lost as well.

    Python's own implementation of files replaces that in C, because it calls os.open and os.write.
    """

    def __init__(self, folder, log, at, how):
        builtins.open = io.open = _pyio.open
        self.folder = folder
        self.log = log
        self.at = at
        self.how = how
        self.count = 0
        self.paths = {}  # of our open files, by their descriptors
        self.synced_sizes = {}  # of our files, by their paths
        self.real = {name: getattr(os, name) for name in OPERATIONS}
        for name in OPERATIONS:
            setattr(os, name, self._broken(name))

    def _broken(self, name):
        def operation(target, *args, **options):
            if not self._is_ours(target):
                return self.real[name](target, *args, **options)
            self.count += 1
            self.real["write"](self.log, f"{name}\n".encode())
            if name == "fsync" and target in self.paths:
                self.synced_sizes[self.paths[target]] = os.fstat(target).st_size
            if self.how == "disk full":
                self._fail_if_full(name, args)
            elif self.count == self.at:
                self._die(name, target, args)
            result = self.real[name](target, *args, **options)
            if name == "open":
                self.paths[result] = Path(os.fsdecode(target))
            return result

        return operation

    def _is_ours(self, target):
        if isinstance(target, int):
            return target in self.paths
        return Path(os.fsdecode(target)).is_relative_to(self.folder)

    def _fail_if_full(self, name, args):
        needs_room = name != "unlink" and (name != "open" or args[0] & os.O_CREAT)
        if self.count >= self.at and needs_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _die(self, name, target, args):
        if name == "write":
            half = args[0][: len(args[0]) // 2]
            self.real["write"](target, half)
        if self.how == "power cut":
            for table in self.folder.glob("*.csv"):
                size = min(table.stat().st_size, self.synced_sizes.get(table, 0))
                self.real["truncate"](table, size)
        os.kill(os.getpid(), signal.SIGKILL)


def file_operations(folder, log, at=NEVER, how="killed"):
    """Train in a child whose files break; returns its operations on files and its exit status."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    errors = os.open(f"{log}.err", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)

    def work():
        os.dup2(errors, 2)
        BrokenFiles(folder, descriptor, at, how)
        run_training(POINTS, folder, report=False)

    folder.mkdir()
    _, status = os.waitpid(fork(work), 0)
    os.close(descriptor)
    os.close(errors)
    return log.read_text().split(), status


def crash_points(place):
    """The number of operations on files, and the folder of a run that no failure strikes."""
    (place / "first").mkdir()
    # This imports what every fork would have to import.
    run_training(POINTS, place / "first", report=False)
    done, status = file_operations(place / "whole", place / "log")
    assert status == 0, (place / "log.err").read_text()
    return len(done), place / "whole"


def crash(place, whole, at, how, report=False):
    """Break a training at one operation. It must go on, in its folder, to the same end.

    Returns the name of the operation.
    """
    folder = place / "run"
    log = place / "log"
    shutil.rmtree(folder, ignore_errors=True)
    done, status = file_operations(folder, log, at, how)
    last = done[at - 1]
    saved_step = SAVE_EVERY * done[: at - 1].count("replace")
    code = os.waitstatus_to_exitcode(status)
    message = Path(f"{log}.err").read_text()
    if how != "disk full":
        assert code == -signal.SIGKILL, (at, last, message)
    elif saved_step < POINTS.max_steps:  # otherwise all was written before the disk was full
        assert_says_disk_is_full(code, message, saved_step, at)
        assert not list(folder.glob(".*")), (at, last)

    if not saved_step:
        assert not (folder / "last.pt").exists()
        return last
    state = checkpoint_file.load(folder)
    assert state["step"] == saved_step
    assert (state["moment"]["loss"] is None) == (saved_step < LOG_EVERY)
    run_training(resuming(folder), folder, report)
    assert_same_run(whole, folder)
    assert not list(folder.glob(".*")), "temporary files"
    return last


def assert_says_disk_is_full(code, message, saved_step, at):
    remains = "there is no checkpoint yet"
    if saved_step:
        remains = f"the last checkpoint, of step {saved_step}, is intact"
    assert code == CODE_OF_ERROR, (at, message)
    for words in ("cannot write", "No space left on device", remains):
        assert words in message, (at, message)


# ---------------------------------------------------------------- kills at random times


def kills(place, kind, count, seed, start):
    """Kill trainings of one kind at random times after their first save, `count` times in all.

    Each goes on in its folder, resumed as a user resumes it, to the same end as a training that
    nothing has interrupted. start: `forked` or `spawned`.
    """
    rng = random.Random(seed)
    whole = place / f"{kind}-{start.__name__}-whole"
    assert exit_code(forked(f"{KINDS[kind]} task_name={whole}"), whole, None) == 0
    seconds = checkpoint_file.load(whole)["moment"]["seconds"]

    killed = 0
    begun = 0
    while killed < count:
        # A training may end before it is killed, if the machine is less busy than before. Then
        # another one begins.
        folder = place / f"{kind}-{start.__name__}-{begun}"
        begun += 1
        line = f"{KINDS[kind]} task_name={folder}"
        code = None
        while code != 0:
            kill_after = rng.uniform(0, 0.9 * seconds) if killed < count else None
            code = exit_code(start(line), folder, kill_after)
            assert code in (0, -signal.SIGKILL), f"{kind}: exit code {code}"
            line = f"resume={folder}"
            if code != 0:
                killed += 1
        assert_same_run(whole, folder)
        assert (folder / "metrics.json").exists()
        assert not list(folder.glob(".*.pt.*"))
    return killed


def forked(line):
    """The process id of a `python train.py` that is forked from this process.

    This process has imported everything.
    """

    def work():
        sys.argv = [str(ROOT / "train.py"), *line.split()]
        with redirect_stdout(io.StringIO()):
            runpy.run_path(sys.argv[0], run_name="__main__")

    return fork(work)


def spawned(line):
    """The process id of a `python train.py` as a user starts it."""
    command = [sys.executable, str(ROOT / "train.py"), *line.split()]
    silence = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    return os.posix_spawn(sys.executable, command, QUIET, file_actions=[silence])


def exit_code(process, folder, kill_after):
    """Wait for a training; returns its exit code.

    kill_after: seconds after its next save at which it is killed; None: never.
    """
    path = folder / "last.pt"
    before = path.stat().st_mtime_ns if path.exists() else 0
    end = float("inf")
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if kill_after is not None and path.exists() and path.stat().st_mtime_ns > before:
            end = time.monotonic() + kill_after
            kill_after = None
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.002)


# ---------------------------------------------------------------- damaged checkpoints


def damage(path, truncations, flips, seed):
    """Load a checkpoint that is cut short, and one with a single bit changed, many times.

    Each time the result must be an error in our words or the right content. Returns how often the
    checkpoint was refused, and how often its content was right.
    """
    rng = random.Random(seed)
    whole = checkpoint_file.load(path)
    content = path.read_bytes()
    broken = path.with_name("broken.pt")
    refused = 0
    right = 0
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
            known = ("is damaged", "no checkpoint", "not finite")
            assert any(words in str(error) for words in known), repr(error)
            refused += 1
        else:
            assert_same_content(state, whole)
            right += 1
    broken.unlink()
    return refused, right


def assert_same_content(state, whole):
    assert_same_state(state, whole)
    for key in ("config", "classes", "data", "total", "moment"):
        assert state[key] == whole[key]
    for key in ("mean", "std"):
        assert torch.equal(state["normaliser"][key], whole["normaliser"][key])
