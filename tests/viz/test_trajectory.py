"""Trajectories come back from their files as they were saved."""

import numpy as np
import pytest

from viz.films.trajectory import load_scene, save_scene
from viz.scene import Process, Scene

STEPS = np.linspace(0, 1000, 11).astype(int)


@pytest.fixture
def scene():
    """Ten points in the plane in both directions, with everything that a trajectory can hold."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(11, 10, 2)).astype("f")
    return Scene(
        [Process("forward", states, STEPS), Process("reverse", states[::-1], STEPS[::-1])],
        data=rng.normal(size=(10, 2)).astype("f"),
        alpha_bar=np.linspace(1, 0, 1001),
        predictions=(states[:, [3, 5]], np.full((11, 2, 2), [0.5, -0.25], "f")),
        labels=np.arange(10) % 2,
        classes=["cat", "dog"],
        guidance_text="guidance 2",
    )


@pytest.fixture
def again(scene, tmp_path):
    return load_scene(save_scene(scene, tmp_path / "t.npz"))


def test_states_and_steps_of_both_directions_come_back(scene, again):
    for one, other in zip(scene.processes, again.processes, strict=True):
        assert one.side == other.side
        assert np.array_equal(one.states, other.states)
        assert np.array_equal(one.steps, other.steps)


@pytest.mark.parametrize("name", ["data", "alpha_bar", "labels"])
def test_an_array_of_a_scene_comes_back(name, scene, again):
    assert np.array_equal(getattr(again, name), getattr(scene, name))


def test_predictions_of_x_0_come_back(scene, again):
    assert all(np.array_equal(one, other) for one, other in zip(again.predictions, scene.predictions, strict=True))


def test_class_names_come_back(scene, again):
    assert list(again.classes) == scene.classes


def test_the_words_for_guidance_come_back(again):
    assert again.guidance_text == "guidance 2"


def test_a_trajectory_with_the_former_names_is_read(scene, tmp_path):
    forward = scene.processes[0]
    np.savez(tmp_path / "t.npz", forward=forward.states, forward_noisings=forward.steps)
    (again,) = load_scene(tmp_path / "t.npz").processes
    assert again.side == "forward"
    assert np.array_equal(again.steps, forward.steps)
