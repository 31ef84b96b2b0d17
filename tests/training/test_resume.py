"""A training that is broken off goes on in its own folder, and ends as one that never was."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NO_EVALUATION, QUIET, ROOT, SMALL, command, python

from conf.config import Train
from conf.groups import MLP, Linear, Moons
from conf.resumed import resumed_options
from dataset import PointSet, make_dataset
from loss.log import COLUMNS, opened, read_excess, read_losses
from loss.moments import Moment
from loss.objective import training_loss
from model import build_model
from runtime import checkpoint_file
from schedule import LinearNoiseScheduler
from tests.campaigns.crashes import assert_same_run
from train import begin_or_resume
from training import signals as interrupts
from training.checksum import checksum
from training.learner import Learner
from training.optimizers import make_optimizers
from training.resume import load_optimizers, restore
from training.run_folder import locked_run_folder

LINE = f"train.py {SMALL} {NO_EVALUATION} max_steps=1503"
BEGUN = asdict(Train(dataset=Moons(), model=MLP()))
LONG = f"train.py {SMALL} {NO_EVALUATION} max_steps=300000 task_name=long"


@pytest.fixture
def start():
    """What starts a command in the background; a test that fails leaves none running."""
    running = []

    def begin(line, cwd):
        script, *words = line.split()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**QUIET, "PYTHONPATH": str(ROOT)}
        running.append(subprocess.Popen([sys.executable, ROOT / script, *words], cwd=cwd, env=environment, **pipes))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def wait_for(condition, process):
    """However long a busy machine takes, but not for a process that has ended."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with runs/whole, which was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    done = command(f"{LINE} task_name=runs/whole", folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "whole"


@pytest.fixture
def half(whole, start, tmp_path):
    """The folder of the same training, interrupted by Ctrl-C at some step or other."""
    process = start(f"{LINE} task_name=runs/half threads=1", tmp_path)
    wait_for(lambda: lines(tmp_path / "runs/half/loss.csv") > 5, process)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate()
    assert process.returncode == 130, (said, errors)
    assert "go on with  python train.py resume=runs/half" in said
    assert 0 < checkpoint_file.load(tmp_path / "runs/half")["step"] < 1503
    return tmp_path / "runs" / "half"


def test_resume_alone_goes_on_in_the_folder_and_ends_in_the_same_bits(whole, half):
    place = half.parent.parent
    broken_off = checkpoint_file.load(half)["moment"]
    with (half / "loss.csv").open("a") as file:  # what a crash might have added after its last checkpoint
        file.write("1490,9,9,9\r\n1500,0.")
    (half / ".last.pt.123").write_text("killed")
    done = command("train.py resume=latest", place)
    assert done.returncode == 0, done.stderr
    assert_same_run(whole, half)
    seconds = read_losses(half)["seconds"]
    assert (np.diff(seconds) > 0).all()
    metrics = json.loads((half / "metrics.json").read_text())
    assert metrics["steps"] == 1503 and metrics["loss"] == json.loads((whole / "metrics.json").read_text())["loss"]
    assert metrics["seconds"] > broken_off["seconds"] and metrics["cpu_seconds"] > broken_off["cpu_seconds"]
    names = {"last.pt", "loss.csv", "excess.csv", "loss.png", "metrics.json", ".hydra"}
    assert {p.name for p in half.iterdir()} == names
    assert [p.name for p in place.iterdir()] == ["runs"], "nothing but the run's own folder"


def test_a_finished_run_is_reported_again_and_may_grow(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "metrics.json").unlink()  # killed after the last step, before the report
    (run / "loss.png").unlink()
    done = command("train.py resume=run eval_samples=300", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "metrics.json").read_text())["figures"] and (run / "samples.png").exists()
    assert_same_run(whole, run)
    done = command("train.py resume=run/last.pt max_steps=1600 eval_samples=0", tmp_path)
    assert done.returncode == 0 and "1,600 steps instead of 1,503; the learning rate now follows" in done.stdout
    assert read_losses(run)["step"].tolist() == [*range(10, 1501, 10), 1503, *range(1510, 1601, 10)]
    config = checkpoint_file.load(run)["config"]
    assert config["max_steps"] == 1600 and config["num_epochs"] == 100  # what the default came to
    done = command("train.py resume=run num_epochs=210 eval_samples=0", tmp_path)  # of 250 rows, in batches of 32
    assert done.returncode == 0 and checkpoint_file.load(run)["step"] == 1641


