"""Sweeps whose runs are processes of their own: one that fails costs no other, and the end comes once."""

import importlib.util

import pytest
from conftest import NO_EVALUATION, SMALL, not_blank, started
from hydra.errors import MissingConfigException

from conf.messages import sentence
from loss.runs import runs

LAUNCHERS = [
    ("joblib", "hydra_joblib_launcher", "4e-3,-1,8e-3 hydra.launcher.n_jobs=2"),
    ("submitit_local", "hydra_submitit_launcher", "4e-3,-1 task_name=named"),
]


@pytest.mark.parametrize(("launcher", "package", "values"), LAUNCHERS)
def test_runs_in_processes_of_their_own(launcher, package, values, tmp_path):
    if not importlib.util.find_spec("hydra_plugins") or not importlib.util.find_spec(f"hydra_plugins.{package}"):
        pytest.skip("needs requirements/sweep.txt")
    line = f"train.py {SMALL} {NO_EVALUATION} max_steps=20 hydra/launcher={launcher} -m lr={values}"
    done = started(line, tmp_path)
    if "task_name" in values:
        folder = tmp_path / "named"
    else:
        (folder,) = (tmp_path / "outputs" / "train").iterdir()  # one for all, although none was named
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"1 of the sweep's runs failed: {folder.relative_to(tmp_path)}/1 (lr must be above 0; got" in done.stderr
    found = runs(folder)
    assert [run.fault for run in found] == ["", "failed: lr must be above 0; got -1.0", ""][: len(found)]
    assert [run.value("lr") for run in found] == ["0.004", "-1.0", "0.008"][: len(found)]
    assert all(run.results for run in found[::2])
    assert done.stdout.count("losses.png") == 1 and not_blank(folder / "losses.png")


def test_a_missing_launcher_says_where_it_is():
    error = MissingConfigException("", missing_cfg_file="hydra/launcher/joblib", options=["basic"])
    assert "pip install -r requirements/sweep.txt" in sentence("train", error)
    error = MissingConfigException("", missing_cfg_file="hydra/launcher/jobs", options=["basic"])
    assert sentence("train", error) == "hydra/launcher=jobs is unknown; choose one of basic"
