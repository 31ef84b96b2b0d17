"""Labels and guidance on points, where we know the right answer: the moon that each sample should lie on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import NO_EVALUATION, SMALL, command, untrained

from conf.groups import MLP, Moons
from dataset import make_dataset
from pipeline import Pipeline, labels_by_share
from runtime import checkpoint_file
from samplers import last
from samplers.options import SamplingOptions


@pytest.fixture(scope="module")
def conditional():
    """A pipeline of moons with labels that has learnt nothing."""
    return untrained(Moons(), MLP(hidden=8, layers=1), conditional=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The pipeline of a small conditional training on moons, long enough to tell one moon from the other."""
    folder = tmp_path_factory.mktemp("conditional") / "run"
    line = f"train.py {SMALL} {NO_EVALUATION} conditional=true max_steps=1000 task_name={folder}"
    done = command(line, folder.parent)
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


@pytest.mark.slow
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(("guidance", "least"), [(0.0, 0.95), (1.0, 0.98)])
def test_samples_lie_on_the_moon_asked_for(trained, label, guidance, least):
    assert share_on_own_moon(samples(trained, label, guidance), label) > least


@pytest.mark.slow
def test_samples_without_labels_lie_on_both_moons(trained):
    x = trained.data_units(last(trained.states(1000, SamplingOptions(sampler="ddpm", guidance=0.0), seed=0))).numpy()
    assert 0.4 < share_on_own_moon(x, 0) < 0.6


def test_the_label_and_guidance_change_the_samples(conditional):
    for weights in conditional.net.parameters():  # those of labels begin at zero
        torch.nn.init.normal_(weights, std=0.3)
    drawn = [samples(conditional, label, guidance) for label, guidance in ((0, 0.0), (1, 0.0), (1, 1.0))]
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])


@pytest.mark.parametrize(
    ("asked", "count", "labels"),
    [
        ([1, "0"], 5, [1, 0, 1, 0, 1]),
        ("all", 4, [0, 1, 0, 1]),
        (None, 4, [0, 1, 0, 1]),
        (1, 2, [1, 1]),
    ],
)
def test_the_labels_asked_for_take_turns(conditional, asked, count, labels):
    assert conditional.labels(asked, count).tolist() == labels


@pytest.mark.parametrize("wrong", [[2], [], "none", [0, 7], -1])
def test_labels_that_the_model_does_not_know_are_refused(conditional, wrong):
    with pytest.raises(ValueError, match="labels must be all, or some of 0, 1"):
        conditional.labels(wrong, 3)


@pytest.fixture(scope="module")
def unconditional(run):
    """The pipeline of a training without labels."""
    return Pipeline.load(run, "cpu")


def test_an_unconditional_model_has_no_labels(unconditional):
    assert unconditional.labels(None, 5) is None


def test_an_unconditional_model_refuses_labels(unconditional):
    with pytest.raises(ValueError, match="unconditional"):
        unconditional.labels([0], 5)


def test_an_unconditional_model_refuses_guidance(unconditional):
    with pytest.raises(ValueError, match="guidance needs labels"):
        unconditional.states(5, SamplingOptions(sampler="ddpm", guidance=0.5), seed=0)


def test_autoguidance_without_an_early_snapshot_is_refused(unconditional):
    with pytest.raises(ValueError, match="needs an early snapshot"):
        unconditional.states(5, SamplingOptions(sampler="ddpm", autoguidance=1.0), seed=0)


def test_the_denoiser_of_an_unconditional_model_refuses_labels(unconditional):
    with pytest.raises(ValueError, match="without"):
        unconditional.denoiser()(torch.zeros(3, 2), torch.tensor(0), torch.tensor([0, 1, 0]))


def test_weights_of_another_network_are_refused_with_the_name_of_the_first(run, tmp_path):
    state = checkpoint_file.load(run)
    state["config"]["model"]["hidden"] = 16
    checkpoint_file.save(tmp_path / "last.pt", state)
    with pytest.raises(ValueError, match=r"another network: module.inputs.weight is of shape \(32, 14\), and here of"):
        Pipeline.load(tmp_path, "cpu")


# ---------------------------------------------------------------- as often as in the data


@pytest.mark.parametrize(
    ("counts", "total", "sizes"),
    [([95, 5], 100, [95, 5]), ([1, 1, 1], 10, [4, 3, 3]), ([7, 0, 2], 9, [7, 0, 2]), ([1000, 1], 10, [10, 0])],
)
def test_labels_have_the_shares_of_the_data(counts, total, sizes):
    labels = labels_by_share(counts, total)
    assert labels.bincount(minlength=len(counts)).tolist() == sizes


def test_equal_shares_take_turns():
    assert labels_by_share([5, 5, 5], 7).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_the_first_rows_have_the_shares_of_all():
    first = labels_by_share([90, 10], 1000)[:100]
    assert first.bincount().tolist() == [90, 10]


def test_a_model_samples_labels_as_often_as_in_its_data(conditional):
    rare = replace(conditional, label_counts=[1900, 100])
    assert rare.labels(None, 100).bincount().tolist() == [95, 5]
    assert rare.labels("all", 4).tolist() == [0, 1, 0, 1]
    assert "0 95, 1 5; as often as in the data" in rare.describe_labels(None, rare.labels(None, 100))


def test_a_checkpoint_that_does_not_know_how_often_labels_occur_keeps_equal_shares(conditional):
    old = replace(conditional, label_counts=[])
    assert old.labels(None, 4).tolist() == [0, 1, 0, 1]
    assert "does not say" in old.describe_labels(None, old.labels(None, 4))
