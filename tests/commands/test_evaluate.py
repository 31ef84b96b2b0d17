"""Evaluations from the command line: files of samples, points of one's own, three dimensions."""

import json

import numpy as np
import pytest
from conftest import command, not_blank, succeeded

from conf.config import Train
from dataset import create_moon_dataset, make_sets
from metrics.evaluation import evaluate_file
from runtime import checkpoint_file

SHORT = "max_steps=50 eval_samples=200 task_name=run"


# ---------------------------------------------------------------- files of samples


def test_real_points_are_indistinguishable_from_the_data(tmp_path):
    np.save(tmp_path / "real.npy", create_moon_dataset(1000, seed=5))
    assert "indistinguishable by every test" in succeeded("evaluate.py samples=real.npy dataset=moons", tmp_path)


@pytest.mark.slow  # tests/metrics/test_metrics.py tells bad samples by their verdict
def test_points_with_twice_the_noise_are_distinguishable_from_the_data(tmp_path):
    np.save(tmp_path / "wide.npy", create_moon_dataset(1000, noise=0.1, seed=5))
    assert "verdict: distinguishable by" in succeeded("evaluate.py --samples wide.npy", tmp_path)


# ---------------------------------------------------------------- points of one's own


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The run folder of a training on a table of one's own, and what it printed."""
    folder = tmp_path_factory.mktemp("own")
    np.savetxt(folder / "mine.csv", create_moon_dataset(2000), delimiter=",")
    printed = succeeded(f"train.py dataset=file dataset.path=mine.csv {SHORT} num_timesteps=50", folder)
    return folder / "run", printed


def test_points_of_ones_own_are_compared_with_held_out_ones(own):
    assert "come from other real points" in own[1]
    assert "evaluation of 200 samples, which are compared with the 400 held-out points" in own[1]
    assert "these metrics are missing: masses, cells" in own[1]


def test_a_file_of_samples_is_compared_with_a_file_that_is_named(own):
    folder = own[0].parent
    np.save(folder / "samples.npy", create_moon_dataset(400, seed=5))
    printed = succeeded("evaluate.py samples=samples.npy dataset=file dataset.path=mine.csv", folder)
    assert "400 samples of samples.npy, compared with file mine.csv" in printed
    assert "these metrics are missing: memorised, masses, cells" in printed


def test_points_of_ones_own_have_no_picture_that_needs_the_exact_distribution(own):
    assert {p.name for p in own[0].glob("*.png")} == {"samples.png", "loss.png", "columns.png"}


def test_a_checkpoint_holds_the_normaliser_of_points_of_ones_own(own):
    assert len(checkpoint_file.load(own[0])["normaliser"]["mean"]) == 2


def test_samples_are_compared_with_the_rows_of_a_large_file_that_the_training_held_out(tmp_path):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(12_000, 2)))
    np.save(tmp_path / "samples.npy", np.random.default_rng(1).normal(size=(300, 2)))
    table = {"name": "file", "path": str(tmp_path / "mine.npy")}
    _, held_out = make_sets(n_samples=Train.num_samples, seed=0, **table)
    _, unseen = evaluate_file(str(tmp_path / "samples.npy"), table, 300, 0, Train.num_samples)
    assert np.array_equal(unseen.points, held_out.points)


# ---------------------------------------------------------------- pictures after the figures


@pytest.mark.slow  # tests/viz/test_hostile_texts.py draws every picture with such names
def test_labels_that_look_like_mathematics_are_drawn_as_they_are(tmp_path):
    rows = [f"{x:.4f},{y:.4f},{'$$' if i % 2 else 'b$x_$'}" for i, (x, y) in enumerate(create_moon_dataset(1000))]
    (tmp_path / "mine.csv").write_text("\n".join(["x,y,kind", *rows]))
    line = f"dataset=file dataset.path=mine.csv dataset.label=kind conditional=true num_timesteps=50 {SHORT}"
    done = command(f"train.py {line}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"samples.png", "loss.png", "metrics.json"} <= {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_is_named_and_costs_no_figure(tmp_path):
    succeeded("train.py max_steps=20 eval_samples=0 task_name=run", tmp_path)
    (tmp_path / "run/loss.png").unlink()
    (tmp_path / "run/loss.png").mkdir()
    done = command("train.py resume=run eval_samples=200", tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("loss.png could not be drawn: ")
    assert "classifier accuracy" in json.loads((tmp_path / "run/metrics.json").read_text())["figures"]


# ---------------------------------------------------------------- three dimensions


@pytest.mark.slow
def test_points_in_three_dimensions_are_learnt_and_drawn(tmp_path):
    succeeded(f"train.py dataset=helix dataset.noise=0.2 {SHORT} num_timesteps=20", tmp_path)
    assert not_blank(tmp_path / "run" / "samples.png")


@pytest.mark.slow
def test_main_shows_points_in_three_dimensions(tmp_path):
    succeeded("main.py dataset=helix num_samples=50 --save-plots viewer=file", tmp_path)
    assert not_blank(tmp_path / "outputs" / "forward.png")
