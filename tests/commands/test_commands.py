"""The commands as a person types them: real processes and real files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import GAUSSIANS, NO_EVALUATION, ROOT, SMALL, command, not_blank, python, started, succeeded
from PIL import Image

from loss.runs import runs_of_sweep
from metrics.distances import METRICS
from metrics.significance import TESTS
from runtime import checkpoint_file

PICTURES = {"loss.png", "samples.png", "timesteps.png", "field.png"}


def same_weights(one, two):
    """Whether two run folders hold the same averaged weights, to the bit."""
    one = checkpoint_file.load(one)["ema"]
    two = checkpoint_file.load(two)["ema"]
    return all(torch.equal(one[name], two[name]) for name in one)


# ---------------------------------------------------------------- train.py


def test_a_training_leaves_all_files_of_a_run(run):
    names = {path.name for path in run.iterdir()}
    assert PICTURES | {"last.pt", "loss.csv", "excess.csv", "metrics.json", ".hydra"} <= names


def test_a_training_leaves_a_checkpoint_of_its_last_step(run):
    assert checkpoint_file.load(run)["step"] == 300


def test_a_training_leaves_pictures_that_show_something(run):
    assert all(not_blank(run / picture) for picture in PICTURES)


def test_a_training_writes_its_loss_every_ten_steps(run):
    losses = np.genfromtxt(run / "loss.csv", delimiter=",", names=True)
    assert losses["step"].tolist() == list(range(10, 301, 10))


def test_the_loss_falls_during_a_training(run):
    losses = np.genfromtxt(run / "loss.csv", delimiter=",", names=True)
    assert losses["loss"][-5:].mean() < 0.92 * losses["loss"][0]


def test_the_excess_is_measured_up_to_the_last_step_and_halves_at_least(run):
    excess = np.genfromtxt(run / "excess.csv", delimiter=",", names=True)
    assert excess["step"][-1] == 300
    assert excess["excess"][-1] < 0.5 * excess["excess"][0]


def test_the_metrics_of_a_training_count_its_steps(run):
    assert json.loads((run / "metrics.json").read_text())["steps"] == 300


def test_the_metrics_of_a_training_hold_an_accuracy_between_guessing_and_certainty(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0.4 < metrics["figures"]["classifier accuracy"]["value"] < 1


@pytest.mark.parametrize("words", ["start-up check", "training summary", "verdict"])
def test_a_training_prints_its_check_its_summary_and_its_verdict(words, workplace):
    assert words in (workplace / "train.txt").read_text()


def test_a_training_prints_its_run_folder(workplace, run):
    assert str(run.relative_to(workplace)) in (workplace / "train.txt").read_text()


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The run folder of the same training once more, in an interpreter that has imported nothing before."""
    folder = tmp_path_factory.mktemp("again")
    succeeded(f"train.py {SMALL} {NO_EVALUATION} max_steps=300 --task-name runs/again", folder, started)
    return folder / "runs/again"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(run, again):
    assert same_weights(run, again)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_samples(run, again, tmp_path):
    samples = []
    for name, checkpoint in (("first", run), ("second", again)):
        line = f"inference.py checkpoint={checkpoint} num_samples=100 --no-rerun hydra.run.dir={name}"
        succeeded(line, tmp_path)
        samples.append(np.load(tmp_path / name / "samples.npy"))
    assert np.array_equal(*samples)


class Sweep(NamedTuple):
    """A sweep over three learning rates, the second of which is refused."""

    folder: Path
    shown: Path  # the folder as the sweep prints it
    code: int
    errors: str


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("sweep")
    done = command(f"train.py {GAUSSIANS} {SMALL} {NO_EVALUATION} max_steps=2 -m lr=1e-3,-1,2e-3", cwd)
    (losses,) = cwd.rglob("losses.png")
    return Sweep(losses.parent, losses.parent.relative_to(cwd), done.returncode, done.stderr)


def test_a_sweep_runs_every_job_although_one_fails(sweep):
    assert len(list(sweep.folder.rglob("last.pt"))) == 2


def test_a_sweep_draws_the_losses_of_its_runs_in_one_picture(sweep):
    assert not_blank(sweep.folder / "losses.png")


