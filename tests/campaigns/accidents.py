"""Campaigns against folders and terminals: `python -m tests.campaigns.accidents`.

They kill the programs that make pages in every operation on files, fill the disk during the
evaluation of two processes and in the second of them, move run folders, start two commands in one
folder, and let the clock jump. Any failure ends them with a traceback.
tests/commands/test_accidents.py tries each in short.
"""

import argparse
import io
import json
import os
import random
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import inference  # noqa: F401  (imported once for all forks)
import train
from conf.folders import HYDRA_FOLDER
from runtime import checkpoint_file, distributed
from tests.campaigns.crashes import (
    CODE_OF_ERROR,
    KINDS,
    NEVER,
    POINTS,
    SAVE_EVERY,
    SHORT_MLP,
    SHORT_POINTS,
    BrokenFiles,
    assert_same_run,
    assert_says_disk_is_full,
    exit_code,
    fork,
    forked,
    resuming,
    run_training,
)
from tests.conftest import QUIET, ROOT
from training import signals

OLD = b"what an earlier call has written"
NAMELESS_FIELDS = ("seconds", "cpu_seconds")  # of metrics.json: no two runs share them
JUMPS = (-86_400, -3600, -60, 60, 3600, 86_400)  # seconds


# ---------------------------------------------------------------- the programs that make pages


def page_makers(place):
    """The arguments of each program that makes pages, and a run in `place` for them.

    The argument OUT stands for the folder that it writes into.
    """
    run = place / "sweep" / "0"
    code = exit_code(forked(f"{SHORT_POINTS} task_name={run}"), run, None)
    assert code == 0
    Image.new("RGB", (64, 32), "white").save(run / "samples.png")
    (run / "flow.gif").write_bytes(bytes(100_000))
    return {
        "loss/report.py": [str(place / "sweep"), "--out", "OUT/report.html"],
        "scripts/share.py": [str(run), "--out", "OUT/page.html"],
        "scripts/gallery.py": [str(run), "--out", "OUT"],
    }


def make_page(script, words, out, log, at=NEVER, how="killed"):
    """Run such a program in a child whose files break; returns its operations, exit code and errors."""
    out.mkdir(exist_ok=True)
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    errors = os.open(f"{log}.err", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)

    def work():
        os.dup2(errors, 2)
        sys.argv = [str(ROOT / script), *(word.replace("OUT", str(out)) for word in words)]
        sys.path.insert(0, str(ROOT / script.split("/")[0]))
        BrokenFiles(out, descriptor, at, how)
        with redirect_stdout(io.StringIO()):
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except SystemExit as end:
                raise OSError(str(end)) from end

    _, status = os.waitpid(fork(work), 0)
    os.close(descriptor)
    os.close(errors)
    return log.read_text().split(), os.waitstatus_to_exitcode(status), Path(f"{log}.err").read_text()


