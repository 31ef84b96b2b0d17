"""The Bayes floor: the smallest error of eps that a network can have."""

import pytest
import torch
from conftest import gaussian

from dataset import Normaliser, make_dataset
from diffusion import Prediction, exact_denoiser
from loss.objective import training_loss
from metrics import bayes
from metrics.bayes import bayes_floor, excess, make_probes
from runtime.randomness import generator
from schedule import LinearNoiseScheduler

SCHEDULER, CPU = LinearNoiseScheduler(200), torch.device("cpu")


MOONS = make_dataset("moons", 1, 0, noise=0.05).mixture
HALF = gaussian([0.0, 0.0], 0.5)


def floor_of_half(timesteps):
    """The floor at each step for x_0 ~ N(0, v) with v = 0.5.

    In every coordinate and at every point, Var(eps | x_t) = alpha^2 v / (alpha^2 v + sigma^2).
    """
    a = SCHEDULER.alphas_cumprod[timesteps]
    return (a * 0.5 / (a * 0.5 + 1 - a)).float()


def test_the_floor_of_a_gaussian_at_each_step_is_the_closed_form():
    probes = make_probes(HALF, SCHEDULER, num_steps=200, num_points=10, seed=0)
    torch.testing.assert_close(probes.floor, floor_of_half(probes.timesteps))


def test_the_floor_of_a_gaussian_is_the_closed_form():
    probes = make_probes(HALF, SCHEDULER, num_steps=200, num_points=10, seed=0)
    expected = float(floor_of_half(probes.timesteps).mean())
    assert bayes_floor(HALF, SCHEDULER) == pytest.approx(expected, rel=1e-5)


def test_the_exact_denoiser_has_no_excess():
    probes = make_probes(MOONS, SCHEDULER, num_steps=10, num_points=100, seed=0)
    assert float(excess(exact_denoiser(MOONS, SCHEDULER), probes, CPU).max()) < 1e-9


def test_the_excess_of_a_denoiser_is_its_squared_distance_from_the_exact_one():
    probes = make_probes(MOONS, SCHEDULER, num_steps=10, num_points=100, seed=0)
    exact = exact_denoiser(MOONS, SCHEDULER)
    off = excess(lambda x, t: Prediction(exact(x, t).eps + 0.1, x), probes, CPU)
    torch.testing.assert_close(off, torch.full((10,), 0.01), rtol=1e-3, atol=0)


def monte_carlo(mixture, scheduler, n, batches):
    """The Bayes floor by random points at every step, and its standard error from the spread of independent batches.

    Each batch has every centre in proportion to its weight (systematic sampling), with random noise.
    """
    g = generator(3, "test")
    means = []
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


@pytest.mark.slow  # 16 batches of 500 or 1,000 points at each of 100 steps
@pytest.mark.parametrize(
    ("name", "options", "n"),
    [
        ("moons", {"noise": 0.05}, 1000),
        ("circles", {"noise": 0.05, "factor": 0.5}, 500),
        ("spirals", {"noise": 0.03, "arms": 2}, 500),
        ("helix", {"noise": 0.05}, 500),
    ],
)
def test_the_floor_is_that_of_independent_points_at_every_step(name, options, n):
    data = make_dataset(name, 2000, 0, **options)
    normaliser = Normaliser.fit_dataset(data)
    mixture = data.mixture.scaled(normaliser.mean, normaliser.std)
    scheduler = LinearNoiseScheduler(100)
    expected, error = monte_carlo(mixture, scheduler, n, batches=16)
    assert error < 0.001 * expected  # We saw 0.03 to 0.06 %.
    # Four standard errors, estimated from 16 batches, are exceeded with p = 0.001. The floor's own error is 0.05 %.
    assert abs(bayes_floor(mixture, scheduler) - expected) < 4 * error + 0.0005 * expected


def test_the_training_loss_of_the_exact_denoiser_is_the_floor():
    g = torch.Generator().manual_seed(0)
    exact = exact_denoiser(MOONS, SCHEDULER)
    network = lambda x_t, t, label: exact(x_t, t).eps  # noqa: E731
    losses = []
    for t in range(200):
        x_0, eps = MOONS.sample(500, g).float(), torch.randn(500, 2, generator=g)
        losses.append(training_loss(network, SCHEDULER, x_0, torch.tensor(t), eps).ordinary.mean())
    assert float(torch.stack(losses).mean()) == pytest.approx(bayes_floor(MOONS, SCHEDULER), rel=0.02)


# ---------------------------------------------------------------- floors that are computed once


def scaled_checkerboard(noise):
    """A new object in each call, and an equal distribution for equal noise."""
    data = make_dataset("checkerboard", 100, 0, noise=noise)
    return data.mixture.scaled(torch.tensor([0.1, 0.2]), torch.tensor([2.0, 1.5]))


@pytest.fixture
def first_floor(monkeypatch):
    """The floor of a checkerboard with noise 0.2. From now on, a floor that is computed anew is another number."""
    monkeypatch.setattr(bayes, "FLOOR_POINTS", 64)
    scheduler = LinearNoiseScheduler(200)
    floor = bayes_floor(scaled_checkerboard(0.2), scheduler)
    monkeypatch.setattr(bayes, "FLOOR_POINTS", 32)
    return floor, scheduler


def test_a_floor_is_computed_once_for_equal_distributions(first_floor):
    floor, scheduler = first_floor
    assert scaled_checkerboard(0.2) is not scaled_checkerboard(0.2)
    assert bayes_floor(scaled_checkerboard(0.2), scheduler) == floor


def test_a_floor_is_computed_anew_for_another_scheduler(first_floor):
    floor, _ = first_floor
    assert bayes_floor(scaled_checkerboard(0.2), LinearNoiseScheduler(200)) != floor


def test_a_floor_is_computed_anew_for_another_distribution(first_floor):
    other = LinearNoiseScheduler(200)
    assert bayes_floor(scaled_checkerboard(0.2), other) != bayes_floor(scaled_checkerboard(0.21), other)
