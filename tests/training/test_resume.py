"""A training that was interrupted goes on in its own folder, and ends as one that was not."""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import GAUSSIANS, NO_EVALUATION, ROOT, SMALL, begun, command, python, succeeded
from PIL import Image

from conf.config import Train
from conf.groups import MLP, Circles, Linear, Moons
from conf.resumed import resumed_options
from dataset import PointSet, make_dataset
from loss.log import LOSS_COLUMNS, open_table, read_excess, read_losses
from loss.moments import Moment
from loss.objective import training_loss
from model import build_model
from runtime import checkpoint_file
from schedule import LinearNoiseScheduler
from tests.campaigns.crashes import assert_same_run
from train import begin_or_resume
from training import signals
from training.checksum import checksum
from training.learner import Learner
from training.optimizers import make_optimizers
from training.resume import load_optimizers, restore
from training.run_folder import locked_run_folder

LINE = f"train.py {GAUSSIANS} {SMALL} {NO_EVALUATION} max_steps=153"
BEGUN = asdict(Train(dataset=Moons(), model=MLP()))
LONG = f"train.py {GAUSSIANS} {SMALL} {NO_EVALUATION} max_steps=300000 task_name=long"


@pytest.fixture
def start():
    """Begins commands in the background. A test that fails leaves none running."""
    running = []

    def begin(line, cwd):
        running.append(begun(line, cwd))
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
    """The run folder of a training that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    succeeded(f"{LINE} task_name=runs/whole", folder)
    return folder / "runs" / "whole"


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of that folder, tmp_path / "run"."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


# ---------------------------------------------------------------- an interrupted training


class Interrupted(NamedTuple):
    """The same training, which was sent Ctrl-C in step 60."""

    folder: Path  # the run folder
    code: int
    printed: str
    checkpoint: dict


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("interrupted")
    words = f"{LINE} task_name=runs/half threads=1".split()[1:]
    code = f"""
import os, runpy, signal, sys
from loss.log import LossLog
after = LossLog.after
def interrupt(self, moment):
    after(self, moment)
    if moment.done == 60:
        os.kill(os.getpid(), signal.SIGINT)
LossLog.after = interrupt
sys.argv = {[str(ROOT / "train.py"), *words]}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = python(code, cwd)
    folder = cwd / "runs" / "half"
    return Interrupted(folder, done.returncode, done.stdout, checkpoint_file.load(folder))


def test_ctrl_c_ends_a_training_with_130_and_says_how_to_go_on(interrupted):
    assert interrupted.code == 130
    assert "go on with  python train.py resume=runs/half" in interrupted.printed


def test_ctrl_c_ends_a_training_after_a_save_of_that_step_or_the_next(interrupted):
    assert interrupted.checkpoint["step"] in (60, 61)


@pytest.fixture(scope="module")
def resumed(interrupted):
    """The run folder of the interrupted training, which was resumed without naming it, after a crash left litter."""
    folder = interrupted.folder
    with (folder / "loss.csv").open("a") as file:  # what a crash might have added after its last checkpoint
        file.write("140,9,9,9\r\n150,0.")
    (folder / ".last.pt.123").write_text("killed")
    succeeded("train.py resume=latest", folder.parent.parent)
    return folder


def test_a_resumed_training_ends_in_the_same_bits_as_one_that_was_not_interrupted(whole, resumed):
    assert_same_run(whole, resumed)


def test_the_seconds_of_a_resumed_training_go_on(interrupted, resumed):
    before = interrupted.checkpoint["moment"]
    metrics = json.loads((resumed / "metrics.json").read_text())
    assert (np.diff(read_losses(resumed)["seconds"]) > 0).all()
    assert metrics["seconds"] > before["seconds"] and metrics["cpu_seconds"] > before["cpu_seconds"]


def test_the_metrics_of_a_resumed_training_are_those_of_the_whole_one(whole, resumed):
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (whole, resumed))
    assert other["steps"] == 153
    assert other["loss"] == one["loss"]