def contents(folder):
    """The files below a folder with their bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def break_page_maker(place, script, words, how, every=1):
    """Strike a program at every so-manieth of its operations on files.

    Each file must then be the old or the new one, and the next call must make all of them new and
    leave nothing else. Returns how often each kind of operation was struck.
    """
    log = place / "log"
    whole = place / f"whole-{Path(script).stem}"
    done, code, message = make_page(script, words, whole, log)
    assert code == 0, message
    new = contents(whole)
    assert len(done) >= 6, done

    struck = Counter()
    out = place / "out"
    for at in range(1, len(done) + 1, every):
        shutil.rmtree(out, ignore_errors=True)
        for name in new:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(OLD)
        _, code, message = make_page(script, words, out, log, at, how)
        struck[done[at - 1]] += 1
        where = f"{script}, {how} at {at} of {len(done)}: {message}"
        if how == "killed":
            assert code == -signal.SIGKILL, where
        elif code != 0:  # nothing needs room after the last rename
            assert code == CODE_OF_ERROR and "No space left on device" in message, where
            assert message.count("\n") == 1 and "Traceback" not in message, where

        left = contents(out)
        for name, content in new.items():
            assert left.pop(name) in (OLD, content), f"{where}: {name}"
        assert all(Path(name).name.startswith(".") for name in left), f"{where}: {list(left)}"
        assert how == "killed" or not left, f"{where}: {list(left)}"
        _, code, message = make_page(script, words, out, log)
        assert code == 0, message
        assert contents(out) == new, where
    return struck


# ---------------------------------------------------------------- a full disk during an evaluation

EVALUATED = replace(POINTS, eval_samples=60, shards=2)


def train_by_two(options, folder, errors, prepare):
    """Train in two forks of this process; each calls `prepare` with its rank ("0" or "1") first.

    Returns their exit codes, and what both have written to stderr, which goes to the file `errors`.
    """
    folder.mkdir()
    descriptor = os.open(errors, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def work(rank):
        os.environ.update({**shared, "RANK": rank, "LOCAL_RANK": rank})
        os.dup2(descriptor, 2)
        sys.stderr = sys.__stderr__  # instead of what a test has put there
        prepare(rank)
        try:
            with redirect_stdout(io.StringIO()), distributed.process_group("cpu"):
                train.begin_or_resume(options, folder, set())
        except SystemExit as end:
            os._exit(end.code)

    children = [fork(lambda rank=rank: work(rank)) for rank in "01"]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(descriptor)
    return codes, Path(errors).read_text()


def two_processes(folder, log, at):
    """Train in two processes; before operation `at` on files after the training the disk is full.

    Returns the operations on files after the training, the exit codes, and the errors.
    """
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    real = train.report

    def prepare(rank):
        def report(*arguments):
            if rank == "0":
                BrokenFiles(folder, descriptor, at, "disk full")
            return real(*arguments)

        train.report = report

    codes, message = train_by_two(EVALUATED, folder, f"{log}.err", prepare)
    os.close(descriptor)
    return log.read_text().split(), codes, message


def fail_in_second_process(folder, fault, step):
    """Train in two processes, of which the second calls `fault` in that step of the training.

    Returns the exit codes, and what both have written to stderr.
    """
    real = signals.agreed
    done = 0

    def agreed(received):
        nonlocal done
        done += 1
        if done == step:
            fault()
        return real(received)

    def prepare(rank):
        if rank == "1":
            signals.agreed = agreed

    return train_by_two(replace(POINTS, shards=2), folder, f"{folder}.err", prepare)


def write_to_full_disk():
    """A write that fails because the device is full."""
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")


def refuse_to_grow_files():
    """From now on this process can write nothing into any file, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def fill_disk_of_second_process(place, every=1):
    """Let the disk fill in every so-manieth step of the second of two processes.

    An error that the second process meets ends both, in one sentence that names the last checkpoint.
    One process then goes on to the bits of a training that nothing has disturbed. Without an error
    the training ends as if the disk had room, because only the first process writes files.

    Returns how often each happened.
    """
    run_training(POINTS, _new(place / "first"), report=False)  # imports what every fork would import
    whole = place / "whole"
    codes, message = train_by_two(replace(POINTS, shards=2), whole, place / "whole.err", lambda rank: None)
    assert codes == [0, 0], message

    found = Counter()
    for step in range(1, POINTS.max_steps + 1, every):
        folder = place / f"full-{step}"
        codes, message = fail_in_second_process(folder, write_to_full_disk, step)
        assert codes == [CODE_OF_ERROR, CODE_OF_ERROR], message
        (sentence,) = message.splitlines()
        assert sentence.startswith(f"process 1: cannot write in {folder}: No space left on device; "), sentence
        assert sentence.endswith(("is intact", "there is no checkpoint yet")), sentence
        found["ended in one sentence"] += 1
        if (folder / "last.pt").exists():
            run_training(resuming(folder), folder, report=False)
            assert_same_run(whole, folder)
            found["resumed to the same bits"] += 1

    for step in range(1, POINTS.max_steps + 1, SAVE_EVERY * every):
        folder = place / f"limited-{step}"
        codes, message = fail_in_second_process(folder, refuse_to_grow_files, step)
        assert (codes, message) == ([0, 0], "")
        assert_same_run(whole, folder)
        found["not noticed, to the same bits"] += 1
    return found


def measured(folder):
    """The content of metrics.json without what no two runs share."""
    found = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if name not in NAMELESS_FIELDS}


def fill_disk_in_evaluation(place, every=1):
    """Fill the disk at every so-manieth operation on files of the evaluation of two processes.

    Either metrics.json is lost, which ends the training with exit code 1 and a sentence, and one
    process makes it up. Or it is whole, and a line names the pictures that are missing.

    Returns how often each happened.
    """
    run_training(POINTS, _new(place / "first"), report=False)  # imports what every fork would import
    log = place / "log"
    whole = place / "whole"
    done, codes, message = two_processes(whole, log, NEVER)
    assert codes == [0, 0], message
    assert len(done) >= 6, done

    found = Counter()
    folder = place / "run"
    for at in range(1, len(done) + 1, every):
        shutil.rmtree(folder, ignore_errors=True)
        _, codes, message = two_processes(folder, log, at)
        where = f"{at} of {len(done)}: {message}"
        assert "Traceback" not in message and codes[1] == 0, where
        assert not list(folder.glob(".*")), where
        if codes[0] == 0:
            found["pictures"] += 1
            assert at > done.index("replace"), where
            assert measured(folder) == measured(whole), where
            assert at == len(done) or "be drawn: cannot use" in message, where
            continue
        found["metrics.json"] += 1
        if (folder / "metrics.json").exists():  # it is there, but the folder could not be flushed
            assert measured(folder) == measured(whole), where
        assert_says_disk_is_full(codes[0], message, POINTS.max_steps, at)
        run_training(resuming(folder), folder)
        assert_same_run(whole, folder)
        assert measured(folder) == measured(whole), where
    return found