def test_a_run_from_before_there_were_shards_goes_on_to_the_same_bits(whole, tmp_path):
    for name in ("new", "old"):
        shutil.copytree(whole, tmp_path / name)
    state = checkpoint_file.load(tmp_path / "old")
    assert state["config"].pop("shards") == 1
    checkpoint_file.save(tmp_path / "old" / "last.pt", state)
    for name in ("new", "old"):
        options = Train(Moons(), MLP(), resume=str(tmp_path / name), max_steps=1510, eval_samples=0)
        begin_or_resume(options, tmp_path / name, {"resume", "max_steps", "eval_samples"})
    assert_same_run(tmp_path / "new", tmp_path / "old")
    assert checkpoint_file.load(tmp_path / "old")["config"]["shards"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("lr=1e-3", "resume=run was trained with lr=0.012, not lr=0.001"),
        ("model.hidden=64", "was trained with model.hidden=32, not model.hidden=64"),
        ("dataset=circles", "was trained with dataset=moons, not dataset=circles"),
        ("seed=1", "was trained with seed=0, not seed=1"),
        ("max_steps=200", "run was to be trained for 1503 steps: that may grow, not fall to 200"),
        ("num_epochs=3", "may grow, not fall to 24"),
        ("task_name=other", "resume=run goes on in that folder, not in task_name=other"),
    ],
)
def test_what_differs_is_refused_by_name(options, words, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = command(f"train.py resume=run {options}", tmp_path)
    assert done.returncode == 1 and words in done.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_the_same_options_typed_again_and_free_ones_are_taken(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    done = command(f"{LINE} resume=run lr=0.012 checkpoint_every=7 task_name=run", tmp_path)
    assert done.returncode == 0, done.stderr


def test_changed_data_are_noticed(tmp_path):
    points = np.random.default_rng(0).normal(size=(500, 2))
    np.save(tmp_path / "points.npy", points)
    line = f"train.py dataset=file dataset.path=points.npy {NO_EVALUATION} model.hidden=8 batch_size=64 max_steps=20"
    assert command(f"{line} task_name=run", tmp_path).returncode == 0
    points[7, 1] += 1e-3
    np.save(tmp_path / "points.npy", points)
    done = command("train.py resume=run max_steps=30", tmp_path)
    assert done.returncode == 1 and "the data are not those that run was trained with" in done.stderr


def test_the_checksum_of_the_data_sees_points_and_labels():
    points, labels = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([0, 1, 0, 1])
    other = points.copy()
    other[3, 1] = np.nextafter(other[3, 1], 9)
    sets = [PointSet(points), PointSet(points, labels), PointSet(points, 1 - labels), PointSet(other, labels)]
    sets += [PointSet(points.astype(np.float64), labels), PointSet(points.reshape(2, 4), labels[:2])]
    assert len({checksum(data) for data in sets}) == len(sets)
    assert checksum(PointSet(points.copy(), labels.copy())) == checksum(sets[1])


# ---------------------------------------------------------------- one folder, one training


def test_of_two_trainings_with_one_name_one_refuses(start, tmp_path):
    processes = [start(f"{LINE} task_name=runs/both", tmp_path) for _ in range(2)]
    said = [process.communicate() for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1], said
    loser = said[[process.returncode for process in processes].index(1)][1]
    assert "runs/both: that folder already holds a run" in loser
    assert read_losses(tmp_path / "runs/both")["step"].tolist()[-1] == 1503


def test_a_running_training_cannot_be_resumed_and_a_killed_one_can(start, tmp_path):
    process = start(f"{LONG} checkpoint_every=20", tmp_path)
    wait_for((tmp_path / "long/last.pt").exists, process)
    done = command("train.py resume=long", tmp_path)
    assert done.returncode == 1 and "another training is at work in long" in done.stderr
    process.kill()
    process.communicate()
    done = command("train.py resume=long seed=1", tmp_path)
    assert "was trained with seed=0" in done.stderr, "no stale lock"


def test_a_new_training_takes_no_used_folder(tmp_path):
    (tmp_path / ".hydra").mkdir()  # which Hydra makes before the training begins
    with locked_run_folder(tmp_path, new=True):
        (tmp_path / "loss.csv").touch()
    with locked_run_folder(tmp_path, new=False):
        pass
    with (
        pytest.raises(ValueError, match="already holds a run; choose another task_name"),
        locked_run_folder(tmp_path, new=True),
    ):
        pass


def test_only_unfinished_files_of_a_training_are_removed(tmp_path):
    """resume=last.pt in one's home takes that for the run folder."""
    litter = {
        ".last.pt.12",
        ".best.pth.3",
        ".metrics.json.3",
        ".loss.png.1",
        "viz/.epoch_01.png.4",
        "viz/.progress.gif.5",
    }
    others = {".bashrc.1", ".last.pt.x", ".training.rrd.5", "photos/.a.png.3", "last.pt.12", ".last.pt", "viz/.note.1"}
    for name in litter | others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with locked_run_folder(tmp_path, new=False):
        pass
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == others


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_training_after_a_save(name, code, start, tmp_path):
    process = start(f"{LONG} record=true", tmp_path)
    wait_for(lambda: lines(tmp_path / "long/loss.csv") > 5, process)
    process.send_signal(getattr(signal, name))
    said, errors = process.communicate()
    assert process.returncode == code, (said, errors)
    step = checkpoint_file.load(tmp_path / "long")["step"]
    assert read_losses(tmp_path / "long")["step"][-1] == step - step % 10
    assert (tmp_path / "long/training.rrd").exists() and "resume=long" in said
    assert not list((tmp_path / "long").glob(".*.*")), "no litter"


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    code = (
        "import os, signal, sys; from training.signals import caught\n"
        "with caught() as found:\n    os.kill(os.getpid(), signal.SIGINT); assert found == [signal.SIGINT]\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and done.stdout == ""


def test_an_ignored_hangup_stays_ignored(tmp_path):
    code = (
        "import os, signal; from training.signals import caught; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with caught() as found:\n    os.kill(os.getpid(), signal.SIGHUP)\n    assert not found"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_signals_are_handled_as_before_when_the_training_is_over():
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.caught():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("viewer", "waited_for"), [(None, ["recording"]), ("file", ["recording"]), ("web", [])])
def test_after_a_signal_a_recording_is_finished_but_a_web_page_is_not_waited_for(viewer, waited_for, capsys):
    closed, stack = [], ExitStack()
    stack.callback(closed.append, "recording")
    with pytest.raises(SystemExit) as end:
        interrupts.end(signal.SIGTERM, Path("my run"), viewer, stack)
    assert end.value.code == 143 and closed == waited_for
    assert "python train.py resume='my run'\n" in capsys.readouterr().out  # as a shell takes it
    stack.pop_all()


# ---------------------------------------------------------------- what cannot be saved


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("lr=1e10 checkpoint_every=5", "try a lower lr or a longer warmup_steps"),
        ("lr=0.1 weight_decay=1e6 warmup_steps=0", "weight_decay=1e+06 times lr=0.1 must stay far below 1"),
    ],
)
def test_a_diverged_training_is_not_saved(options, words, tmp_path):
    done = command(f"{LINE} {options} task_name=run", tmp_path)
    assert done.returncode == 1 and "the training diverged: " in done.stderr and words in done.stderr
    assert "at a learning rate of" in done.stderr and "after step" in done.stderr
    for path in (tmp_path / "run").glob("*.pt"):
        step = checkpoint_file.load(path)["step"]  # raises where anything is not finite
        assert f"the last checkpoint, of step {step}, is intact" in done.stderr
    losses = (tmp_path / "run" / "loss.csv").read_text()
    assert "nan" not in losses and "inf" not in losses


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_nan_and_infinity_in_a_checkpoint_are_named(number, tmp_path):
    checkpoint_file.save(tmp_path / "last.pt", {"net": {"w": torch.tensor([1.0, float(number)])}})
    with pytest.raises(ValueError, match=r"last\.pt is of a training that had diverged: net\.w is not finite"):
        checkpoint_file.load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_ends_in_one_sentence(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        done = command(f"{LINE} task_name=disk/run checkpoint_every=20", tmp_path)
        assert done.returncode == 0, done.stderr  # it fits: 90 kB, and as much while it is replaced
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 40_000))
        done = command("train.py resume=disk/run max_steps=1600 checkpoint_every=20", tmp_path)
        assert done.returncode == 1, done.stdout
        words = "cannot write disk/run/last.pt: No space left on device; the last checkpoint, of step 1503, is intact"
        assert words in done.stderr and "Traceback" not in done.stderr
        assert not list((disk / "run").glob(".*.pt.*"))
        (disk / "filler").unlink()
        assert command("train.py resume=disk/run max_steps=1600", tmp_path).returncode == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def limited(line, size, cwd):
    """`python LINE` where no file may grow beyond so many kB."""
    script, *words = line.split()
    limit = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size * 1024},) * 2)\n"
    run = f"sys.argv = {[str(ROOT / script), *words]}; runpy.run_path(sys.argv[0], run_name='__main__')"
    return python(limit + run, cwd)


