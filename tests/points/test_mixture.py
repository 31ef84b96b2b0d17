"""The exact distribution against automatic differentiation, numerical integration and brute force, all in float64."""

import math

import numpy as np
import pytest
import torch
from conftest import ROOT, started
from scipy import stats

from dataset import DATASETS, make_dataset
from diffusion import exact_denoiser
from points.mixture import GaussianMixture, curve, mixed
from runtime.randomness import generator
from schedule import CosineNoiseScheduler, LinearNoiseScheduler

OPTIONS = {
    "moons": {"noise": 0.05},
    "circles": {"noise": 0.05, "factor": 0.5},
    "gaussians": {"noise": 0.1, "modes": 8},
    "swiss_roll": {"noise": 0.03},
    "spirals": {"noise": 0.03, "arms": 2},
    "helix": {"noise": 0.05},
    "grid": {"noise": 0.05, "side": 5},
    "checkerboard": {"noise": 0.1},
    "swiss_roll_3d": {"noise": 0.2},
    "s_curve": {"noise": 0.2},
    "pinwheel": {"noise": 0.05, "arms": 5},
    "text": {"noise": 0.6, "text": "Hi"},
    "picture": {"noise": 1.0, "path": str(ROOT / "docs/samples.png")},
}
SCHEDULER = LinearNoiseScheduler(1000)


def mixture_of(name):
    return make_dataset(name, 10, 0, **OPTIONS[name]).mixture


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("t", [None, 0, 300, 999])
def test_score_is_the_gradient_of_the_log_density(name, t):
    mixture = mixture_of(name)
    mixture = mixture if t is None else mixture.noised(*SCHEDULER.alpha_sigma_at(t))
    x = mixture.sample(50, generator(0, "test")).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x).sum(), x)
    torch.testing.assert_close(mixture.score(x.detach()), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name", [n for n in DATASETS if n not in ("helix", "swiss_roll_3d", "s_curve", "text", "picture")]
)
@pytest.mark.parametrize("t", [None, 300])
def test_density_integrates_to_one(name, t):
    mixture = mixture_of(name)
    mixture = mixture if t is None else mixture.noised(*SCHEDULER.alpha_sigma_at(t))
    std = mixture.variance.sqrt()
    low, high = mixture.centres.min(0).values - 8 * std, mixture.centres.max(0).values + 8 * std
    step = float(0.8 * std.max())  # a grid finer than a Gaussian is wide sums it up to 2 exp(-2 pi^2 / 0.8^2) = 1e-13
    axes = [torch.arange(float(low[i]), float(high[i]) + step, step, dtype=torch.float64) for i in range(2)]
    grid = torch.cartesian_prod(*axes)
    assert float(mixture.log_density(grid).exp().sum()) * step**2 == pytest.approx(1, abs=1e-9)


def test_moons_density_against_brute_force_integration():
    # a million equally spaced centres on each half circle, one point at a time
    a = (np.arange(1_000_000) + 0.5) / 1_000_000 * math.pi
    for point in ([0.0, 1.02], [1.0, 0.02], [0.5, 0.25], [2.1, 0.6]):
        squares = [
            (np.cos(a) - point[0]) ** 2 + (np.sin(a) - point[1]) ** 2,
            (1 - np.cos(a) - point[0]) ** 2 + (0.5 - np.sin(a) - point[1]) ** 2,
        ]
        density = np.mean([np.exp(-0.5 * s / 0.05**2).mean() for s in squares]) / (2 * math.pi * 0.05**2)
        ours = mixture_of("moons").log_density(torch.tensor([point]))
        assert float(ours) == pytest.approx(math.log(density), abs=1e-5)


ARC = (lambda a: np.stack([np.cos(a), np.sin(a)], 1)), 0, math.pi
ROLL = (lambda a: a[:, None] / (4.5 * math.pi) * np.stack([np.cos(a), np.sin(a)], 1)), 1.5 * math.pi, 4.5 * math.pi
SCREW = (lambda a: np.stack([np.cos(a), np.sin(a), a / (2 * math.pi) - 1], 1)), 0, 4 * math.pi