def test_a_resumed_training_leaves_the_files_of_a_run_and_no_litter(resumed):
    names = {"last.pt", "loss.csv", "excess.csv", "loss.png", "metrics.json", ".hydra"}
    assert {p.name for p in resumed.iterdir()} == names


def test_a_resumed_training_goes_on_in_its_own_folder(resumed):
    assert [p.name for p in resumed.parent.parent.iterdir()] == ["runs"]


# ---------------------------------------------------------------- a finished training


def test_a_finished_training_is_reported_again_without_another_step(whole, finished, tmp_path):
    (finished / "metrics.json").unlink()  # killed after the last step, before the report
    (finished / "loss.png").unlink()
    succeeded("train.py resume=run eval_samples=300", tmp_path)
    assert json.loads((finished / "metrics.json").read_text())["figures"]
    assert (finished / "samples.png").exists()
    assert_same_run(whole, finished)


@pytest.fixture(scope="module")
def grown(whole, tmp_path_factory):
    """The run folder of the finished training, resumed for 180 steps in all; and what that printed."""
    cwd = tmp_path_factory.mktemp("grown")
    shutil.copytree(whole, cwd / "run")
    return cwd / "run", succeeded("train.py resume=run/last.pt max_steps=180 eval_samples=0", cwd)


def test_a_finished_training_may_grow_and_says_that_its_learning_rate_changes(grown):
    assert "180 steps instead of 153; the learning rate now follows" in grown[1]


def test_the_losses_of_a_training_that_grew_go_on_behind_its_former_last_step(grown):
    assert read_losses(grown[0])["step"].tolist() == [*range(10, 151, 10), 153, 160, 170, 180]


def test_a_training_that_grew_keeps_its_new_length_and_the_default_number_of_epochs(grown):
    config = checkpoint_file.load(grown[0])["config"]
    assert config["max_steps"] == 180
    assert config["num_epochs"] == 100  # what the default came to


@pytest.mark.slow  # the quick one is that of steps
def test_a_finished_training_may_grow_by_epochs(finished, tmp_path):
    succeeded("train.py resume=run num_epochs=25 eval_samples=0", tmp_path)
    assert checkpoint_file.load(finished)["step"] == 196  # 25 times 2,000 rows, in batches of 256


@pytest.mark.slow
def test_a_run_from_before_there_were_shards_goes_on_to_the_same_bits(whole, tmp_path):
    for name in ("new", "old"):
        shutil.copytree(whole, tmp_path / name)
    state = checkpoint_file.load(tmp_path / "old")
    assert state["config"].pop("shards") == 1
    checkpoint_file.save(tmp_path / "old" / "last.pt", state)
    for name in ("new", "old"):
        options = Train(Moons(), MLP(), resume=str(tmp_path / name), max_steps=160, eval_samples=0)
        begin_or_resume(options, tmp_path / name, {"resume", "max_steps", "eval_samples"})
    assert_same_run(tmp_path / "new", tmp_path / "old")
    assert checkpoint_file.load(tmp_path / "old")["config"]["shards"] == 1


# ---------------------------------------------------------------- what may not change


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("lr=1e-3", "resume=run was trained with lr=0.02, not lr=0.001"),
        ("max_steps=120", "run was to be trained for 153 steps: that may grow, not fall to 120 steps"),
        ("task_name=other", "resume=run goes on in that folder, not in task_name=other"),
    ],
)
def test_what_differs_is_refused_by_name_and_changes_no_file(options, words, finished, tmp_path):
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = command(f"train.py resume=run {options}", tmp_path)
    assert done.returncode == 1 and words in done.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_the_same_options_typed_again_and_free_ones_are_taken(finished, tmp_path):
    succeeded(f"{LINE} resume=run lr=0.02 checkpoint_every=7 task_name=run", tmp_path)