def test_the_runs_of_a_sweep_are_named_by_what_differs(sweep):
    assert list(runs_of_sweep(sweep.folder)) == ["lr=0.001", "lr=0.002"]


def test_a_sweep_with_a_run_that_failed_ends_with_1_and_without_a_traceback(sweep):
    assert sweep.code == 1 and "Traceback" not in sweep.errors


def test_a_sweep_says_which_run_failed_and_why(sweep):
    assert sweep.errors.strip().splitlines()[-2:] == [
        f"{sweep.shown}/1 failed: lr must be above 0; got -1.0",
        f"1 of the sweep's runs failed: {sweep.shown}/1 (lr must be above 0; got -1.0)",
    ]


# ---------------------------------------------------------------- inference.py


@pytest.fixture(scope="module")
def inferred(workplace):
    """The folder that `inference.py` left after it had looked for a checkpoint itself, and what it printed."""
    printed = succeeded("inference.py --num-samples 200 viz_steps=20", workplace)
    (folder,) = (workplace / "outputs" / "inference").iterdir()
    return folder, printed


def test_inference_takes_the_newest_run_and_leaves_its_samples(inferred):
    samples = np.load(inferred[0] / "samples.npy")
    assert samples.shape == (200, 2) and samples.dtype == np.float32


def test_samples_are_in_the_units_of_the_data(inferred):
    samples = np.load(inferred[0] / "samples.npy")
    assert np.abs(samples.mean(0) - [0.5, 0.25]).max() < 0.3


def test_inference_leaves_a_picture_of_the_samples(inferred):
    assert not_blank(inferred[0] / "samples.png")


def test_inference_prints_how_to_open_its_recording(inferred, workplace):
    folder, printed = inferred
    assert f"rerun {(folder / 'reverse.rrd').relative_to(workplace)}" in printed


@pytest.mark.parametrize("name", ["short.pt", "empty.pt"])
def test_a_damaged_checkpoint_is_refused_in_one_line(name, run, tmp_path):
    content = (run / "last.pt").read_bytes()
    length = len(content) // 2 if name == "short.pt" else 0
    (tmp_path / name).write_bytes(content[:length])
    done = command(f"inference.py checkpoint={name}", tmp_path)
    assert done.returncode == 1 and f"{name} is damaged" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("inference.py observe=mask:left", "is for images"),
        ("evaluate.py sampler=ddim variance=exact", "belongs to sampler=ddpm"),
    ],
)
def test_the_newest_checkpoint_is_read_once(line, refusal, workplace):
    """A training may replace the file between two reads. These lines are refused after the first."""
    name, *words = line.split()
    code = f"""
import runpy, sys
read = []
sys.addaudithook(lambda event, what: read.append(what[0]) if event == "open" and str(what[0]).endswith(".pt") else None)
sys.argv = {[str(ROOT / name), *words]}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except (SystemExit, ValueError) as end:
    assert {refusal!r} in str(end), end
assert len(read) == 1, read
"""
    done = python(code, workplace)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def flow_sweep(workplace):
    """The folder of a sweep of flow lines with 5 and with 10 steps."""
    words = "flow=true animation=none num_samples=30 sampling_steps=5,10 hydra.sweep.dir=flow"
    succeeded(f"inference.py -m {words}", workplace)
    return workplace / "flow"


@pytest.mark.slow
def test_a_sweep_of_flow_lines_names_its_runs_by_their_steps(flow_sweep):
    assert list(runs_of_sweep(flow_sweep, "flow.png")) == ["sampling_steps=5", "sampling_steps=10"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("flow.png", (1920, 1080)), ("flow_square.png", (1080, 1080))])
def test_flow_lines_are_drawn_wide_and_square(name, size, flow_sweep):
    picture = runs_of_sweep(flow_sweep, "flow.png")["sampling_steps=5"].folder / name
    assert not_blank(picture)
    with Image.open(picture) as image:
        assert image.size == size


@pytest.mark.slow
def test_a_sweep_of_flow_lines_puts_all_on_one_sheet(flow_sweep):
    with Image.open(flow_sweep / "sweep.png") as sheet:
        assert sheet.size == (1200, 2 * (36 + 675))


# ---------------------------------------------------------------- evaluate.py