def fine_curve(path, start, end, noise, length):
    """`curve` by 12 nodes for every third of a standard deviation: 17 times as many."""
    panels, (nodes, weights) = math.ceil(3 * length / noise), np.polynomial.legendre.leggauss(12)
    parameter = start + (end - start) * (np.arange(panels)[:, None] + (nodes + 1) / 2).reshape(-1) / panels
    return GaussianMixture(
        torch.from_numpy(path(parameter)), noise**2, torch.from_numpy(np.tile(weights / 2, panels) / panels)
    )


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(("path", "start", "end", "length"), [(*ARC, math.pi), (*ROLL, 9.5), (*SCREW, 4 * math.pi + 2)])
def test_curves_are_right_far_into_the_tails(path, start, end, length, noise):
    ours, fine = (make(path, start, end, noise, length) for make in (curve, fine_curve))
    rng = np.random.default_rng(0)
    for deviations, most in [(0, 1e-9), (4, 1e-9), (8, 1e-9), (16, 1e-7), (32, 1e-5)]:
        near = path(rng.uniform(start, end, 200))
        direction = rng.normal(size=near.shape)
        x = torch.from_numpy(near + deviations * noise * direction / np.linalg.norm(direction, axis=1, keepdims=True))
        assert float((ours.log_density(x) - fine.log_density(x)).abs().max()) < most, deviations
    x = torch.from_numpy(rng.uniform(-1.5, 1.5, size=near.shape))  # anywhere: up to 200 standard deviations away
    assert float((ours.log_density(x) - fine.log_density(x)).abs().max()) < 0.2


def test_a_single_gaussian_is_the_textbook_one():
    mixture, x = (
        GaussianMixture(torch.tensor([[1.0, -2.0]]), torch.tensor([0.25, 4.0])),
        torch.randn(20, 2, dtype=torch.float64),
    )
    expected = stats.multivariate_normal([1, -2], np.diag([0.25, 4])).logpdf(x.numpy())
    np.testing.assert_allclose(mixture.log_density(x), expected, rtol=1e-12)


def test_best_epsilon_against_the_integral_over_clean_data():
    # E[eps | x_t] of two noisy points in one dimension, by summing over a fine grid of x_0
    mixture = GaussianMixture(torch.tensor([[-1.0], [0.5]]), 0.04, torch.tensor([0.3, 0.7]))
    x_0 = torch.linspace(-4, 4, 400_001, dtype=torch.float64)[:, None]
    prior = mixture.log_density(x_0).exp()
    for t in (0, 200, 900):
        alpha, sigma = SCHEDULER.alpha_sigma_at(t)
        for x_t in (-1.0, 0.1, 0.7):
            eps = (x_t - alpha * x_0[:, 0]) / sigma
            weight = prior * (-0.5 * eps**2).exp()
            expected = float((weight * eps).sum() / weight.sum())
            assert float(mixture.eps(torch.tensor([[x_t]]).double(), alpha, sigma)) == pytest.approx(expected, abs=1e-5)


def test_posterior_is_bayes_rule():
    mixture, (alpha, sigma) = mixture_of("moons"), SCHEDULER.alpha_sigma_at(250)
    x_t = torch.tensor([0.3, 0.1], dtype=torch.float64)
    posterior = mixture.posterior(x_t, alpha, sigma)
    x_0 = mixture.sample(5, generator(0, "test"))
    likelihood = -0.5 * ((x_t - alpha * x_0) / sigma).square().sum(1) - 2 * math.log(sigma) - math.log(2 * math.pi)
    evidence = mixture.noised(alpha, sigma).log_density(x_t[None])
    torch.testing.assert_close(posterior.log_density(x_0), mixture.log_density(x_0) + likelihood - evidence)
    # its mean is the x_0 that the best epsilon implies
    mean = (posterior.weights[:, None] * posterior.centres).sum(0)
    implied = (x_t - sigma * mixture.eps(x_t[None], alpha, sigma)[0]) / alpha
    torch.testing.assert_close(mean, implied)


