"""Labels and guidance on points, where what is right is known: each moon lies where it lies."""

import numpy as np
import pytest
import torch
from conftest import NO_EVALUATION, SMALL, command

from dataset import make_dataset
from pipeline import Pipeline
from runtime import checkpoint_file
from samplers import last
from samplers.options import SamplingOptions


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A small model of moons that has learnt which moon is which."""
    folder = tmp_path_factory.mktemp("conditional") / "run"
    done = command(
        f"train.py {SMALL} {NO_EVALUATION} conditional=true max_steps=1000 task_name={folder}", folder.parent
    )
    assert done.returncode == 0, done.stderr
    return Pipeline.load(folder, "cpu")


def samples(model, label, guidance):
    labels = torch.full((1000,), label)
    return model.data_units(
        last(model.states(1000, SamplingOptions(sampler="ddpm", guidance=guidance), labels=labels, seed=0))
    ).numpy()


def share_on_own_moon(points, label):
    real = make_dataset("moons", 1000, 0, noise=0.05)
    nearest = np.linalg.norm(points[:, None] - real.points[None], axis=-1).argmin(1)
    return float((real.labels[nearest] == label).mean())


@pytest.mark.parametrize("label", [0, 1])
def test_samples_lie_on_the_moon_asked_for(conditional, label):
    plain, steered = (share_on_own_moon(samples(conditional, label, w), label) for w in (0.0, 1.0))
    assert plain > 0.95 and steered > 0.98


def test_without_labels_both_moons_come(conditional):
    x = conditional.data_units(
        last(conditional.states(1000, SamplingOptions(sampler="ddpm", guidance=0.0), seed=0))
    ).numpy()
    assert 0.4 < share_on_own_moon(x, 0) < 0.6


def test_labels_are_asked_for_by_name(conditional):
    assert conditional.labels([1, "0"], 5).tolist() == [1, 0, 1, 0, 1]
    assert conditional.labels("all", 4).tolist() == conditional.labels(None, 4).tolist() == [0, 1, 0, 1]
    assert conditional.labels(1, 2).tolist() == [1, 1]
    for wrong in ([2], [], "none", [0, 7], -1):
        with pytest.raises(ValueError, match="labels must be all, or some of 0, 1"):
            conditional.labels(wrong, 3)


def test_an_unconditional_model_has_no_labels(run):
    model = Pipeline.load(run, "cpu")
    assert model.labels(None, 5) is None
    with pytest.raises(ValueError, match="unconditional"):
        model.labels([0], 5)
    with pytest.raises(ValueError, match="guidance needs labels"):
        model.states(5, SamplingOptions(sampler="ddpm", guidance=0.5), seed=0)
    with pytest.raises(ValueError, match="without"):
        model.denoiser()(torch.zeros(3, 2), torch.tensor(0), torch.tensor([0, 1, 0]))


def test_resuming_another_model_names_the_mismatch(run, workplace):
    done = command(f"train.py dataset=digits model=unet_small {NO_EVALUATION} resume={run}", workplace)
    assert done.returncode == 1 and "was trained with dataset=moons, not dataset=digits" in done.stderr


def test_weights_of_another_network_are_named(run, tmp_path):
    state = checkpoint_file.load(run)
    state["config"]["model"]["hidden"] = 16
    checkpoint_file.save(tmp_path / "last.pt", state)
    with pytest.raises(ValueError, match=r"another network: module.inputs.weight is of shape \(32, 14\), and here of"):
        Pipeline.load(tmp_path, "cpu")
