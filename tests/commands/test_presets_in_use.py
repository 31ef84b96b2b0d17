"""Presets and like=RUN in trainings and sweeps; tab completion in a shell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import NO_EVALUATION, QUIET, ROOT, SMALL, command, succeeded
from omegaconf import OmegaConf

from runtime import checkpoint_file

PRESET = "# @package _global_\n# a small one\nlr: {lr}\nmax_steps: 4\n"


def config(run):
    return checkpoint_file.load(run)["config"]


def learning_rates(sweep):
    """lr of each run of a sweep, as Hydra has recorded it."""
    return [OmegaConf.load(path).lr for path in sorted(sweep.glob("*/.hydra/config.yaml"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with presets x and y, and the run runs/a of spirals with three arms."""
    folder = tmp_path_factory.mktemp("presets")
    for name, lr in (("x", "1e-3"), ("y", "2e-3")):
        path = folder / "presets" / "experiment" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PRESET.format(lr=lr))
    line = f"train.py {SMALL} {NO_EVALUATION} dataset=spirals dataset.arms=3 max_steps=3 seed=7 task_name=runs/a"
    succeeded(line, folder)
    return folder


@pytest.mark.slow
def test_the_new_training_is_complete_without_the_other_run(folder, tmp_path):
    """The other run has been moved before, and is deleted after."""
    shutil.copytree(folder / "runs" / "a", tmp_path / "moved")
    succeeded("train.py like=moved lr=5e-3 task_name=runs/b", tmp_path)
    shutil.rmtree(tmp_path / "moved")
    old = config(folder / "runs" / "a")
    assert config(tmp_path / "runs" / "b") == {**old, "lr": 5e-3, "like": "moved", "task_name": "runs/b"}
    succeeded("train.py resume=runs/b max_steps=5", tmp_path)
    assert config(tmp_path / "runs" / "b")["max_steps"] == 5


@pytest.mark.slow
def test_the_same_options_give_the_same_weights(folder):
    succeeded("train.py like=runs/a task_name=runs/same", folder)
    one, other = (checkpoint_file.load(folder / "runs" / name)["ema"] for name in ("a", "same"))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.slow
def test_a_sweep_begins_with_the_options_of_one_run(folder):
    succeeded("train.py -m like=runs/a lr=1e-3,2e-3 hydra.sweep.dir=runs/like", folder)
    assert learning_rates(folder / "runs" / "like") == [1e-3, 2e-3]
    assert config(folder / "runs" / "like" / "1")["dataset"]["arms"] == 3


@pytest.mark.slow
def test_a_sweep_of_presets(folder):
    """Option hydra.sweep.subdir names the folders."""
    line = (
        f"train.py --multirun -cd presets experiment=x,y {SMALL} {NO_EVALUATION}"
        " hydra.sweep.dir=runs/swept hydra.sweep.subdir=run${hydra.job.num}"
    )
    succeeded(line, folder)
    assert learning_rates(folder / "runs" / "swept") == [1e-3, 2e-3]
    assert {path.name for path in (folder / "runs" / "swept").iterdir()} >= {"run0", "run1"}


@pytest.mark.slow
def test_a_training_by_a_preset_with_the_flag_run(folder):
    succeeded(f"train.py -r -cd presets experiment=x {SMALL} {NO_EVALUATION} task_name=runs/x seed=3", folder)
    found = config(folder / "runs" / "x")
    assert (found["lr"], found["max_steps"], found["seed"]) == (1e-3, 4, 3)
    succeeded("train.py resume=runs/x max_steps=6", folder)


@pytest.mark.slow
def test_points_quick_is_indistinguishable(tmp_path):
    printed = succeeded("train.py experiment=points_quick task_name=run", tmp_path)
    assert "300 steps" in printed
    assert "verdict: indistinguishable by every test" in printed


@pytest.mark.slow
def test_flow_trains(tmp_path):
    succeeded(f"train.py experiment=flow {SMALL} {NO_EVALUATION} max_steps=5 task_name=run", tmp_path)
    assert config(tmp_path / "run")["model"]["prediction"] == "velocity"


def test_a_preset_that_is_no_preset_leaves_no_folder(folder, tmp_path):
    done = command("train.py experiment=none", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("experiment=none is unknown")
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("experiment=mn", "experiment=mnist_hour experiment=mnist_quick"),
        ("dataset=sw", "dataset=swiss_roll dataset=swiss_roll_3d"),
        ("optim", "optimizer="),
    ],
)
def test_bash_completes_what_hydra_knows(typed, completed):
    script = (
        'eval "$(python train.py -sc install=bash)"\n'
        f'COMP_LINE="python train.py {typed}"; COMP_POINT=${{#COMP_LINE}}; COMP_CWORD=2\n'
        'hydra_bash_completion; echo "${COMPREPLY[@]}"\n'
        'eval "$(python train.py -sc uninstall=bash)"\n'
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an active environment
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env={**QUIET, "PATH": path}, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == completed.split(), done.stderr