def test_variance_of_epsilon_is_that_of_the_posterior():
    mixture, (alpha, sigma) = mixture_of("spirals"), SCHEDULER.alpha_sigma_at(150)
    x_t = mixture.noised(alpha, sigma).sample(4, generator(0, "test"))
    for x in x_t:  # x_0 given x_t is a mixture: its variance is that of its parts and that between them
        p = mixture.posterior(x, alpha, sigma)
        mean = p.weights @ p.centres
        variance = p.variance + p.weights @ (p.centres - mean).square()
        expected = float((alpha / sigma) ** 2 * variance.mean())
        assert float(mixture.eps_variance(x[None], alpha, sigma)) == pytest.approx(expected, rel=1e-9)


def test_points_without_noise_are_the_memorising_denoiser():
    points = torch.cartesian_prod(*[torch.arange(5, dtype=torch.float64)] * 2)  # far apart against the noise
    mixture, t = GaussianMixture(points), torch.tensor(30)
    x_t = SCHEDULER.add_noise(points, t, torch.randn(points.shape, generator=generator(0, "test"), dtype=torch.float64))
    x_0 = exact_denoiser(mixture, SCHEDULER)(x_t, t).x_0
    torch.testing.assert_close(x_0, points, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="no density"):
        mixture.log_density(points)


def test_scaled_mixture_is_the_distribution_of_scaled_points():
    mixture, shift, scale = mixture_of("moons"), torch.tensor([0.5, 0.2]), torch.tensor([0.9, 0.4])
    x = mixture.sample(10, generator(0, "test"))
    jacobian = float(scale.double().log().sum())
    ours = mixture.scaled(shift, scale).log_density((x - shift) / scale)
    torch.testing.assert_close(ours, mixture.log_density(x) + jacobian)


@pytest.mark.parametrize("name", DATASETS)
def test_data_and_mixture_agree(name):
    # mean log-density of 20 000 points against the mixture's entropy: a difference of 5 standard errors has p = 6e-7
    data, mixture = make_dataset(name, 20_000, 3, **OPTIONS[name]), mixture_of(name)
    own = mixture.log_density(mixture.sample(20_000, generator(9, "test")))
    given = mixture.log_density(torch.from_numpy(data.points))
    error = float((own.var() / len(own) + given.var() / len(given)).sqrt())
    assert abs(float(own.mean() - given.mean())) < 5 * error
    assert data.points.shape[1] == mixture.dim and (data.labels is None or data.labels.min() == 0)


def test_labels_name_the_parts():
    data = make_dataset("circles", 1000, 0, noise=0.01, factor=0.5)
    radius = np.linalg.norm(data.points, axis=1)
    assert (radius[data.labels == 0] > 0.9).all() and (radius[data.labels == 1] < 0.6).all()