def test_a_limit_of_file_sizes_ends_in_one_sentence(tmp_path):
    done = limited(f"{LINE} task_name=run", 40, tmp_path)  # kB: less than the checkpoint
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot write run/last.pt: File too large; there is no checkpoint yet" in done.stderr
    assert not list((tmp_path / "run").glob(".*.pt.*"))


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("cut", [2, 3, 9])
def test_a_torn_last_row_is_left_out_and_named(cut, whole, tmp_path, capsys):
    for name in ("loss.csv", "excess.csv"):
        (tmp_path / name).write_bytes((whole / name).read_bytes()[:-cut])
    assert len(read_losses(tmp_path)["step"]) == len(read_losses(whole)["step"]) - 1
    assert len(read_excess(tmp_path)["step"]) == len(read_excess(whole)["step"]) - 1
    said = capsys.readouterr().err
    assert "loss.csv: the last row is torn" in said and "excess.csv: the last row is torn" in said


def test_a_torn_row_does_not_pass_for_an_old_one(tmp_path):
    path, whole = tmp_path / "loss.csv", b"step,loss,lr,seconds,stable_loss\r\n10,1,1,1,1\r\n20,1,1,1,1\r\n"
    for torn in (b"", b"3", b"30,1", b"30,1,1,1,1\r\n40,1,1"):  # 3 is the beginning of 30
        path.write_bytes(whole + torn)
        opened(path, COLUMNS, 20).close()
        assert path.read_bytes() == whole


