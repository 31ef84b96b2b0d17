"""The Bayes floor: a network can reach it, and none gets below."""

import pytest
import torch

from dataset import Normaliser, make_dataset
from diffusion import Prediction, exact_denoiser
from loss.objective import training_loss
from metrics import bayes
from metrics.bayes import bayes_floor, excess, make_probes
from points.mixture import GaussianMixture
from runtime.randomness import generator
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


def monte_carlo(mixture, scheduler, n, batches):
    """The Bayes floor by random points at every step, and its standard error, from the spread of independent batches.

    Each batch has every centre in proportion to its weight (systematic sampling), with random noise.
    """
    g, means = generator(3, "test"), []
    for _ in range(batches):
        total = 0.0
        for t in range(scheduler.num_timesteps):
            alpha, sigma = scheduler.alpha_sigma_at(t)
            noised = mixture.noised(alpha, sigma)
            at = (torch.arange(n) + torch.rand(1, generator=g, dtype=torch.double)) / n
            centre = noised.centres[torch.searchsorted(noised.weights.cumsum(0), at).clamp(max=len(noised.centres) - 1)]
            x_t = centre + noised.variance.sqrt() * torch.randn(centre.shape, generator=g, dtype=torch.double)
            total += float(mixture.eps_variance(x_t, alpha, sigma).mean()) / scheduler.num_timesteps
        means.append(total)
    means = torch.tensor(means, dtype=torch.double)
    return float(means.mean()), float(means.std() / batches**0.5)


@pytest.mark.parametrize(
    ("name", "options", "n"),
    [
        ("moons", {"noise": 0.05}, 1000),
        ("circles", {"noise": 0.05, "factor": 0.5}, 500),
        ("spirals", {"noise": 0.03, "arms": 2}, 500),
        ("helix", {"noise": 0.05}, 500),
    ],
)
def test_floor_is_that_of_independent_points_at_every_step(name, options, n):
    data = make_dataset(name, 2000, 0, **options)
    normaliser = Normaliser.of(data)
    mixture = data.mixture.scaled(normaliser.mean, normaliser.std)
    scheduler = LinearNoiseScheduler(100)
    expected, error = monte_carlo(mixture, scheduler, n, batches=16)
    assert error < 0.001 * expected  # seen: 0.03 .. 0.06 %
    # Four standard errors, estimated from 16 batches, are exceeded with p = 0.001; 0.05 % is the floor's own error.
    assert abs(bayes_floor(mixture, scheduler) - expected) < 4 * error + 0.0005 * expected


def test_training_loss_of_the_exact_denoiser_is_the_floor():
    mixture, g = make_dataset("moons", 1, 0, noise=0.05).mixture, torch.Generator().manual_seed(0)
    exact, losses = exact_denoiser(mixture, SCHEDULER), []
    for t in range(200):
        x_0, eps = mixture.sample(500, g).float(), torch.randn(500, 2, generator=g)
        network = lambda x_t, t, label: exact(x_t, t).eps  # noqa: E731
        losses.append(training_loss(network, SCHEDULER, x_0, torch.tensor(t), eps).ordinary.mean())
    assert float(torch.stack(losses).mean()) == pytest.approx(bayes_floor(mixture, SCHEDULER), rel=0.02)


def test_a_floor_is_computed_once_for_equal_distributions(monkeypatch):
    def scaled(noise):
        data = make_dataset("checkerboard", 100, 0, noise=noise)
        return data.mixture.scaled(torch.tensor([0.1, 0.2]), torch.tensor([2.0, 1.5]))

    monkeypatch.setattr(bayes, "FLOOR_POINTS", 64)
    first = bayes_floor(scaled(0.2), SCHEDULER)
    monkeypatch.setattr(bayes, "FLOOR_POINTS", 32)  # who computes now finds another number
    assert scaled(0.2) is not scaled(0.2) and bayes_floor(scaled(0.2), SCHEDULER) == first
    other = LinearNoiseScheduler(200)
    assert bayes_floor(scaled(0.2), other) not in (first, bayes_floor(scaled(0.21), other))