def test_memory_stays_bounded(tmp_path):
    """100 000 points x 2 000 centres at once would be 1.6 GB. In a process of its own, as only the peak can be read."""
    code = """
import resource, torch
from points.mixture import GaussianMixture
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mixture, x = GaussianMixture(torch.randn(2000, 2, dtype=torch.float64), 0.01), torch.randn(100_000, 2)
before = peak(); mixture.score(x); print((peak() - before) / 1024)
"""
    done = started(["-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100


def test_curve_weights_sum_to_one_and_mixtures_are_equal():
    line = curve(lambda a: np.stack([a, 0 * a], 1), 0, 1, 0.1, 1)
    both = mixed([line, line])
    assert float(line.weights.sum()) == pytest.approx(1, abs=1e-12) == float(both.weights.sum())
    assert float(line.log_density(torch.tensor([[0.5, 0.0]]))) == pytest.approx(
        math.log((stats.norm.cdf(5) - stats.norm.cdf(-5)) * stats.norm.pdf(0) / 0.1), abs=1e-9
    )


def test_with_too_little_noise_for_an_exact_density_there_are_points_and_no_distribution():
    for name in ("moons", "circles"):
        options = {"noise": 1e-3} | ({"factor": 0.5} if name == "circles" else {})
        data = make_dataset(name, 4000, 0, **options)
        assert (data.mixture, data.parts) == (None, ())
        x, label = data.points, data.labels
        centre = np.array([0, 0]) if name == "circles" else np.stack([label, 0.5 * label], 1)
        radius = np.where(label == 0, 1, 0.5) if name == "circles" else 1.0
        away = np.linalg.norm(x - centre, axis=1) - radius  # normal with sd 1e-3; sample sd off by 5 sd: 1 in 10^6
        assert away.std() == pytest.approx(1e-3, abs=5 * 1e-3 / math.sqrt(2 * 4000))
        assert len(np.unique(np.arctan2(*(x - centre).T).round(4))) > 3000  # all along the curve, not at its nodes
    assert not make_dataset("moons", 10, 0, noise=0.0).mixture.has_density


def test_evenly_spread_points_average_better_than_chance():
    mixture = mixture_of("moons")
    exact = mixture.weights @ mixture.centres
    errors = []
    for seed in range(10):
        draws = mixture.sample_evenly(256, seed), mixture.sample(256, generator(seed, "test"))
        errors.append([float((points.mean(0) - exact).abs().max()) for points in draws])
    even, chance = np.mean(errors, axis=0)
    assert even < 0.2 * chance


@pytest.mark.parametrize("t", [0, 30, 500, 999])
@pytest.mark.parametrize("name", ["moons", "helix"])
def test_guess_of_clean_data_is_the_mean_of_the_posterior(name, t):
    # straight from the centres: at the last step, where alpha is 5e-5, x_t / alpha would lose 4 of float64's 16 digits
    mixture = make_dataset(name, 10, 0, **OPTIONS[name]).mixture
    scheduler = CosineNoiseScheduler(1000)
    alpha, sigma = scheduler.alpha_sigma_at(t)
    x_t = mixture.noised(alpha, sigma).sample(5, generator(0, "test"))
    eps, x_0 = exact_denoiser(mixture, scheduler)(x_t, torch.tensor(t))
    posteriors = [mixture.posterior(x, alpha, sigma) for x in x_t]
    near = 1e-13 if t == 999 else 1e-9
    torch.testing.assert_close(x_0, torch.stack([p.weights @ p.centres for p in posteriors]), rtol=near, atol=near)
    torch.testing.assert_close(alpha * x_0 + sigma * eps, x_t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps, mixture.eps(x_t, alpha, sigma))


@pytest.mark.parametrize("embed", [None, 6])
@pytest.mark.parametrize("name", ["checkerboard", "swiss_roll_3d", "s_curve"])
def test_a_noisy_sheet_needs_fewer_centres_and_stays_the_same_distribution(name, embed):
    mixture = make_dataset(name, 10, 0, embed=embed, **OPTIONS[name]).mixture.scaled(torch.zeros(1), torch.tensor(0.5))
    whole = GaussianMixture(mixture.centres, mixture.variance, mixture.weights)
    for alpha, sigma in ((0.9, 0.05), (0.8, 0.6), (0.1, 1.0), (0.0, 1.0)):
        noised = whole.noised(alpha, sigma)
        x = noised.sample(100, generator(0, "test"))
        assert float((mixture.noised(alpha, sigma).log_density(x) - noised.log_density(x)).abs().max()) < 1e-6
        for ours, theirs in zip(mixture.denoise(x, alpha, sigma), whole.denoise(x, alpha, sigma)):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6)
    assert len(mixture.noised(1.0, 0.0).centres) == len(mixture.centres)
    assert len(mixture.noised(0.1, 1.0).centres) < 0.7 * len(mixture.centres)


def test_a_board_of_sharp_squares_is_cheap_once_noise_is_added():
    mixture = make_dataset("checkerboard", 10, 0, noise=0.016).mixture
    assert len(mixture.centres) == 20_000 and len(mixture.noised(0.9, 0.4).centres) < 1_000