def test_another_table_is_refused(tmp_path):
    (tmp_path / "loss.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"not a loss\.csv"):
        read_losses(tmp_path)
    (tmp_path / "loss.csv").write_text("")
    with pytest.raises(ValueError, match="holds no row yet"):
        read_losses(tmp_path)


def test_grids_of_both_parts_are_in_the_film(tmp_path):
    from PIL import Image

    line = (
        "train.py dataset=digits model=unet_small model.channels=[8,8] model.heads=2 num_samples=200 batch_size=50"
        f" num_timesteps=20 {NO_EVALUATION} viz_save=true viz_interval=3 viz_num=2"
    )
    done = command(f"{line} max_steps=10 task_name=run", tmp_path)
    assert done.returncode == 0, done.stderr
    film = tmp_path / "run/viz/progress.gif"
    before = Image.open(film).n_frames
    done = command("train.py resume=run max_steps=16", tmp_path)
    assert done.returncode == 0, done.stderr
    pictures = len(list((tmp_path / "run/viz").glob("*.png")))
    assert Image.open(film).n_frames == pictures > before


def test_each_part_of_a_training_has_its_recording(tmp_path):
    line = f"{LINE} record=true max_steps=20 task_name=run"
    assert command(line, tmp_path).returncode == 0
    first = (tmp_path / "run/training.rrd").read_bytes()
    (tmp_path / "run/.training-2.rrd.99").write_bytes(first[:-100])  # of a training that was killed
    done = command("train.py resume=run max_steps=30", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/training.rrd").read_bytes() == first
    assert (tmp_path / "run/training-2.rrd").read_bytes() == first[:-100]
    assert (tmp_path / "run/training-3.rrd").exists() and not list((tmp_path / "run").glob(".*rrd*"))


def test_a_sweep_and_a_checkpoint_without_options_are_refused(tmp_path):
    (tmp_path / "run").mkdir()
    checkpoint_file.save(tmp_path / "run" / "last.pt", {"step": 3})
    done = command("train.py -m resume=run max_steps=20,30", tmp_path)
    assert done.returncode == 1 and done.stderr.strip() == "resume= goes on with one training: leave out -m"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    done = command("train.py resume=run lr=1e-3", tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == "the checkpoint of run cannot be resumed: it lacks its options"


def without(options, *names):
    """The same nested dictionary, less an entry."""
    head, *rest = names
    return {k: without(v, *rest) if k == head else v for k, v in options.items() if rest or k != head}


@pytest.mark.parametrize(
    ("begun", "words"),
    [
        (None, "it lacks its options"),
        ({}, "it lacks its options"),
        ("text", "it lacks its options"),
        (without(BEGUN, "references"), "it lacks references, as if from another version of moonwalk"),
        (without(BEGUN, "dataset", "embed"), "version of moonwalk: moons without embed"),
        ({**BEGUN, "model": {"name": "nothing"}}, "version of moonwalk: none of mlp, linear"),
        ({**BEGUN, "dataset": torch.zeros(3)}, "version of moonwalk: none of moons, circles"),
        ({**BEGUN, "sharpness": 3}, "version of moonwalk: .*'sharpness'"),
        ({**BEGUN, "lr": "fast"}, "version of moonwalk: Value 'fast'"),
        ({**BEGUN, "lr": -1.0}, "version of moonwalk: lr must be above 0"),
    ],
)
def test_options_in_a_checkpoint_are_held_against_those_there_are(begun, words):
    with pytest.raises(ValueError, match=f"^the checkpoint of run cannot be resumed: .*{words}"):
        resumed_options(Train(dataset=Moons(), model=MLP(), lr=1e-3), {"lr"}, begun, Path("run"))


def test_an_option_that_an_older_version_had_is_left_out():
    begun = {**BEGUN, "cuda_graph": True}
    assert resumed_options(Train(dataset=Moons(), model=MLP()), set(), begun, Path("run")) == Train(
        dataset=Moons(), model=MLP()
    )


def test_options_that_may_change_may_be_missing():
    begun = without(BEGUN, "viz_num")
    assert resumed_options(Train(dataset=Moons(), model=MLP(), threads=2), {"threads"}, begun, Path("run")).threads == 2


@pytest.mark.parametrize(
    ("asked", "typed", "words"),
    [
        ({"model": MLP(hidden=64)}, "model.hidden", "model=linear, not model=mlp"),  # which has no hidden
        ({"model": MLP(prediction="eps")}, "model.prediction", "model.prediction=v, not model.prediction=eps"),
        ({"ema_decay": 0.9}, "ema_decay", "ema_decay=null, not ema_decay=0.9"),
        ({"conditional": True}, "conditional", "conditional=false, not conditional=true"),
    ],
)
def test_what_differs_is_named_as_one_types_it(asked, typed, words):
    begun = asdict(Train(dataset=Moons(), model=Linear()))
    options = Train(**{"dataset": Moons(), "model": Linear(), **asked})
    with pytest.raises(ValueError, match=f"^resume=run was trained with {words}, and keeps that: leave out {typed}=$"):
        resumed_options(options, {typed}, begun, Path("run"))


PARTS = ["moment", "total", "optimizers", "losses", "net", "ema"]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_or_wrong_is_refused_as_such(part, tmp_path):
    """In one sentence, which does not call a wrong part a missing one."""
    net = build_model(dims=(2,), num_timesteps=8, num_labels=0, name="mlp", hidden=8, layers=2, frequencies=1)
    learner = Learner(net, make_optimizers(net, "muon", lr=0.1, weight_decay=0.0), None)
    data = make_dataset("moons", 64, 0, noise=0.05)
    t = torch.zeros(4, dtype=torch.long)
    learner.learn(
        partial(training_loss, net, LinearNoiseScheduler(8)), (torch.ones(4, 2), t, torch.ones(4, 2), None), 0.1
    )
    state = {**learner.state(), "moment": Moment(3)._asdict(), "total": 5, "data": checksum(data)}
    assert restore(learner, state, data, 5, "run") == Moment(3)
    with pytest.raises(ValueError, match=f"the checkpoint of run cannot be resumed: it lacks '{part}'"):
        restore(learner, without(state, part), data, 5, "run")
    other = {"optimizers": [{}, {}], "losses": torch.zeros(3), "total": torch.zeros(2), "moment": {"done": 1.5}}
    for wrong in (None, "x", [], {}, 1.5, torch.zeros(3), other.get(part)):
        with pytest.raises(ValueError, match=r"^the checkpoint (of )?run (cannot be resumed|holds)") as error:
            restore(learner, {**state, part: wrong}, data, 5, "run")
        assert "lacks" not in str(error.value)


def test_the_state_of_other_optimizers_is_refused(tmp_path):
    nets = [torch.nn.Linear(3, n) for n in (4, 5)]
    mine, theirs = ([torch.optim.AdamW(net.parameters())] for net in nets)
    nets[1](torch.ones(1, 3)).sum().backward()
    theirs[0].step()
    with pytest.raises(ValueError, match=r"the checkpoint of run cannot be resumed: its optimizers are others"):
        load_optimizers(mine, [each.state_dict() for each in theirs], "run")


@pytest.mark.parametrize("row", [b"x,1,2,3,4", b"", b",", b"1e3,1", b"\xff,2"])
def test_a_broken_row_in_the_middle_of_a_table_is_named(row, tmp_path):
    path = tmp_path / "loss.csv"
    path.write_bytes(b"step,loss,lr,seconds,stable_loss\n10,1,1,1,1\n" + row + b"\n20,1,1,1,1\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"loss\.csv is not a loss\.csv of moonwalk"):
        opened(path, COLUMNS, 20)
    assert path.read_bytes() == before


def test_a_recording_that_cannot_be_written_ends_in_one_sentence(tmp_path):
    done = limited("main.py viewer=file", 100, tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == "cannot write the recording outputs/forward.rrd, most likely because the disk is full"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