def _new(folder):
    folder.mkdir(parents=True)
    return folder


# ---------------------------------------------------------------- run folders that move


def move_runs(place, kind, count, seed):
    """Kill trainings, move their run folder, and go on there, `count` times in all.

    Each ends in the same bits as one that nothing has disturbed. Nothing appears at an old place.
    Returns the number of moves.
    """
    rng = random.Random(seed)
    line = KINDS.get(kind) or _training_of_a_file(place)
    whole = place / f"{kind}-whole"
    assert exit_code(forked(f"{line} task_name={whole}"), whole, None) == 0
    seconds = checkpoint_file.load(whole)["moment"]["seconds"]

    moved = 0
    begun = 0
    while moved < count:
        folder = place / f"{kind}-{begun}" / "0"
        begun += 1
        code = exit_code(forked(f"{line} task_name={folder}"), folder, rng.uniform(0, 0.5 * seconds))
        places = []
        while code != 0:
            assert code == -signal.SIGKILL, code
            places.append(folder)
            name = f"moved-{len(places)}"
            folder = rng.choice([folder.parent / name, place / "elsewhere" / f"{begun}-{name}"])
            folder.parent.mkdir(exist_ok=True)
            shutil.move(places[-1], folder)
            moved += 1
            resumed = " ".join([f"resume={folder}", *_moved_file(place, kind, len(places))])
            kill_after = rng.uniform(0, 0.5 * seconds) if moved < count else None
            code = exit_code(forked(resumed), folder, kill_after)
        assert_same_run(whole, folder)
        assert (folder / "metrics.json").exists()
        assert not [old for old in places if old.exists()]
        if places and kind not in KINDS:
            (place / f"points-{len(places)}.npy").rename(place / "points.npy")
    return moved


def _training_of_a_file(place):
    rows = np.random.default_rng(0).standard_normal((500, 2)).astype(np.float32)
    np.save(place / "points.npy", rows)
    return f"{SHORT_MLP} dataset=file dataset.path={place / 'points.npy'}"


def _moved_file(place, kind, number):
    """Move the file of points as well; returns the option that names its new place."""
    if kind in KINDS:
        return []
    before = place / ("points.npy" if number == 1 else f"points-{number - 1}.npy")
    after = before.rename(place / f"points-{number}.npy")
    return ["dataset=file", f"dataset.path={after}"]


# ---------------------------------------------------------------- two commands in one folder


def two_in_one_folder(place, run, pairs, seed):
    """Start pairs of `inference.py` in one hydra.run.dir, the second a random time after the first.

    The folder must hold the files of one of them. Returns how often one was refused, and how often
    both ran, one after the other.
    """
    rng = random.Random(seed)
    expected = {}
    for number in (1, 2):
        folder = place / f"alone-{number}"
        assert _ended(_inference(run, number, folder), folder, number) == (0, "")
        expected[number] = (folder / "samples.npy").read_bytes()

    found = Counter()
    for pair in range(pairs):
        folder = place / f"pair-{pair}"
        first = _inference(run, 1, folder)
        time.sleep(rng.choice([0, rng.uniform(0, 1), rng.uniform(0, 8)]))
        second = _inference(run, 2, folder)
        ended = {1: _ended(first, folder, 1), 2: _ended(second, folder, 2)}
        well = [number for number, (code, _) in ended.items() if code == 0]
        if len(well) == 2:
            found["one after the other"] += 1
            well = [2]
        else:
            (refused,) = set(ended) - set(well)
            found["refused"] += 1
            sentence = f"hydra.run.dir={folder}: another command is at work there; choose another folder\n"
            assert ended[refused] == (CODE_OF_ERROR, sentence), ended[refused]
        (number,) = well
        assert (folder / "samples.npy").read_bytes() == expected[number]
        assert f"seed={number}" in (folder / HYDRA_FOLDER / "overrides.yaml").read_text()
        assert not [path for path in folder.glob(".*") if path.name != HYDRA_FOLDER]
    return found