FIGURES = (
    [test.name for test in TESTS if test.name != "energy by label"]  # the run learns no labels
    + [metric.name for metric in METRICS]
    + ["error of epsilon", "KL(exact || model)"]
)


@pytest.fixture(scope="module")
def judged(workplace, run):
    """The folder of an evaluation, and what it printed."""
    printed = succeeded(f"evaluate.py checkpoint={run} num_samples=500 hydra.run.dir=judged", workplace)
    return workplace / "judged", printed


def test_evaluate_measures_every_figure(judged):
    figures = json.loads((judged[0] / "metrics.json").read_text())["figures"]
    assert set(figures) == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_evaluate_prints_every_figure(name, judged):
    assert name in judged[1]


def test_evaluate_draws_points_with_the_default_sampler_of_points(judged):
    assert json.loads((judged[0] / "metrics.json").read_text())["sampler"] == "dpmpp_2m_sde"


def test_evaluate_leaves_its_pictures(judged):
    assert {p.name for p in judged[0].glob("*.png")} == {"samples.png", "timesteps.png", "field.png"}


# ---------------------------------------------------------------- main.py


@pytest.mark.parametrize(
    "line",
    [
        "--num-samples 60 --save-plots --no-rerun --num-timesteps=20",
        pytest.param("num_samples=60 save_plots=true rerun=false num_timesteps=20", marks=pytest.mark.slow),
    ],
)
def test_main_draws_its_pictures_in_both_spellings(line, tmp_path):
    printed = succeeded(f"main.py {line}", tmp_path)
    assert "60 points" in printed
    pictures = sorted((tmp_path / "outputs").iterdir())
    assert [p.name for p in pictures] == ["forward.png", "schedule.png", "statistics.png"]
    assert all(not_blank(picture) for picture in pictures)


@pytest.mark.slow  # images have a quick test of the same picture
def test_main_compares_schedules(tmp_path):
    succeeded("main.py --compare-schedules --no-rerun num_samples=50", tmp_path)
    assert not_blank(tmp_path / "outputs/schedules.png")


def test_main_says_when_x_T_is_not_noise(tmp_path):
    assert "60%" in succeeded("main.py --beta-start 0.0001 --beta-end 0.02 --no-rerun", tmp_path)


@pytest.mark.slow
def test_a_sweep_of_the_forward_process_names_its_runs_by_their_options(tmp_path):
    line = "main.py -m schedule=linear,cosine num_samples=50 save_plots=true rerun=false hydra.sweep.dir=sweep"
    succeeded(line, tmp_path)
    runs = runs_of_sweep(tmp_path / "sweep", "forward.png")
    assert len(runs) == 2 and "schedule=cosine" in min(runs) and "schedule=linear" in max(runs)
    assert not_blank(tmp_path / "sweep" / "sweep.png")


# ---------------------------------------------------------------- other scripts


def test_the_losses_of_several_runs_are_plotted_to_a_named_file(workplace, run, tmp_path):
    succeeded(f"loss/plot.py {run} {run} --out {tmp_path / 'two.png'}", workplace)
    assert not_blank(tmp_path / "two.png")


def test_the_loss_of_the_newest_run_is_plotted_where_none_is_named(workplace):
    assert succeeded("loss/plot.py", workplace).strip().endswith("loss.png")


@pytest.mark.parametrize(
    ("script", "picture"),
    [("dataset.py", "outputs/dataset.png"), ("diffusion.py", None), ("rerun_viz.py", "outputs/rerun_viz.rrd")],
)
def test_a_module_that_is_run_shows_itself(script, picture, tmp_path):
    assert succeeded(script, tmp_path)
    assert picture is None or (tmp_path / picture).stat().st_size > 1000


@pytest.mark.slow  # .ci/run starts train.py and inference.py so, and tests/viz/test_viewer.py main.py
@pytest.mark.parametrize("name", ["evaluate", "compare"])
def test_a_command_finds_all_that_it_imports_in_a_new_interpreter_and_answers_nothing(name, tmp_path):
    assert succeeded(["-c", f"import {name}; print('imported')", "--help"], tmp_path, started) == "imported\n"


# ---------------------------------------------------------------- help


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe of POSIX")
def test_help_that_nobody_reads_to_its_end_is_no_error():
    """As in `python train.py --help | head`: here the reader is gone before the first word."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr == b""