@pytest.mark.slow
def test_changed_data_are_noticed(tmp_path):
    points = np.random.default_rng(0).normal(size=(500, 2))
    np.save(tmp_path / "points.npy", points)
    line = f"train.py dataset=file dataset.path=points.npy {NO_EVALUATION} model.hidden=8 batch_size=64 max_steps=20"
    succeeded(f"{line} task_name=run", tmp_path)
    points[7, 1] += 1e-3
    np.save(tmp_path / "points.npy", points)
    done = command("train.py resume=run max_steps=30", tmp_path)
    assert done.returncode == 1 and "the data are not those that run was trained with" in done.stderr


POINTS, LABELS = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([0, 1, 0, 1])


def test_the_checksum_of_the_data_sees_points_their_type_their_shape_and_labels():
    other = POINTS.copy()
    other[3, 1] = np.nextafter(other[3, 1], 9)
    sets = [PointSet(POINTS), PointSet(POINTS, LABELS), PointSet(POINTS, 1 - LABELS), PointSet(other, LABELS)]
    sets += [PointSet(POINTS.astype(np.float64), LABELS), PointSet(POINTS.reshape(2, 4), LABELS[:2])]
    assert len({checksum(data) for data in sets}) == len(sets)


def test_the_checksum_of_equal_data_is_the_same():
    assert checksum(PointSet(POINTS.copy(), LABELS.copy())) == checksum(PointSet(POINTS, LABELS))


# ---------------------------------------------------------------- one folder, one training


@pytest.mark.slow
def test_of_two_trainings_with_one_name_one_refuses_and_the_other_ends(start, tmp_path):
    processes = [start(f"{LINE} task_name=runs/both", tmp_path) for _ in range(2)]
    said = [process.communicate() for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1], said
    loser = said[[process.returncode for process in processes].index(1)][1]
    assert "runs/both: that folder already holds a run" in loser
    assert read_losses(tmp_path / "runs/both")["step"].tolist()[-1] == 153


@pytest.mark.slow
def test_a_running_training_cannot_be_resumed_and_a_killed_one_leaves_no_lock(start, tmp_path):
    process = start(f"{LONG} checkpoint_every=20", tmp_path)
    wait_for((tmp_path / "long/last.pt").exists, process)
    done = command("train.py resume=long", tmp_path)
    assert done.returncode == 1 and "another training is at work in long" in done.stderr
    process.kill()
    process.communicate()
    done = command("train.py resume=long seed=1", tmp_path)
    assert "was trained with seed=0" in done.stderr


def test_a_new_training_takes_a_folder_with_the_options_that_hydra_left(tmp_path):
    (tmp_path / ".hydra").mkdir()
    with locked_run_folder(tmp_path, new=True):
        pass


def test_a_resumed_training_takes_a_used_folder(tmp_path):
    (tmp_path / "loss.csv").touch()
    with locked_run_folder(tmp_path, new=False):
        pass


def test_a_new_training_takes_no_used_folder(tmp_path):
    (tmp_path / "loss.csv").touch()
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


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SIGTERM", 143),
        pytest.param("SIGHUP", 129, marks=pytest.mark.slow),
        pytest.param("SIGINT", 130, marks=pytest.mark.slow),
    ],
)
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


def test_a_second_ctrl_c_ends_at_once():
    code = (
        "import os, signal, sys; from training.signals import caught\n"
        "with caught() as found:\n    os.kill(os.getpid(), signal.SIGINT); assert found == [signal.SIGINT]\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('still here')"
    )
    done = python(code, ROOT)
    assert done.returncode == 130 and done.stdout == ""


def test_an_ignored_hangup_stays_ignored():
    code = (
        "import os, signal; from training.signals import caught; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with caught() as found:\n    os.kill(os.getpid(), signal.SIGHUP)\n    assert not found"
    )
    assert python(code, ROOT).returncode == 0


def test_signals_are_handled_as_before_when_the_training_is_over():
    before = signal.getsignal(signal.SIGTERM)
    with signals.caught():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("viewer", "waited_for"), [(None, ["recording"]), ("file", ["recording"]), ("web", [])])