def _inference(run, seed, folder):
    """The process id of an `inference.py`, forked from this process, which has imported everything."""
    words = [f"checkpoint={run}", "num_samples=50", "rerun=false", f"seed={seed}", f"hydra.run.dir={folder}"]

    def work():
        os.dup2(os.open(_errors(folder, seed), os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
        sys.stderr = sys.__stderr__  # instead of what a test has put there
        sys.argv = [str(ROOT / "inference.py"), *words]
        with redirect_stdout(io.StringIO()):
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except SystemExit as end:
                raise OSError(str(end)) from end

    return fork(work)


def _errors(folder, seed):
    return f"{folder}-{seed}.err"


def _ended(process, folder, seed):
    """The exit code of that process, once it has ended, and its errors."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), Path(_errors(folder, seed)).read_text()


# ---------------------------------------------------------------- a clock that jumps

BAR_STEPS = 24
SECONDS_OF_STEP = 0.12  # longer than the 0.1 s between two drawings of a bar
BAR = """
import sys, time
steps, pause, *jumps = (float(word) for word in sys.argv[1:])
real = time.time
jumped = 0.0
time.time = lambda: real() + jumped  # before tqdm is imported
from runtime.progress import progress_bar
for i in progress_bar(range(int(steps)), "steps"):
    if i and i % 4 == 0 and jumps:
        jumped += jumps.pop()
    time.sleep(pause)
"""


def drawn_bar(jumps):
    """All that a bar draws on a terminal, while the time of day jumps by so many seconds, one after the other."""
    import pty
    import termios

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    words = [str(word) for word in (BAR_STEPS, SECONDS_OF_STEP, *jumps)]
    environment = {**QUIET, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", BAR, *words], env=environment, stderr=slave)
    os.close(slave)
    drawn = b""
    while True:
        try:
            piece = os.read(master, 10_000)
        except OSError:  # the terminal has been closed
            break
        if not piece:
            break
        drawn += piece
    os.close(master)
    assert child.wait() == 0
    return drawn.decode()


def assert_bar_goes_on(jumps):
    """A bar must be drawn to its end, with the seconds that have passed."""
    drawn = [line for line in drawn_bar(jumps).split("\r") if line.strip()]
    last = drawn[-1]
    assert len(drawn) >= BAR_STEPS / 2, f"{jumps}: {drawn}"
    assert "100%" in last and "[00:0" in last, f"{jumps}: {last}"


# ---------------------------------------------------------------- all of them


def try_pages(place, args):
    for script, words in page_makers(place).items():
        for how in ("killed", "disk full"):
            struck = break_page_maker(place, script, words, how)
            print(f"{script}, {how} at {struck.total()} points: {dict(struck)}", flush=True)


def try_full_disk(place, args):
    found = fill_disk_in_evaluation(place)
    print(f"disk full at {found.total()} points of an evaluation: it cost {dict(found)}", flush=True)


def try_second_process(place, args):
    found = fill_disk_of_second_process(place)
    print(f"disk full in steps of the second of two processes: {dict(found)}", flush=True)


def try_moves(place, args):
    for kind in (*KINDS, "file"):
        moved = move_runs(_new(place / kind), kind, args.moves, args.seed)
        print(f"{kind}: {moved} moves; every run ended in the same bits", flush=True)


def try_pairs(place, args):
    run = place / "run"
    assert exit_code(forked(f"{SHORT_POINTS} task_name={run}"), run, None) == 0
    found = two_in_one_folder(place, run, args.pairs, args.seed)
    print(f"{args.pairs} pairs in one folder: {dict(found)}", flush=True)


def try_clocks(place, args):
    rng = random.Random(args.seed)
    for _ in range(args.clocks):
        assert_bar_goes_on(rng.choices(JUMPS, k=3))
    print(f"{args.clocks} bars were drawn to their end while the clock jumped", flush=True)


PARTS = {
    "pages": try_pages,
    "full-disk": try_full_disk,
    "second-process": try_second_process,
    "moves": try_moves,
    "pairs": try_pairs,
    "clocks": try_clocks,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=[*PARTS], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--moves", type=int, default=8, help="of each kind of training")
    parser.add_argument("--pairs", type=int, default=12, help="of inference.py in one folder")
    parser.add_argument("--clocks", type=int, default=12, help="bars, each with three jumps")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    begin = time.monotonic()
    for part in args.parts:
        with tempfile.TemporaryDirectory() as place:
            PARTS[part](Path(place), args)
    print(f"no failure after {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
