"""Pages, folders and clocks under failures, in short; `python -m tests.campaigns.accidents` tries them at length."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import command

from points import large
from tests.campaigns.accidents import (
    assert_bar_goes_on,
    break_page_maker,
    fail_in_second_process,
    fill_disk_in_evaluation,
    fill_disk_of_second_process,
    move_runs,
    page_makers,
    two_in_one_folder,
    write_to_full_disk,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="failures are tried in forked children")


@pytest.fixture(scope="module")
def makers(tmp_path_factory):
    """The programs that make pages, with their arguments."""
    return page_makers(tmp_path_factory.mktemp("makers"))


@pytest.mark.parametrize(
    ("script", "how", "every"),
    [
        ("scripts/gallery.py", "killed", 14),
        pytest.param("scripts/gallery.py", "disk full", 14, marks=pytest.mark.slow),
        pytest.param("scripts/share.py", "killed", 2, marks=pytest.mark.slow),
        pytest.param("loss/report.py", "killed", 2, marks=pytest.mark.slow),
    ],
)
def test_a_page_maker_that_is_struck_leaves_old_or_new_files(script, how, every, makers, tmp_path):
    assert break_page_maker(tmp_path, script, makers[script], how, every).total() >= 3


@pytest.mark.slow
def test_a_disk_that_fills_during_the_evaluation_of_two_processes(tmp_path):
    assert fill_disk_in_evaluation(tmp_path, every=25).keys() == {"metrics.json", "pictures"}


needs_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")


@pytest.mark.slow
@needs_full_device
def test_a_disk_that_fills_in_the_second_of_two_processes(tmp_path):
    found = fill_disk_of_second_process(tmp_path, every=8)
    assert found == {"ended in one sentence": 3, "resumed to the same bits": 2, "not noticed, to the same bits": 1}


def read_unusable_row():
    """A large file holds NaN in the last of its rows, which is read."""
    large.RowFile("rows.npy", (11, 2), np.dtype("f4"), 128).read(torch.tensor([10]))


@needs_full_device
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (write_to_full_disk, "cannot write in run: No space left on device"),
        (read_unusable_row, "rows.npy holds NaN in row 10, column 0 (both count from 0): remove the row, or write a"),
    ],
)
def test_an_error_in_the_second_process_ends_both_and_names_the_last_checkpoint(fault, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.full((11, 2), np.nan, np.float32))
    codes, message = fail_in_second_process(Path("run"), fault, step=8)
    assert codes == [1, 1], message
    (line,) = message.splitlines()
    assert line.startswith(f"process 1: {sentence}")
    assert line.endswith("; the last checkpoint, of step 6, is intact")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "file"])
def test_a_run_folder_that_was_moved_goes_on_to_the_same_bits(kind, tmp_path):
    assert move_runs(tmp_path, kind, count=2, seed=1) == 2


@pytest.mark.slow
def test_two_commands_at_once_do_not_share_a_folder(run, tmp_path):
    assert two_in_one_folder(tmp_path, run, pairs=1, seed=0).total() == 1


@pytest.mark.parametrize("jumps", [[-3600], [3600, -86_400]])
def test_a_bar_goes_on_where_the_clock_jumps(jumps):
    assert_bar_goes_on(jumps)


def test_a_folder_in_use_is_refused_before_anything_is_written(run, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    shutil.copytree(run, tmp_path / "run")
    before = (tmp_path / "run/.hydra/overrides.yaml").read_text()
    training = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(training, fcntl.LOCK_EX)
    done = command("inference.py checkpoint=run hydra.run.dir=run", tmp_path)
    os.close(training)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hydra.run.dir=run: another command is at work there; choose another folder\n"
    assert (tmp_path / "run/.hydra/overrides.yaml").read_text() == before


def test_the_folder_of_a_sweep_in_use_is_refused_before_anything_is_written(run, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "sweep").mkdir()
    sweep = os.open(tmp_path / "sweep", os.O_RDONLY)
    fcntl.flock(sweep, fcntl.LOCK_EX)
    done = command(f"inference.py -m checkpoint={run} seed=1,2 hydra.sweep.dir=sweep", tmp_path)
    os.close(sweep)
    assert done.returncode == 1
    assert done.stderr == "hydra.sweep.dir=sweep: another command is at work there; choose another folder\n"
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == [".hydra"]


def test_a_training_in_the_folder_of_another_leaves_its_options(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = (tmp_path / "run/.hydra/overrides.yaml").read_text()
    done = command("train.py max_steps=7 hydra.run.dir=run", tmp_path)
    sentence = "hydra.run.dir=run: that folder already holds a run; continue it by resume=run, or choose another name\n"
    assert (done.returncode, done.stderr) == (1, sentence)
    assert (tmp_path / "run/.hydra/overrides.yaml").read_text() == before