def test_after_a_signal_a_recording_is_finished_but_a_web_page_is_not_waited_for(viewer, waited_for):
    closed, stack = [], ExitStack()
    stack.callback(closed.append, "recording")
    with pytest.raises(SystemExit) as end:
        signals.end(signal.SIGTERM, Path("my run"), viewer, stack)
    assert end.value.code == 143 and closed == waited_for
    stack.pop_all()


def test_after_a_signal_the_line_that_goes_on_is_printed_as_a_shell_takes_it(capsys):
    with pytest.raises(SystemExit):
        signals.end(signal.SIGTERM, Path("my run"), None, ExitStack())
    assert "python train.py resume='my run'\n" in capsys.readouterr().out


# ---------------------------------------------------------------- what cannot be saved


class Diverged(NamedTuple):
    """A training that diverged: its run folder, how it ended, and what it should advise."""

    folder: Path
    code: int
    errors: str
    advice: str


@pytest.fixture(
    scope="module",
    params=[
        ("lr=1e10 checkpoint_every=5", "try a lower lr or a longer warmup_steps"),
        pytest.param(
            ("lr=0.1 weight_decay=1e6 warmup_steps=0", "weight_decay=1e+06 times lr=0.1 must stay far below 1"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["lr", "weight_decay"],
)
def diverged(request, tmp_path_factory):
    options, advice = request.param
    cwd = tmp_path_factory.mktemp("diverged")
    done = command(f"{LINE} {options} task_name=run", cwd)
    return Diverged(cwd / "run", done.returncode, done.stderr, advice)


def test_a_diverged_training_ends_with_advice(diverged):
    assert diverged.code == 1
    assert "the training diverged: " in diverged.errors and diverged.advice in diverged.errors


def test_a_diverged_training_says_when_and_at_which_learning_rate(diverged):
    assert "at a learning rate of" in diverged.errors and "after step" in diverged.errors


def test_a_diverged_training_is_not_saved(diverged):
    for path in diverged.folder.glob("*.pt"):
        step = checkpoint_file.load(path)["step"]  # raises where anything is not finite
        assert f"the last checkpoint, of step {step}, is intact" in diverged.errors


def test_the_losses_of_a_diverged_training_are_finite(diverged):
    losses = (diverged.folder / "loss.csv").read_text()
    assert "nan" not in losses and "inf" not in losses


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_nan_and_infinity_in_a_checkpoint_are_named(number, tmp_path):
    checkpoint_file.save(tmp_path / "last.pt", {"net": {"w": torch.tensor([1.0, float(number)])}})
    with pytest.raises(ValueError, match=r"last\.pt is of a training that had diverged: net\.w is not finite"):
        checkpoint_file.load(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB: room for a checkpoint of 90 kB, and as much while it is replaced."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_ends_in_one_sentence_and_with_room_the_training_goes_on(whole, small_disk, tmp_path):
    line = "train.py resume=disk/run max_steps=180 checkpoint_every=20"
    shutil.copytree(whole, small_disk / "run")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 40_000))
    done = command(line, tmp_path)
    assert done.returncode == 1, done.stdout
    words = "cannot write disk/run/last.pt: No space left on device; the last checkpoint, of step 153, is intact"
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not list((small_disk / "run").glob(".*.pt.*"))
    (small_disk / "filler").unlink()
    succeeded(line, tmp_path)


def limited(line, size, cwd):
    """`python LINE` where no file may grow beyond so many kB."""
    script, *words = line.split()
    limit = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size * 1024},) * 2)\n"
    run = f"sys.argv = {[str(ROOT / script), *words]}; runpy.run_path(sys.argv[0], run_name='__main__')"
    return python(limit + run, cwd)


@pytest.mark.slow
def test_a_limit_of_file_sizes_ends_in_one_sentence(tmp_path):
    done = limited(f"{LINE} task_name=run", 40, tmp_path)  # kB: less than the checkpoint
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot write run/last.pt: File too large; there is no checkpoint yet" in done.stderr
    assert not list((tmp_path / "run").glob(".*.pt.*"))


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("cut", [2, 3, 9])
@pytest.mark.parametrize(("name", "read"), [("loss.csv", read_losses), ("excess.csv", read_excess)])
def test_a_torn_last_row_is_left_out_and_named(name, read, cut, whole, tmp_path, capsys):
    (tmp_path / name).write_bytes((whole / name).read_bytes()[:-cut])
    assert len(read(tmp_path)["step"]) == len(read(whole)["step"]) - 1
    assert f"{name}: the last row is torn" in capsys.readouterr().err


