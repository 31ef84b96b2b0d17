"""The evaluation of a network on points: label by label, and on the device of the network."""

from dataclasses import replace

import pytest
import torch

from dataset import Normaliser, make_dataset
from diffusion import Prediction
from metrics import evaluation
from metrics.evaluation import evaluate_model
from metrics.likelihood import kl_from_exact
from pipeline import Pipeline
from runtime.randomness import generator
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from schedule import LinearNoiseScheduler

SCHEDULER = LinearNoiseScheduler(1000)


class ExactOfEachLabel(torch.nn.Module):
    """E[eps | x_t, label] for the parts of a set, in normalised units.

    Without a label it predicts 0, like a network that was trained with label_dropout=0.
    """

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
    """Two moons, and a pipeline whose conditional network is exact for each of them."""
    data = make_dataset("moons", 2000, 0, noise=0.05)
    normaliser = Normaliser.fit_dataset(data)
    net = ExactOfEachLabel([part.scaled(normaliser.mean, normaliser.std) for part in data.parts])
    return data, Pipeline(net, SCHEDULER, normaliser, {"model": {"prediction": "eps"}}, classes=["0", "1"])


@pytest.fixture(scope="module")
def with_labels(conditional):
    return evaluated(*conditional)


def evaluated(data, pipeline):
    options = SamplingOptions("dpmpp_2m", 20, guidance=0.0)
    return evaluate_model(pipeline, data, data, num_samples=500, seed=0, options=options)


def row(found, beginning):
    (result,) = (r for r in found.rows if r.name.startswith(beginning))
    return result


def test_an_exact_conditional_network_has_the_error_of_the_floor(with_labels):
    # Only the rounding to float32 is left of the excess.
    error = row(with_labels, "error of epsilon")
    assert error.value / error.floor - 1 < 1e-6
    assert error.passed


def test_an_exact_conditional_network_has_no_excess_at_any_step(with_labels):
    assert float(with_labels.by_step.excess.max()) < 1e-8


def test_an_exact_conditional_network_has_the_kl_of_the_floor(with_labels):
    # KL and floor are one quantity, measured with 2000 points and with the first 300. Four standard errors for the
    # smaller number are exceeded with p = 6e-5.
    kl = row(with_labels, "KL")
    standard_error = (kl.high - kl.floor) / 1.645 * (evaluation.KL_POINTS / evaluation.KL_POINTS_EXACT) ** 0.5
    assert kl.passed
    assert abs(kl.value - kl.floor) < 4 * standard_error


def test_an_exact_conditional_network_has_a_kl_near_0(with_labels):
    assert abs(row(with_labels, "KL").value) < 0.02


@pytest.fixture
def kl_of_few_points(conditional, monkeypatch):
    """A function that measures the KL with 64 points, or with 256 if that is too close to call."""
    data, pipeline = conditional
    conditions = evaluation.known_conditions(pipeline, data)
    for name, small in (("KL_STEPS", 20), ("KL_POINTS", 64), ("MORE_KL_POINTS", 256)):
        monkeypatch.setattr(evaluation, name, small)
    return lambda: evaluation._kl_result(pipeline, conditions, seed=0)


def test_a_clear_kl_is_measured_once(kl_of_few_points):
    decided = kl_of_few_points()
    assert decided.n == 64
    assert decided.passed


def test_a_kl_too_close_to_call_is_measured_with_more_points(kl_of_few_points, monkeypatch):
    decided = kl_of_few_points()
    monkeypatch.setattr(evaluation, "GOOD_KL", decided.value - decided.floor - 1e-6)
    measured_again = kl_of_few_points()
    assert measured_again.n == 256
    assert measured_again.high - measured_again.low < 0.9 * (decided.high - decided.low)


@pytest.fixture(scope="module")
def without_labels(conditional):
    data, pipeline = conditional
    return evaluated(data, replace(pipeline, classes=[]))


def test_without_its_labels_the_same_network_has_the_error_of_predicting_no_noise(without_labels):
    error = row(without_labels, "error of epsilon")
    assert error.value == pytest.approx(1, abs=0.02)
    assert error.value > 2 * error.floor
    assert not error.passed


def test_without_its_labels_the_same_network_has_a_large_kl(without_labels):
    # Its density is that of pure noise.
    kl = row(without_labels, "KL")
    assert kl.value > 1
    assert not kl.passed


def conditions_of(pipeline, data):
    return [(each.label, each.mixture) for each in evaluation.known_conditions(pipeline, data)]


def test_a_conditional_network_is_evaluated_for_each_label(conditional):
    data, pipeline = conditional
    assert [label for label, _ in conditions_of(pipeline, data)] == [0, 1]


def test_an_unconditional_network_is_evaluated_without_a_label(conditional):
    data, pipeline = conditional
    assert [label for label, _ in conditions_of(replace(pipeline, classes=[]), data)] == [None]


def test_the_floor_of_a_conditional_network_is_the_mean_over_its_labels(conditional, with_labels):
    data, pipeline = conditional
    floors = [evaluation.bayes_floor(mixture, SCHEDULER) for _, mixture in conditions_of(pipeline, data)]
    assert row(with_labels, "error of epsilon").floor == pytest.approx(sum(floors) / 2, rel=1e-6)


def test_the_floor_of_a_conditional_network_is_below_that_of_an_unconditional_one(conditional, with_labels):
    # If the label is known, less of the noise is uncertain.
    data, pipeline = conditional
    ((_, whole),) = conditions_of(replace(pipeline, classes=[]), data)
    assert row(with_labels, "error of epsilon").floor < 0.99 * evaluation.bayes_floor(whole, SCHEDULER)


@pytest.fixture
def denoiser_on_meta():
    """A denoiser with weights on the device `meta`, and the devices of x_t and t in all of its calls.

    A device without numbers replaces a GPU here. As on a GPU, the network refuses points on the CPU.
    """
    net, devices = torch.nn.Linear(2, 2, device="meta"), []

    def denoise(x_t, t, label=None):
        devices.append((x_t.device.type, t.device.type))
        return Prediction(net(x_t), x_t)

    return denoise, devices


def test_the_denoiser_on_another_device_refuses_points_on_the_cpu(denoiser_on_meta):
    denoise, _ = denoiser_on_meta
    with pytest.raises(RuntimeError, match="device meta"):
        denoise(torch.zeros(10, 2), torch.tensor(0))


def test_points_are_moved_to_the_device_of_the_network(denoiser_on_meta, standard_normal):
    # The points go through every step there. Only reading the result has to fail.
    denoise, devices = denoiser_on_meta
    x, timesteps = standard_normal.sample(10, generator(0, "test")), spaced_timesteps(SCHEDULER, 5)
    with pytest.raises(NotImplementedError, match="copy out of meta tensor"):
        kl_from_exact(denoise, SCHEDULER, standard_normal, x, timesteps, device="meta")
    assert devices == [("meta", "meta")] * 5
