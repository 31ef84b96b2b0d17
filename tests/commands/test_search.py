"""The search: its space is checked before any training, several processes share it, and a failed trial ends nothing."""

import csv
import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from conftest import NO_EVALUATION, QUIET, ROOT, SMALL

from conf.groups import Moons
from dataset import make_sets
from loss.runs import runs
from metrics.evaluation import figures_of

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="needs requirements/sweep.txt")
TINY = f"{SMALL} {NO_EVALUATION} max_steps=2".split()


def test_a_space_that_cannot_be_searched_is_refused():
    from scripts.search import check, read_space

    for words, sentence in [
        (["learning_rate=1e-3..1e-2"], "unknown option learning_rate .did you mean lr.."),
        (["lr=-1..1"], "lr must be above 0; got -1.0"),
        (["lr=1e-2..1e-3"], "lr=1e-2..1e-3 is no range"),
        (["lr=a..b"], "is no range"),
        (["optimizer=muon,adm"], "optimizer must be one of muon, adamw"),
        (["batch_size=0..8"], "batch_size must be at least 1"),
        (["lr=1e-3"], "nothing is searched"),
        (["lr=1e-3..1e-2", NO_EVALUATION], "--figure 'KL' is not measured .* one of loss, seconds, cpu_seconds$"),
        (["lr=1e-3..1e-2"], "--figure 'KL' is not measured .* error of epsilon, KL.exact"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            check(*read_space(words), "KL")


def test_the_figures_that_a_training_will_write_are_known_before(run):
    written = json.loads((run / "metrics.json").read_text())["figures"]
    assert set(figures_of(*make_sets(n_samples=2000, seed=0, **asdict(Moons())), labelled=False)) == set(written)


def test_the_scale_of_a_range():
    from scripts.search import read_space

    space, fixed = read_space(["lr=1e-3..1e-2", "batch_size=8..64", "t_power=1..1.5", "model=mlp,linear", "seed=3"])
    assert [getattr(d, "log", None) for d in space.values()] == [True, False, False, None] and fixed == ["seed=3"]
    assert space["batch_size"].high == 64 and space["model"].choices == ("mlp", "linear")


def test_two_processes_share_a_search_and_a_failure_ends_nothing(tmp_path):
    """One trains; in the other a training fails: so many forward steps cannot have such betas."""
    from scripts.search import check, opened, read_space, report, run_trial

    folder, options = tmp_path / "s", ["lr=1e-3..1e-2", *TINY]
    limits = ["--figure", "loss", "--cpu-seconds", "100", "--trials", "1"]
    other = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "search.py"), str(folder), *options, *limits],
        cwd=tmp_path, env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    space, fixed = read_space(options)
    check(space, fixed)
    study = opened(folder, False, [*options, "loss", 100.0])
    run_trial(study, space, folder, [*fixed, "beta_end=1e-9"], "loss", 100)
    said = other.communicate(timeout=1800)
    assert other.returncode == 0 and "best of 1 trials: loss" in said[0], said
    report(study, folder, "loss")
    with open(folder / "search.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete", "fail"] and {row["trial"] for row in rows} == {"0", "1"}
    by_name = {run.name: run for run in runs(folder)}
    good, bad = (by_name[row["trial"]] for row in rows)
    assert bad.fault.startswith("failed: betas must satisfy") and not good.fault
    assert float(rows[0]["loss"]) == good.results["loss"] and float(rows[0]["lr"]) == float(good.value("lr"))
    with pytest.raises(ValueError, match="holds another search"):
        opened(folder, False, [*options, "seed=1", "loss", 100.0])


def test_a_trial_over_the_limit_is_not_the_best(tmp_path):
    from scripts.search import opened, report

    study = opened(tmp_path, False, ["x"])
    for value, over in ((3.0, -1.0), (1.0, 5.0), (2.0, 0.0)):
        trial = study.ask()
        trial.set_constraint("cpu_seconds", over)
        study.tell(trial, value)
    report(study, tmp_path, "loss")
    with open(tmp_path / "search.csv") as file:
        assert [(row["trial"], row["state"]) for row in csv.DictReader(file)] == [
            ("2", "complete"),
            ("0", "complete"),
            ("1", "over the limit"),
        ]