@pytest.mark.parametrize("torn", [b"", b"3", b"30,1", b"30,1,1,1,1\r\n40,1,1"])  # 3 is the beginning of 30
def test_a_torn_row_does_not_pass_for_an_old_one(torn, tmp_path):
    path, rows = tmp_path / "loss.csv", b"step,loss,lr,seconds,stable_loss\r\n10,1,1,1,1\r\n20,1,1,1,1\r\n"
    path.write_bytes(rows + torn)
    open_table(path, LOSS_COLUMNS, 20).close()
    assert path.read_bytes() == rows


@pytest.mark.parametrize(("content", "words"), [("a,b\n1,2\n", r"not a loss\.csv"), ("", "holds no row yet")])
def test_a_table_that_is_another_or_empty_is_refused(content, words, tmp_path):
    (tmp_path / "loss.csv").write_text(content)
    with pytest.raises(ValueError, match=words):
        read_losses(tmp_path)


@pytest.mark.slow
def test_grids_of_both_parts_of_a_training_are_in_the_film(tmp_path):
    line = (
        "train.py dataset=digits model=unet_small model.channels=[8,8] model.heads=2 num_samples=200 batch_size=50"
        f" num_timesteps=20 {NO_EVALUATION} viz_save=true viz_interval=3 viz_num=2"
    )
    succeeded(f"{line} max_steps=10 task_name=run", tmp_path)
    film = tmp_path / "run/viz/progress.gif"
    before = Image.open(film).n_frames
    succeeded("train.py resume=run max_steps=16", tmp_path)
    pictures = len(list((tmp_path / "run/viz").glob("*.png")))
    assert Image.open(film).n_frames == pictures > before


@pytest.mark.slow
def test_each_part_of_a_training_has_its_recording(tmp_path):
    succeeded(f"{LINE} record=true max_steps=20 task_name=run", tmp_path)
    first = (tmp_path / "run/training.rrd").read_bytes()
    (tmp_path / "run/.training-2.rrd.99").write_bytes(first[:-100])  # of a training that was killed
    succeeded("train.py resume=run max_steps=30", tmp_path)
    assert (tmp_path / "run/training.rrd").read_bytes() == first
    assert (tmp_path / "run/training-2.rrd").read_bytes() == first[:-100]
    assert (tmp_path / "run/training-3.rrd").exists() and not list((tmp_path / "run").glob(".*rrd*"))


# ---------------------------------------------------------------- options in a checkpoint


@pytest.fixture
def without_options(tmp_path):
    """A folder with the run `run`, whose checkpoint holds a step and nothing else."""
    (tmp_path / "run").mkdir()
    checkpoint_file.save(tmp_path / "run" / "last.pt", {"step": 3})
    return tmp_path


def test_a_sweep_is_not_resumed(without_options):
    done = command("train.py -m resume=run max_steps=20,30", without_options)
    assert done.returncode == 1 and done.stderr.strip() == "resume= goes on with one training: leave out -m"
    assert [path.name for path in without_options.iterdir()] == ["run"]


def test_a_checkpoint_without_options_is_not_resumed(without_options):
    done = command("train.py resume=run lr=1e-3", without_options)
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


def test_a_run_of_before_even_batches_keeps_its_shuffled_ones():
    begun = without(BEGUN, "batches")
    assert resumed_options(Train(dataset=Moons(), model=MLP()), set(), begun, Path("run")).batches == "shuffled"


def test_options_that_may_change_may_be_missing():
    begun = without(BEGUN, "viz_num")
    assert resumed_options(Train(dataset=Moons(), model=MLP(), threads=2), {"threads"}, begun, Path("run")).threads == 2


