"""The search: its space is checked before any training, several processes share it, and a failed trial ends nothing."""

import csv
import importlib.util
import json
import math
import multiprocessing
import os
import re
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import GAUSSIANS, NO_EVALUATION, SMALL, begun, not_blank
from matplotlib.image import imread

from conf.groups import Moons
from dataset import make_sets
from loss.runs import runs
from metrics.evaluation import figures_of

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="needs requirements/sweep.txt")
TINY = f"{GAUSSIANS} {SMALL} {NO_EVALUATION} max_steps=2".split()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["learning_rate=1e-3..1e-2"], "unknown option learning_rate .did you mean lr.."),
        (["lr=-1..1"], "lr must be above 0; got -1.0"),
        (["lr=1e-2..1e-3"], "lr=1e-2..1e-3 is no range"),
        (["lr=a..b"], "is no range"),
        (["optimizer=muon,adm"], "optimizer must be one of muon, adamw"),
        (["batch_size=0..8"], "batch_size must be at least 1"),
        (["lr=1e-3"], "nothing is searched"),
        (["lr=1e-3..1e-2", NO_EVALUATION], "--figure 'KL' is not measured .* one of loss, seconds, cpu_seconds$"),
        (["lr=1e-3..1e-2"], "--figure 'KL' is not measured .* error of epsilon, KL.exact"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(words, sentence):
    from scripts.search import check, read_space

    with pytest.raises(ValueError, match=sentence):
        check(*read_space(words), "KL")


def test_the_figures_that_a_training_will_write_are_known_before(run):
    written = json.loads((run / "metrics.json").read_text())["figures"]
    assert set(figures_of(*make_sets(n_samples=2000, seed=0, **asdict(Moons())), labelled=False)) == set(written)


SPACE = ["lr=1e-3..1e-2", "batch_size=8..64", "t_power=1..1.5", "model=mlp,linear", "seed=3"]


def test_a_range_over_a_factor_of_ten_has_a_logarithmic_scale():
    from scripts.search import read_space

    space, _ = read_space(SPACE)
    assert [getattr(d, "log", None) for d in space.values()] == [True, False, False, None]


def test_an_option_with_one_value_is_not_searched():
    from scripts.search import read_space

    assert read_space(SPACE)[1] == ["seed=3"]


def test_a_range_has_its_ends_and_a_list_its_choices():
    from scripts.search import read_space

    space, _ = read_space(SPACE)
    assert space["batch_size"].high == 64
    assert space["model"].choices == ("mlp", "linear")


# ---------------------------------------------------------------- several processes


class Search(NamedTuple):
    """A search in which one process trained once, and a training of another process failed."""

    folder: Path
    options: list[str]
    code: int  # of the process that trained
    printed: str
    rows: list[dict[str, str]]  # of search.csv


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    from scripts.search import check, opened, read_space, report, run_trial

    cwd = tmp_path_factory.mktemp("search")
    folder, options = cwd / "s", ["lr=1e-3..1e-2", *TINY]
    limits = ["--figure", "loss", "--cpu-seconds", "100", "--trials", "1"]
    other = begun(["scripts/search.py", str(folder), *options, *limits], cwd)
    space, fixed = read_space(options)
    check(space, fixed)
    study = opened(folder, False, [*options, "loss", 100.0])
    # So many forward steps cannot have such betas.
    run_trial(study, space, folder, [*fixed, "beta_end=1e-9"], "loss", 100)
    printed, errors = other.communicate()
    report(study, folder, "loss")
    with open(folder / "search.csv") as file:
        rows = list(csv.DictReader(file))
    return Search(folder, options, other.returncode, printed + errors, rows)


def test_a_failure_in_one_process_does_not_end_the_search_of_another(search):
    assert search.code == 0 and "best of 1 trials: loss" in search.printed, search.printed


def test_the_table_of_a_search_holds_the_trials_of_all_processes(search):
    assert [row["state"] for row in search.rows] == ["complete", "fail"]
    assert {row["trial"] for row in search.rows} == {"0", "1"}


def test_the_run_of_a_failed_trial_says_why_it_failed(search):
    by_name = {run.name: run for run in runs(search.folder)}
    good, bad = (by_name[row["trial"]] for row in search.rows)
    assert bad.fault.startswith("failed: betas must satisfy")
    assert not good.fault


def test_the_table_of_a_search_holds_the_numbers_of_the_runs(search):
    row = search.rows[0]
    run = {run.name: run for run in runs(search.folder)}[row["trial"]]
    assert float(row["loss"]) == run.results["loss"]
    assert float(row["lr"]) == float(run.value("lr"))


def test_a_folder_is_not_searched_with_other_options(search):
    from scripts.search import opened

    with pytest.raises(ValueError, match="holds another search"):
        opened(search.folder, False, [*search.options, "seed=1", "loss", 100.0])


# ---------------------------------------------------------------- kills


def journal_of(folder):
    return (folder / "search.log").read_bytes()


def one_more_trial(folder):
    """Begin and end a trial, and return the states of all trials as a new process sees them."""
    from scripts.search import opened

    study = opened(folder, False, ["x"])
    study.tell(study.ask(), 1.0)
    return [trial.state.name for trial in opened(folder, False, ["x"]).trials]


KILLED_IN_ITS_LOCK = """
import os, signal, sys
from pathlib import Path
from scripts.search import opened
study = opened(Path("s"), False, ["x"])
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
study.ask()
"""
NEXT = """
from pathlib import Path
from scripts.search import opened
study = opened(Path("s"), False, ["x"])
study.tell(study.ask(), 1.0)
print(len(study.trials), "trials")
"""


@pytest.mark.skipif(os.name != "posix", reason="kills by signals")
def test_a_kill_that_held_the_lock_of_the_journal_stops_no_later_search(tmp_path):
    killed = begun(["-c", KILLED_IN_ITS_LOCK], tmp_path)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    later = begun(["-c", NEXT], tmp_path)
    end = time.monotonic() + 600  # a lock that stays would be waited for
    while later.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    later.kill()
    printed, errors = later.communicate()
    assert printed == "2 trials\n", errors


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_an_unfinished_last_line_of_the_journal_is_removed(tmp_path, cut):
    assert one_more_trial(tmp_path) == ["COMPLETE"]
    before = journal_of(tmp_path)
    assert one_more_trial(tmp_path) == ["COMPLETE"] * 2
    *lines, _ = journal_of(tmp_path).splitlines(keepends=True)  # the last but one ends the second trial
    (tmp_path / "search.log").write_bytes(b"".join(lines)[:-cut])
    assert one_more_trial(tmp_path) == ["COMPLETE", "RUNNING", "COMPLETE"]
    assert journal_of(tmp_path).startswith(before)
    assert all(json.loads(line) for line in journal_of(tmp_path).splitlines())


def test_an_unfinished_line_longer_than_one_read_is_removed(tmp_path):
    one_more_trial(tmp_path)
    with (tmp_path / "search.log").open("ab") as file:
        file.write(b"x" * 10_000)
    assert one_more_trial(tmp_path) == ["COMPLETE"] * 2
    assert b"x" * 9 not in journal_of(tmp_path)


def test_a_damaged_line_of_the_journal_is_named(tmp_path):
    one_more_trial(tmp_path)
    lines = journal_of(tmp_path).splitlines(keepends=True)
    (tmp_path / "search.log").write_bytes(b"".join([*lines[:1], b'{"op_code":\n', *lines[1:]]))
    with pytest.raises(ValueError, match=r"search\.log is damaged in line 2: search in another folder"):
        one_more_trial(tmp_path)


OPTIONS = ["lr=1e-3..1e-2", *TINY]


def _train_for_ever(folder):
    from scripts.search import opened, read_space, run_trial

    space, fixed = read_space(OPTIONS)
    study = opened(folder, False, ["x"])
    run_trial(study, space, folder, [*fixed, "max_steps=1000000", "checkpoint_every=10"], "loss", math.inf)


@pytest.fixture(scope="module")
def states_before_and_after_a_kill(tmp_path_factory):
    """The states of all trials while the first one trains, and once it was killed; and the folder."""
    from scripts.search import opened, read_space, run_trial

    folder = tmp_path_factory.mktemp("killed")
    process = multiprocessing.get_context("fork").Process(target=_train_for_ever, args=(folder,))
    process.start()
    end = time.monotonic() + 600
    while not (folder / "0" / "last.pt").exists():
        assert process.is_alive() and time.monotonic() < end
        time.sleep(0.05)

    space, fixed = read_space(OPTIONS)
    study = opened(folder, False, ["x"])
    states = []
    for kill in (False, True):
        if kill:
            process.kill()
            process.join()
        run_trial(study, space, folder, fixed, "loss", math.inf)
        states.append([trial.state.name for trial in study.trials])
    return *states, folder


@pytest.mark.skipif(os.name != "posix", reason="locks and forks")
def test_a_trial_of_a_living_process_stays_as_it_is(states_before_and_after_a_kill):
    before, _, _ = states_before_and_after_a_kill
    assert before == ["RUNNING", "COMPLETE"]


@pytest.mark.skipif(os.name != "posix", reason="locks and forks")
def test_a_killed_trial_counts_as_failed(states_before_and_after_a_kill):
    _, after, folder = states_before_and_after_a_kill
    assert after == ["FAIL", "COMPLETE", "COMPLETE"]
    assert {run.name: run.fault for run in runs(folder)}["0"] == "failed: its process was killed"


@pytest.mark.skipif(os.name != "posix", reason="locks and forks")
def test_no_lock_of_a_trial_stays(states_before_and_after_a_kill):
    _, _, folder = states_before_and_after_a_kill
    assert [path.name for path in folder.glob(".*")] == [".search.lock"]


# ---------------------------------------------------------------- the result


def test_a_trial_over_the_limit_is_not_the_best(tmp_path):
    from scripts.search import opened, report

    study = opened(tmp_path, False, ["x"])
    for value, over in ((3.0, -1.0), (1.0, 5.0), (2.0, 0.0)):
        trial = study.ask()
        trial.suggest_float("lr", 1e-3, 1e-2)
        trial.set_constraint("cpu_seconds", over)
        study.tell(trial, value)
    report(study, tmp_path, "loss")
    with open(tmp_path / "search.csv") as file:
        states = [(row["trial"], row["state"]) for row in csv.DictReader(file)]
    assert states == [("2", "complete"), ("0", "complete"), ("1", "over the limit")]


@pytest.fixture
def varied(tmp_path):
    """A search of three trials, whose lr has many digits; the folder and what is printed."""
    from scripts.search import opened

    study = opened(tmp_path, False, ["x"])
    for value in (3.0, 1.0, 2.0):
        trial = study.ask()
        trial.suggest_float("lr", 1e-3, 1e-2, log=True)
        trial.suggest_categorical("model.hidden", ["32", "64"])
        study.tell(trial, value)
    return study, tmp_path


def test_numbers_for_readers_have_three_significant_digits(varied, capsys):
    from scripts.search import report

    study, folder = varied
    report(study, folder, "loss")
    (lr,) = re.findall(r"lr=(\S+)", capsys.readouterr().out)
    assert lr == f"{study.best_trial.params['lr']:.3g}"


def test_a_search_leaves_pictures_in_the_style_of_the_others(varied):
    from scripts.search import report

    study, folder = varied
    report(study, folder, "loss")
    assert all(not_blank(folder / f"{name}.png") for name in ("optimization_history", "slice"))
    slices = imread(folder / "slice.png")[..., :3]
    assert (slices[0, 0] == 1).all()
    assert (slices == 1).all(2).mean() > 0.8  # white, where Optuna's panels are grey
