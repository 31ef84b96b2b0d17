"""The evaluation of a network on points: condition by condition, and wherever the network computes."""

from dataclasses import replace

import pytest
import torch

from dataset import Normaliser, make_dataset
from diffusion import Prediction
from metrics import evaluation
from metrics.evaluation import evaluate_model
from metrics.likelihood import kl_from_exact
from pipeline import Pipeline
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers.spacing import spaced_timesteps
from schedule import LinearNoiseScheduler

SCHEDULER = LinearNoiseScheduler(1000)


class ExactOfEachLabel(torch.nn.Module):
    """E[eps | x_t, label] of a set's parts, in normalised units; and silence without a label, as of label_dropout=0."""

    def __init__(self, parts):
        super().__init__()
        self.parts, self.anchor = parts, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x_t, t, label=None):
        if label is None:
            return 0 * x_t
        of_each = torch.stack([part.eps(x_t, *SCHEDULER.alpha_sigma_at(int(t))) for part in self.parts])
        return of_each[label, torch.arange(len(x_t))]


@pytest.fixture(scope="module")
def conditional():
    """Two moons, and a conditional network that knows each of them exactly."""
    data = make_dataset("moons", 2000, 0, noise=0.05)
    normaliser = Normaliser.of(data)
    net = ExactOfEachLabel([part.scaled(normaliser.mean, normaliser.std) for part in data.parts])
    return data, Pipeline(net, SCHEDULER, normaliser, {"model": {"prediction": "eps"}}, classes=["0", "1"])


@pytest.fixture(scope="module")
def with_labels(conditional):
    return evaluated(*conditional)


def evaluated(data, pipeline):
    sampling = {"sampler": "dpmpp_2m", "sampling_steps": 20, "eta": 0.0, "guidance": 0.0}
    return evaluate_model(pipeline, data, data, num_samples=500, seed=0, sampling=sampling)


def row(found, beginning):
    (result,) = (r for r in found.rows if r.name.startswith(beginning))
    return result


def test_a_conditional_network_is_compared_with_the_exact_distribution_of_each_label(with_labels):
    # It is exact, so only rounding to float32 is left of the excess. Its KL and the floor's are one quantity, measured
    # with 2000 points and with the first 300: 4 standard errors of the smaller number are exceeded with p = 6e-5.
    error, kl = row(with_labels, "error of epsilon"), row(with_labels, "KL")
    assert error.value / error.floor - 1 < 1e-6 and error.passed
    assert float(with_labels.by_step.excess.max()) < 1e-8
    standard_error = (kl.high - kl.floor) / 1.645 * (evaluation.KL_POINTS / evaluation.KL_POINTS_EXACT) ** 0.5
    assert kl.passed and abs(kl.value - kl.floor) < 4 * standard_error
    assert abs(kl.value) < 0.02


def test_a_kl_too_close_to_call_is_measured_with_more_points(conditional, monkeypatch):
    data, pipeline = conditional
    conditions = evaluation._conditions(pipeline, data)
    for name, small in (("KL_STEPS", 20), ("KL_POINTS", 64), ("MORE_KL_POINTS", 256)):
        monkeypatch.setattr(evaluation, name, small)
    decided = evaluation._kl_result(pipeline, conditions, seed=0)
    assert decided.n == 64 and decided.passed
    monkeypatch.setattr(evaluation, "GOOD_KL", decided.value - decided.floor - 1e-6)
    measured_again = evaluation._kl_result(pipeline, conditions, seed=0)
    assert measured_again.n == 256
    assert measured_again.high - measured_again.low < 0.9 * (decided.high - decided.low)


def test_without_its_labels_the_same_network_is_far_from_the_data(conditional):
    # what was measured before labels were given to it: an epsilon of 0 has an error of 1 and the density of pure noise
    data, pipeline = conditional
    found = evaluated(data, replace(pipeline, classes=[]))
    error, kl = row(found, "error of epsilon"), row(found, "KL")
    assert error.value == pytest.approx(1, abs=0.02) and error.value > 2 * error.floor and not error.passed
    assert kl.value > 1 and not kl.passed


def test_the_floor_of_a_conditional_network_is_the_mean_over_its_labels(conditional, with_labels):
    # knowing the label, less of the noise is uncertain: below the floor of both moons together
    data, pipeline = conditional
    of_labels, of_all = (evaluation._conditions(t, data) for t in (pipeline, replace(pipeline, classes=[])))
    assert [label for label, _ in of_labels] == [0, 1] and [label for label, _ in of_all] == [None]
    floors = [evaluation.bayes_floor(mixture, SCHEDULER) for _, mixture in of_labels]
    error = row(with_labels, "error of epsilon")
    assert error.floor == pytest.approx(sum(floors) / 2, rel=1e-6)
    assert error.floor < 0.99 * evaluation.bayes_floor(of_all[0][1], SCHEDULER)


def test_points_are_moved_to_where_the_network_computes():
    # A device without numbers stands in for a GPU: as on a GPU, a network whose weights lie there refuses points that
    # lie on the CPU. So the points arrive there, go through every step, and only reading the result has to fail.
    net, asked = torch.nn.Linear(2, 2, device="meta"), []

    def denoise(x_t, t, label=None):
        asked.append((x_t.device.type, t.device.type))
        return Prediction(net(x_t), x_t)

    mixture = GaussianMixture(torch.zeros(1, 2), 1.0)
    x, timesteps = mixture.sample(10, generator(0, "test")), spaced_timesteps(SCHEDULER, 5)
    with pytest.raises(RuntimeError, match="device meta"):
        denoise(x.float(), torch.tensor(0))
    asked.clear()
    with pytest.raises(NotImplementedError, match="copy out of meta tensor"):
        kl_from_exact(denoise, SCHEDULER, mixture, x, timesteps, device="meta")
    assert asked == [("meta", "meta")] * 5
