"""Flows whose paths are straight: how that is measured, and `scripts/reflow.py`, which makes them so."""

import re

import pytest
import torch
from conftest import NO_EVALUATION, SMALL, command

from diffusion import exact_denoiser
from metrics.straightness import straightness
from pipeline import Pipeline
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import last
from samplers.options import SamplingOptions
from schedule import FlowNoiseScheduler

FLOW = FlowNoiseScheduler(1000)
X_T = torch.randn(4000, 2, generator=generator(0, "x_T"), dtype=torch.float64)


def test_paths_to_a_single_point_are_straight():
    point = GaussianMixture(torch.tensor([[0.3, -2.0]], dtype=torch.float64), 0.0)
    assert straightness(exact_denoiser(point, FLOW), FLOW, X_T) < 1e-20


def test_paths_to_a_gaussian_bend_as_much_as_in_closed_form():
    # x_s = r(s) x_T with r^2 = (1 - s)^2 w^2 + s^2: S = mean over s of (1 - w - dr/ds)^2, times E x_T^2
    w, s = 0.3, (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    slope = (s - (1 - s) * w**2) / ((1 - s) ** 2 * w**2 + s**2).sqrt()
    expected = float((1 - w - slope).square().mean() * X_T.square().mean())
    gaussian = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), w**2)
    assert straightness(exact_denoiser(gaussian, FLOW), FLOW, X_T, 1000) == pytest.approx(expected, rel=0.01)


@pytest.fixture(scope="module")
def reflowed(tmp_path_factory):
    """A short training of a flow, straightened, and what the second of these printed."""
    folder = tmp_path_factory.mktemp("reflow")
    done = command(f"train.py schedule=flow max_steps=400 task_name=flow {SMALL} {NO_EVALUATION}", folder)
    assert done.returncode == 0, done.stderr
    done = command("scripts/reflow.py flow --pairs 2000 --steps 400", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_reflow_straightens_the_paths(reflowed):
    folder, printed = reflowed
    found = {name: float(s) for name, s in re.findall(r"^(first flow|reflow|exact flow) +([0-9.]+)", printed, re.M)}
    assert found["reflow"] < found["first flow"] / 5  # 0.45 and 0.005 seen
    assert found["exact flow"] == pytest.approx(0.457, abs=0.05)
    # one evaluation of the second goes where fifty of the first went: the same noise, the same sample
    first, second = (Pipeline.load(folder / name, "cpu") for name in ("flow/last.pt", "flow/reflow/last.pt"))
    fifty = last(first.states(500, SamplingOptions(sampler="ddim", sampling_steps=50, guidance=0.0), seed=1))
    off = [
        (last(m.states(500, SamplingOptions(sampler="ddim", sampling_steps=1, guidance=0.0), seed=1)) - fifty)
        .square()
        .mean()
        for m in (first, second)
    ]
    assert float(off[1]) < float(off[0]) / 5


def test_what_was_reflowed_is_a_checkpoint_as_any_other(reflowed):
    folder, _ = reflowed
    second = Pipeline.load(folder / "flow/reflow/last.pt", "cpu")
    assert second.sampling({"sampler": "dpmpp_2m_sde", "sampling_steps": None, "guidance": 0.0})["sampler"] == "ddim"
    done = command("train.py resume=flow/reflow", folder)
    assert done.returncode == 1 and "cannot be resumed" in done.stderr and "Traceback" not in done.stderr


def test_only_a_flow_can_be_straightened(run, tmp_path):
    for given, answer in ((run, "schedule=linear; give one of schedule=flow"), ("nowhere", "no checkpoint at nowhere")):
        done = command(f"scripts/reflow.py {given}", tmp_path)
        assert done.returncode == 1 and answer in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
