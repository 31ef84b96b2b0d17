"""A small conditional model with an early snapshot: autoguidance, and the commands that condition or guide it."""

import shutil

import pytest
import torch
from conftest import NO_EVALUATION, SMALL, command, not_blank, succeeded

from conf.config import Inference
from conf.inference_modes import chosen_mode
from diffusion import denoiser
from pipeline import Pipeline
from runtime import checkpoint_file
from samplers.options import SamplingOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the run folder `whole` of a conditional training with an early snapshot."""
    folder = tmp_path_factory.mktemp("snapshot")
    succeeded(f"train.py {SMALL} {NO_EVALUATION} conditional=true early_ema=0.5 max_steps=60 task_name=whole", folder)
    return folder


# ---------------------------------------------------------------- the early snapshot


@pytest.fixture(scope="module")
def pipeline(folder):
    """A pipeline of conditional moons with an early snapshot."""
    return Pipeline.load(folder / "whole", "cpu")


def test_the_snapshot_averages_the_steps_up_to_its_own(folder):
    state = checkpoint_file.load(folder / "whole")
    assert int(state["early"]["n_averaged"]) == 30
    assert int(state["ema"]["n_averaged"]) == 60


def test_a_pipeline_loads_the_snapshot(pipeline):
    assert pipeline.early is not None


@pytest.mark.parametrize(("w", "network"), [(0.0, "net"), (-1.0, "early")])
def test_autoguidance_0_is_the_network_and_minus_1_the_snapshot(pipeline, w, network):
    x_t, t, label = torch.randn(9, 2), torch.tensor(20), torch.arange(9) % 2
    expected = denoiser(getattr(pipeline, network), pipeline.scheduler, "v")(x_t, t, label)
    assert torch.equal(pipeline.denoiser(SamplingOptions(autoguidance=w))(x_t, t, label).eps, expected.eps)


@pytest.fixture(scope="module")
def resumed(folder):
    """The checkpoints of a training with a snapshot before and after it is resumed."""
    shutil.copytree(folder / "whole", folder / "part")
    before = checkpoint_file.load(folder / "part")
    succeeded(f"train.py resume=part max_steps=70 {NO_EVALUATION}", folder)
    return before, checkpoint_file.load(folder / "part")


def test_a_training_with_a_snapshot_can_be_resumed(resumed):
    _, after = resumed
    assert after["step"] == 70


def test_a_resumed_training_keeps_the_snapshot(resumed):
    before, after = resumed
    assert all(torch.equal(before["early"][name], after["early"][name]) for name in before["early"])


def test_an_interval_without_guidance_is_refused(pipeline):
    with pytest.raises(ValueError, match="give guidance or autoguidance as well"):
        pipeline.states(5, SamplingOptions(sampler="ddpm", guidance=0.0, guidance_interval=[1, 2]), seed=0)


def test_guidance_together_with_autoguidance_is_refused(pipeline):
    with pytest.raises(ValueError, match="are alternatives"):
        pipeline.states(5, SamplingOptions(sampler="ddpm", guidance=1.0, autoguidance=1.0), seed=0)


# ---------------------------------------------------------------- the commands


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("observe=y=50", "contradicts the data set"),
        ("observe=mask:left", "is for images"),
        ("observe=", "observe= is no observation of a point"),
        ("guidance_interval=[2,1] guidance=1", "two numbers that rise from 0; got [2,1]"),
    ],
)
def test_a_mistake_is_answered_in_one_line(folder, words, sentence):
    done = command(f"inference.py checkpoint=whole {words}", folder)
    assert done.returncode == 1 and sentence in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observe": "y=0.2", "guidance_sheet": True}, "are two things"),
        ({"observe": "y=0.2", "variance": "exact", "labels": 0}, "leave out labels and variance"),
        ({"observe": "y=0.2", "guidance_interval": [0.1, 1.0]}, "leave out guidance_interval"),
        ({"guidance_sheet": True, "animation": "gif"}, "leave out animation"),
        ({"observe_noise": 0.3}, "observe_noise belongs to observe"),
    ],
)
def test_options_without_an_effect_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        chosen_mode(Inference(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_sheet": True, "guidance_interval": [0.1, 1.0], "rerun": False, "num_samples": 3, "seed": 4},
        {"observe": "y=0.2", "observe_method": "tds", "observe_noise": 0.3, "threads": 2, "checkpoint": "runs/a"},
        {"guidance_interval": [0.1, 1.0], "variance": "exact", "labels": 0},
    ],
)
def test_options_with_an_effect_are_accepted(options):
    chosen_mode(Inference(**options))


@pytest.mark.parametrize(
    ("words", "picture", "said"),
    [
        ("observe=y=0.2", "posterior.png", "sliced Wasserstein-1 to the exact posterior"),
        pytest.param("guidance_sheet=true", "guidance.png", "what guidance w claims to sample", marks=pytest.mark.slow),
    ],
)
def test_the_command_draws_a_picture_and_prints_a_table_beside_the_truth(folder, words, picture, said):
    done = command(f"inference.py checkpoint=whole num_samples=60 {words} hydra.run.dir=drawn", folder)
    assert done.returncode == 0 and said in done.stdout, done.stderr
    assert not_blank(folder / "drawn" / picture)