@pytest.mark.parametrize(
    ("asked", "typed", "words"),
    [
        ({"model": MLP(hidden=64)}, "model.hidden", "model=linear, not model=mlp"),  # which has no hidden
        ({"model": MLP(prediction="eps")}, "model.prediction", "model.prediction=v, not model.prediction=eps"),
        ({"dataset": Circles()}, "dataset", "dataset=moons, not dataset=circles"),
        ({"seed": 1}, "seed", "seed=0, not seed=1"),
        ({"ema_decay": 0.9}, "ema_decay", "ema_decay=null, not ema_decay=0.9"),
        ({"conditional": True}, "conditional", "conditional=false, not conditional=true"),
    ],
)
def test_what_differs_is_named_as_one_types_it(asked, typed, words):
    begun = asdict(Train(dataset=Moons(), model=Linear()))
    options = Train(**{"dataset": Moons(), "model": Linear(), **asked})
    with pytest.raises(ValueError, match=f"^resume=run was trained with {words}, and keeps that: leave out {typed}=$"):
        resumed_options(options, {typed}, begun, Path("run"))


class Saved(NamedTuple):
    """A learner after one step, the state that its checkpoint holds, and the data."""

    learner: Learner
    state: dict
    data: PointSet

    def restore(self, state):
        return restore(self.learner, state, self.data, 5, {}, "run")


@pytest.fixture
def saved():
    net = build_model(dims=(2,), num_timesteps=8, num_labels=0, name="mlp", hidden=8, layers=2, frequencies=1)
    learner = Learner(net, make_optimizers(net, "muon", lr=0.1, weight_decay=0.0), None)
    data = make_dataset("moons", 64, 0, noise=0.05)
    batch = torch.ones(4, 2), torch.zeros(4, dtype=torch.long), torch.ones(4, 2), None
    learner.learn(partial(training_loss, net, LinearNoiseScheduler(8)), batch, 0.1)
    return Saved(learner, {**learner.state(), "moment": Moment(3)._asdict(), "total": 5, "data": checksum(data)}, data)


EACH_PART = pytest.mark.parametrize("part", ["moment", "total", "optimizers", "losses", "net", "ema"])


def test_a_checkpoint_with_all_its_parts_is_restored(saved):
    assert saved.restore(saved.state) == Moment(3)


@EACH_PART
def test_a_part_that_is_missing_is_named(part, saved):
    with pytest.raises(ValueError, match=f"the checkpoint of run cannot be resumed: it lacks '{part}'"):
        saved.restore(without(saved.state, part))


@EACH_PART
def test_a_part_that_is_wrong_is_refused_and_not_called_missing(part, saved):
    other = {"optimizers": [{}, {}], "losses": torch.zeros(3), "total": torch.zeros(2), "moment": {"done": 1.5}}
    for wrong in (None, "x", [], {}, 1.5, torch.zeros(3), other.get(part)):
        with pytest.raises(ValueError, match=r"^the checkpoint (of )?run (cannot be resumed|holds)") as error:
            saved.restore({**saved.state, part: wrong})
        assert "lacks" not in str(error.value)


def test_a_shorter_length_is_refused_in_steps_and_in_epochs(saved):
    state = {**saved.state, "total": 118, "config": {"max_steps": None, "num_epochs": 59}}
    asked = {"max_steps": None, "num_epochs": 18}
    words = r"for 118 steps \(num_epochs=59\): that may grow, not fall to 36 steps \(num_epochs=18\)$"
    with pytest.raises(ValueError, match=words):
        restore(saved.learner, state, saved.data, 36, asked, "run")


def test_the_state_of_other_optimizers_is_refused():
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
        open_table(path, LOSS_COLUMNS, 20)
    assert path.read_bytes() == before


def test_a_recording_that_cannot_be_written_ends_in_one_sentence(tmp_path):
    done = limited("main.py viewer=file", 100, tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == "cannot write the recording outputs/forward.rrd, most likely because the disk is full"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
