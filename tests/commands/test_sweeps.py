"""Sweeps whose runs are processes of their own: one that fails costs no other, and the end comes once."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import GAUSSIANS, NO_EVALUATION, SMALL, command, not_blank
from hydra.errors import MissingConfigException

from conf.messages import sentence
from loss.runs import runs


class Launcher(NamedTuple):
    """A launcher of Hydra that gives each run of a sweep a process of its own."""

    name: str
    package: str
    values: list[str]  # of lr, one of which is refused
    options: str


JOBLIB = Launcher("joblib", "hydra_joblib_launcher", ["4e-3", "-1", "8e-3"], "hydra.launcher.n_jobs=2")
SUBMITIT = Launcher("submitit_local", "hydra_submitit_launcher", ["4e-3", "-1"], "task_name=named")


class Sweep(NamedTuple):
    """A sweep that has ended: its folder, where that lies from where it was started, and what it said."""

    launcher: Launcher
    folder: Path
    shown: Path
    code: int
    printed: str
    errors: str


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(JOBLIB, id="joblib", marks=pytest.mark.slow),
        pytest.param(SUBMITIT, id="submitit", marks=pytest.mark.slow),
    ],
)
def sweep(request, tmp_path_factory):
    launcher = request.param
    if not importlib.util.find_spec("hydra_plugins") or not importlib.util.find_spec(
        f"hydra_plugins.{launcher.package}"
    ):
        pytest.skip("needs requirements/sweep.txt")
    cwd = tmp_path_factory.mktemp("sweep")
    values = f"-m lr={','.join(launcher.values)} {launcher.options}"
    done = command(
        f"train.py {GAUSSIANS} {SMALL} {NO_EVALUATION} max_steps=20 hydra/launcher={launcher.name} {values}", cwd
    )
    folder = cwd / "named"
    if launcher is JOBLIB:
        (folder,) = (cwd / "outputs" / "train").iterdir()  # one for all runs, although none was named
    return Sweep(launcher, folder, folder.relative_to(cwd), done.returncode, done.stdout, done.stderr)


def test_a_sweep_with_a_run_that_failed_ends_with_1_and_names_it(sweep):
    assert sweep.code == 1 and "Traceback" not in sweep.errors
    assert f"1 of the sweep's runs failed: {sweep.shown}/1 (lr must be above 0; got" in sweep.errors


def test_the_runs_of_a_sweep_stand_in_their_order_with_their_options(sweep):
    count = len(sweep.launcher.values)
    assert [run.value("lr") for run in runs(sweep.folder)] == ["0.004", "-1.0", "0.008"][:count]


def test_a_run_that_fails_costs_no_other(sweep):
    found = runs(sweep.folder)
    faults = ["", "failed: lr must be above 0; got -1.0", ""]
    assert [run.fault for run in found] == faults[: len(found)]
    assert all(run.results for run in found[::2])


def test_the_losses_of_a_sweep_are_drawn_once_at_its_end(sweep):
    assert sweep.printed.count("losses.png") == 1
    assert not_blank(sweep.folder / "losses.png")


def missing(launcher):
    """The sentence about a launcher that Hydra does not find."""
    error = MissingConfigException("", missing_cfg_file=f"hydra/launcher/{launcher}", options=["basic"])
    return sentence("train", error)


def test_a_launcher_that_is_not_installed_says_how_to_install_it():
    assert "pip install -r requirements/sweep.txt" in missing("joblib")


def test_an_unknown_launcher_says_what_there_is():
    assert missing("jobs") == "hydra/launcher=jobs is unknown; choose one of basic"
