"""The Bayes floor: a network can reach it, and none gets below."""

import pytest
import torch

from dataset import make_dataset
from diffusion import Prediction, exact_denoiser, training_loss
from metrics.bayes import bayes_floor, excess, make_probes
from mixture import GaussianMixture
from schedule import LinearNoiseScheduler

SCHEDULER, CPU = LinearNoiseScheduler(200), torch.device("cpu")


def test_floor_of_a_gaussian_has_a_closed_form():
    # x_0 ~ N(0, v): Var(eps | x_t) = alpha^2 v / (alpha^2 v + sigma^2), in every coordinate
    mixture = GaussianMixture(torch.zeros(1, 2), 0.5)
    probes = make_probes(mixture, SCHEDULER, num_steps=200, num_points=10, seed=0)
    a = SCHEDULER.alphas_cumprod[probes.timesteps]
    expected = (a * 0.5 / (a * 0.5 + 1 - a)).float()
    torch.testing.assert_close(probes.floor, expected)  # here the same at every point
    assert bayes_floor(mixture, SCHEDULER) == pytest.approx(float(expected.mean()), rel=1e-5)


def test_the_exact_denoiser_has_no_excess_and_another_has_its_squared_error():
    mixture = make_dataset("moons", 1, 0, noise=0.05).mixture
    probes = make_probes(mixture, SCHEDULER, num_steps=10, num_points=100, seed=0)
    exact = exact_denoiser(mixture, SCHEDULER)
    assert float(excess(exact, probes, CPU).max()) < 1e-9
    off = excess(lambda x, t: Prediction(exact(x, t).eps + 0.1, x), probes, CPU)
    torch.testing.assert_close(off, torch.full((10,), 0.01), rtol=1e-3, atol=0)


def test_training_loss_of_the_exact_denoiser_is_the_floor():
    mixture, g = make_dataset("moons", 1, 0, noise=0.05).mixture, torch.Generator().manual_seed(0)
    exact, losses = exact_denoiser(mixture, SCHEDULER), []
    for t in range(200):
        x_0, eps = mixture.sample(500, g).float(), torch.randn(500, 2, generator=g)
        network = lambda x_t, t, label: exact(x_t, t).eps  # noqa: E731
        losses.append(training_loss(network, SCHEDULER, x_0, torch.tensor(t), eps).mean())
    assert float(torch.stack(losses).mean()) == pytest.approx(bayes_floor(mixture, SCHEDULER), rel=0.02)
