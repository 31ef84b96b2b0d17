"""A disk that can only be read, and paths that name no files: each command ends in one sentence."""

import os
import subprocess

import numpy as np
import pytest
from conftest import command, succeeded

from runtime import checkpoint_file

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and mounts are POSIX")

WRITERS = (
    "train.py max_steps=2 eval_samples=0",
    "train.py -m seed=1,2 max_steps=2 eval_samples=0",
    "inference.py checkpoint=run num_samples=10 viewer=file",
    "evaluate.py checkpoint=run num_samples=100",
    "main.py num_samples=10 viewer=file",
    "train.py resume=run max_steps=301",
    "loss/plot.py run",
    "loss/report.py .",
    "scripts/share.py run --out page.html",
)


@pytest.fixture
def read_only(run, tmp_path):
    """A disk that can only be read, with a run on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["cp", "-r", run, disk / "run"], check=True)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def check_refused(line, disk):
    done = command(line, disk)
    assert done.returncode == 1, line
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr and "Errno" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_read_only_disk_ends_a_training_in_one_sentence(read_only):
    check_refused(WRITERS[0], read_only)


@pytest.mark.slow
@pytest.mark.parametrize("line", WRITERS[1:])
def test_a_read_only_disk_ends_every_command_in_one_sentence(line, read_only):
    check_refused(line, read_only)


def test_a_checkpoint_whose_data_are_a_pipe_is_refused(tmp_path):
    np.savetxt(tmp_path / "points.csv", np.random.default_rng(0).standard_normal((2000, 2)), delimiter=",")
    line = "train.py dataset=file dataset.path=points.csv max_steps=2 eval_samples=0 task_name=run model.hidden=8"
    succeeded(line, tmp_path)
    state = checkpoint_file.load(tmp_path / "run")
    for name in ("a.csv", "a.npy"):
        state["config"]["dataset"]["path"] = name
        checkpoint_file.save(tmp_path / "run" / "last.pt", state)
        os.mkfifo(tmp_path / name)
        done = command("evaluate.py checkpoint=run num_samples=100", tmp_path)
        assert done.returncode == 1
        assert f"{name} is a folder, a device or a pipe, and not a file of points" in done.stderr
