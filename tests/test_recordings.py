"""Recordings read back from the file: every number is the trajectory's own."""

import os
import subprocess
import sys

import numpy as np
import pytest
import rerun as rr
from conftest import python
from rerun.chunk import RrdReader

from palette import noise_colours
from rerun_viz import log_forward_diffusion, log_reverse_diffusion
from viewer import recording


def column(path, entity, component):
    """(step, values per row) of one component, in order of time."""
    steps, values = [], []
    for chunk in RrdReader(path).stream().filter(content=entity, is_static=False, components=component):
        batch = chunk.to_record_batch()
        steps += batch.column("step").to_pylist()
        values += batch.column(component).to_pylist()
    order = np.argsort(steps)
    return np.array(steps)[order], [np.array(values[i]) for i in order]


@pytest.fixture
def forward(tmp_path):
    rng = np.random.default_rng(0)
    data, trajectory = rng.normal(size=(40, 2)).astype("f"), rng.normal(size=(7, 40, 2)).astype("f")
    with recording("test", tmp_path / "a.rrd", "file") as rec:
        log_forward_diffusion(data, trajectory, [0, 5], rec=rec)
    return tmp_path / "a.rrd", np.concatenate([data[None], trajectory])


def test_positions_are_bit_identical(forward):
    path, states = forward
    steps, positions = column(path, "/forward/points", "Points2D:positions")
    assert steps.tolist() == list(range(8))
    assert np.array_equal(np.stack(positions).astype("f"), states)
    _, tracked = column(path, "/forward/tracked", "Points2D:positions")
    assert np.array_equal(np.stack(tracked).astype("f"), states[:, [0, 5]])


def test_colours_go_from_green_to_red(forward):
    _, colours = column(forward[0], "/forward/points", "Points2D:colors")
    rgb = [[c >> 24 & 255, c >> 16 & 255, c >> 8 & 255] for (c,) in colours]
    assert np.array_equal(rgb, noise_colours(np.arange(8) / 7))
    assert rgb[0][1] > 2 * rgb[0][0] and rgb[-1][0] > 2 * rgb[-1][1]


def test_the_file_is_sound(forward):
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "rerun"), "rrd", "verify", str(forward[0])],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert os.listdir(forward[0].parent) == ["a.rrd"]


def test_reverse_runs_on_two_clocks(tmp_path):
    states = np.random.default_rng(0).normal(size=(4, 10, 3)).astype("f")
    with recording("test", tmp_path / "r.rrd", "file") as rec:
        log_reverse_diffusion(states, [30, 20, 10, 0], [], data=states[0], rec=rec)
    steps, positions = column(tmp_path / "r.rrd", "/reverse/points", "Points3D:positions")
    assert steps.tolist() == [0, 10, 20, 30]
    assert np.array_equal(np.stack(positions).astype("f"), states)


@pytest.mark.parametrize(
    ("data", "trajectory", "track", "words"),
    [
        (np.zeros((5, 2)), np.zeros((3, 4, 2)), [], "shape"),
        (np.zeros((5, 2)), np.full((3, 5, 2), np.nan), [], "NaN"),
        (np.zeros((5, 4)), np.zeros((3, 5, 4)), [], "2 or 3 coordinates"),
        (np.zeros((5, 2)), np.zeros((3, 5, 2)), [5], "0..4"),
    ],
)
def test_bad_input_is_named_and_leaves_no_file(data, trajectory, track, words, tmp_path):
    with pytest.raises(ValueError, match=words), recording("test", tmp_path / "a.rrd", "file") as rec:
        log_forward_diffusion(data, trajectory, track, rec=rec)
    assert os.listdir(tmp_path) == []


def test_the_calls_of_the_readme(tmp_path):
    code = (
        "from dataset import create_moon_dataset; from diffusion import DiffusionModel\n"
        "from rerun_viz import init_rerun, log_forward_diffusion\n"
        "data = create_moon_dataset(n_samples=50); model = DiffusionModel(num_timesteps=10)\n"
        "trajectory = model.add_noise_trajectory(data)\n"
        "init_rerun('my_visualization')\n"
        "log_forward_diffusion(data, trajectory, track_samples=[0, 10, 20])\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rerun outputs/my_visualization.rrd" in done.stdout
    steps, _ = column(tmp_path / "outputs/my_visualization.rrd", "/forward/points", "Points2D:positions")
    assert steps.tolist() == list(range(11))


def test_a_display_that_points_nowhere_loses_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DISPLAY", ":97")
    with recording("test", tmp_path / "a.rrd", "window") as rec:
        rec.log("x", rr.Points2D([[0, 0]]))
    assert "rerun" in capfd.readouterr().out
    assert (tmp_path / "a.rrd").stat().st_size > 0
