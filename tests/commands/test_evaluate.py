"""Evaluations from the command line: files of samples, points of one's own, three dimensions."""

import numpy as np
from conftest import command, not_blank

from dataset import create_moon_dataset
from runtime import checkpoint_file


def test_evaluate_tests_a_file_of_samples(tmp_path):
    np.save(tmp_path / "real.npy", create_moon_dataset(1000, seed=5))
    np.save(tmp_path / "wide.npy", create_moon_dataset(1000, noise=0.1, seed=5))
    done = command("evaluate.py samples=real.npy dataset=moons", tmp_path)
    assert done.returncode == 0 and "indistinguishable by every metric" in done.stdout, done.stdout
    done = command("evaluate.py --samples wide.npy", tmp_path)
    assert done.returncode == 0 and "verdict: distinguishable by" in done.stdout, done.stdout


def test_points_of_ones_own_are_compared_with_held_out_ones(tmp_path):
    np.savetxt(tmp_path / "mine.csv", create_moon_dataset(2000), delimiter=",")
    line = "train.py dataset=file dataset.path=mine.csv max_steps=50 num_timesteps=50 eval_samples=200 task_name=run"
    done = command(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "come from other real points" in done.stdout
    assert {p.name for p in (tmp_path / "run").glob("*.png")} == {"samples.png", "loss.png"}
    assert len(checkpoint_file.load(tmp_path / "run")["normaliser"]["mean"]) == 2


def test_three_dimensions(tmp_path):
    line = "train.py dataset=helix dataset.noise=0.2 max_steps=50 num_timesteps=50 eval_samples=200 task_name=run"
    done = command(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not_blank(tmp_path / "run" / "samples.png")
    done = command("main.py dataset=helix num_samples=50 --save-plots viewer=file", tmp_path)
    assert done.returncode == 0, done.stderr
