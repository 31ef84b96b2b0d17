"""The exact distribution against automatic differentiation, numerical integration and brute force, in float64."""

import functools
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import ROOT, gaussian, started
from scipy import stats

from conf.groups import GROUPS
from dataset import exact_parts, make_dataset
from diffusion import exact_denoiser
from points.mixture import GaussianMixture, _basis_of_plane, curve, equal_mixture
from registry.data_rows import POINT_SETS
from runtime.randomness import generator
from schedule import CosineNoiseScheduler, LinearNoiseScheduler

# Options that differ from the defaults. A new set needs no entry.
OWN_OPTIONS = {
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


def options_of(name):
    """Its own options; for any other set the defaults of its dataclass in conf/groups.py."""
    if name in OWN_OPTIONS:
        return OWN_OPTIONS[name]
    defaults = asdict(GROUPS["dataset"][name]())
    return {option: value for option, value in defaults.items() if option not in ("name", "embed")}


SCHEDULER = LinearNoiseScheduler(1000)


@functools.cache
def mixture_of(name):
    return make_dataset(name, 10, 0, **options_of(name)).mixture


@pytest.mark.parametrize("name", POINT_SETS)
@pytest.mark.parametrize("t", [None, 0, 300, 999])
def test_score_is_the_gradient_of_the_log_density(name, t):
    mixture = mixture_of(name)
    mixture = mixture if t is None else mixture.noised(*SCHEDULER.alpha_sigma_at(t))
    x = mixture.sample(50, generator(0, "test")).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x).sum(), x)
    torch.testing.assert_close(mixture.score(x.detach()), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name", [n for n in POINT_SETS if n not in ("helix", "swiss_roll_3d", "s_curve", "text", "picture")]
)
@pytest.mark.parametrize("t", [None, 300])
def test_density_integrates_to_one(name, t):
    mixture = mixture_of(name)
    mixture = mixture if t is None else mixture.noised(*SCHEDULER.alpha_sigma_at(t))
    std = mixture.variance.sqrt()
    low, high = mixture.centres.min(0).values - 8 * std, mixture.centres.max(0).values + 8 * std
    # A grid with a step of 0.8 standard deviations integrates a Gaussian up to 2 exp(-2 pi^2 / 0.8^2) = 1e-13.
    step = float(0.8 * std.max())
    axes = [torch.arange(float(low[i]), float(high[i]) + step, step, dtype=torch.float64) for i in range(2)]
    grid = torch.cartesian_prod(*axes)
    assert float(mixture.log_density(grid).exp().sum()) * step**2 == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("point", [[0.0, 1.02], [1.0, 0.02], [0.5, 0.25], [2.1, 0.6]])
def test_the_density_of_moons_is_that_of_brute_force_integration(point):
    # A million equally spaced centres on each half circle.
    a = (np.arange(1_000_000) + 0.5) / 1_000_000 * math.pi
    squares = [
        (np.cos(a) - point[0]) ** 2 + (np.sin(a) - point[1]) ** 2,
        (1 - np.cos(a) - point[0]) ** 2 + (0.5 - np.sin(a) - point[1]) ** 2,
    ]
    density = np.mean([np.exp(-0.5 * s / 0.05**2).mean() for s in squares]) / (2 * math.pi * 0.05**2)
    ours = mixture_of("moons").log_density(torch.tensor([point]))
    assert float(ours) == pytest.approx(math.log(density), abs=1e-5)


def arc(a):
    return np.stack([np.cos(a), np.sin(a)], 1)


def roll(a):
    return a[:, None] / (4.5 * math.pi) * np.stack([np.cos(a), np.sin(a)], 1)


def screw(a):
    return np.stack([np.cos(a), np.sin(a), a / (2 * math.pi) - 1], 1)


# Path, first and last value of its parameter, and length.
CURVES = {
    "arc": (arc, 0, math.pi, math.pi),
    "roll": (roll, 1.5 * math.pi, 4.5 * math.pi, 9.5),
    "screw": (screw, 0, 4 * math.pi, 4 * math.pi + 2),
}
every_curve = pytest.mark.parametrize("name", CURVES)
every_noise = pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])


@functools.cache
def coarse_and_fine(name, noise):
    """`curve`, and the same curve with 12 nodes for every third of a standard deviation, which are 17 times as many."""
    path, start, end, length = CURVES[name]
    panels = math.ceil(3 * length / noise)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    parameter = start + (end - start) * (np.arange(panels)[:, None] + (nodes + 1) / 2).reshape(-1) / panels
    weights = torch.from_numpy(np.tile(weights / 2, panels) / panels)
    fine = GaussianMixture(torch.from_numpy(path(parameter)), noise**2, weights)
    return curve(path, start, end, noise, length), fine


@every_noise
@every_curve
@pytest.mark.parametrize(("deviations", "tolerance"), [(0, 1e-9), (4, 1e-9), (8, 1e-9), (16, 1e-7), (32, 1e-5)])
def test_the_density_of_a_curve_is_right_far_into_the_tails(name, noise, deviations, tolerance):
    path, start, end, _ = CURVES[name]
    ours, fine = coarse_and_fine(name, noise)
    rng = np.random.default_rng(0)
    near = path(rng.uniform(start, end, 200))
    direction = rng.normal(size=near.shape)
    x = torch.from_numpy(near + deviations * noise * direction / np.linalg.norm(direction, axis=1, keepdims=True))
    assert float((ours.log_density(x) - fine.log_density(x)).abs().max()) < tolerance


@every_noise
@every_curve
def test_the_density_of_a_curve_is_nearly_right_up_to_200_standard_deviations_away(name, noise):
    ours, fine = coarse_and_fine(name, noise)
    x = torch.from_numpy(np.random.default_rng(0).uniform(-1.5, 1.5, size=(200, ours.dim)))
    assert float((ours.log_density(x) - fine.log_density(x)).abs().max()) < 0.2


def test_a_single_gaussian_is_the_textbook_one():
    mixture = gaussian([1.0, -2.0], torch.tensor([0.25, 4.0]))
    x = torch.randn(20, 2, dtype=torch.float64)
    expected = stats.multivariate_normal([1, -2], np.diag([0.25, 4])).logpdf(x.numpy())
    np.testing.assert_allclose(mixture.log_density(x), expected, rtol=1e-12)


TWO_POINTS = GaussianMixture(torch.tensor([[-1.0], [0.5]]), 0.04, torch.tensor([0.3, 0.7]))  # in one dimension


@pytest.mark.parametrize("t", [0, 200, 900])
def test_the_posterior_mean_of_eps_is_that_of_integration_over_clean_data(t):
    # E[eps | x_t] for two noisy points in one dimension, summed over a fine grid of x_0.
    x_0 = torch.linspace(-4, 4, 400_001, dtype=torch.float64)[:, None]
    prior = TWO_POINTS.log_density(x_0).exp()
    alpha, sigma = SCHEDULER.alpha_sigma_at(t)
    for x_t in (-1.0, 0.1, 0.7):
        eps = (x_t - alpha * x_0[:, 0]) / sigma
        weight = prior * (-0.5 * eps**2).exp()
        expected = float((weight * eps).sum() / weight.sum())
        found = float(TWO_POINTS.eps(torch.tensor([[x_t]]).double(), alpha, sigma))
        assert found == pytest.approx(expected, abs=1e-5)


def test_the_posterior_is_bayes_rule():
    mixture, (alpha, sigma) = mixture_of("moons"), SCHEDULER.alpha_sigma_at(250)
    x_t = torch.tensor([0.3, 0.1], dtype=torch.float64)
    posterior = mixture.posterior(x_t, alpha, sigma)
    x_0 = mixture.sample(5, generator(0, "test"))
    likelihood = -0.5 * ((x_t - alpha * x_0) / sigma).square().sum(1) - 2 * math.log(sigma) - math.log(2 * math.pi)
    evidence = mixture.noised(alpha, sigma).log_density(x_t[None])
    torch.testing.assert_close(posterior.log_density(x_0), mixture.log_density(x_0) + likelihood - evidence)


def test_the_posterior_mean_of_x_0_follows_from_that_of_eps():
    mixture, (alpha, sigma) = mixture_of("moons"), SCHEDULER.alpha_sigma_at(250)
    x_t = torch.tensor([0.3, 0.1], dtype=torch.float64)
    posterior = mixture.posterior(x_t, alpha, sigma)
    mean = (posterior.weights[:, None] * posterior.centres).sum(0)
    implied = (x_t - sigma * mixture.eps(x_t[None], alpha, sigma)[0]) / alpha
    torch.testing.assert_close(mean, implied)


def test_the_variance_of_eps_is_that_of_the_posterior():
    mixture, (alpha, sigma) = mixture_of("spirals"), SCHEDULER.alpha_sigma_at(150)
    x_t = mixture.noised(alpha, sigma).sample(4, generator(0, "test"))
    for x in x_t:
        # x_0 given x_t is a mixture. Its variance is the variance of its components plus that of their means.
        p = mixture.posterior(x, alpha, sigma)
        mean = p.weights @ p.centres
        variance = p.variance + p.weights @ (p.centres - mean).square()
        expected = float((alpha / sigma) ** 2 * variance.mean())
        assert float(mixture.eps_variance(x[None], alpha, sigma)) == pytest.approx(expected, rel=1e-9)


LATTICE = torch.cartesian_prod(*[torch.arange(5, dtype=torch.float64)] * 2)


def test_the_denoiser_of_points_without_noise_returns_the_nearest_point():
    # The points are far apart compared with the noise at step 30.
    t = torch.tensor(30)
    eps = torch.randn(LATTICE.shape, generator=generator(0, "test"), dtype=torch.float64)
    x_0 = exact_denoiser(GaussianMixture(LATTICE), SCHEDULER)(SCHEDULER.add_noise(LATTICE, t, eps), t).x_0
    torch.testing.assert_close(x_0, LATTICE, atol=1e-6, rtol=0)


def test_points_without_noise_have_no_density():
    with pytest.raises(ValueError, match="no density"):
        GaussianMixture(LATTICE).log_density(LATTICE)


def test_a_scaled_mixture_is_the_distribution_of_scaled_points():
    mixture, shift, scale = mixture_of("moons"), torch.tensor([0.5, 0.2]), torch.tensor([0.9, 0.4])
    x = mixture.sample(10, generator(0, "test"))
    jacobian = float(scale.double().log().sum())
    ours = mixture.scaled(shift, scale).log_density((x - shift) / scale)
    torch.testing.assert_close(ours, mixture.log_density(x) + jacobian)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "picture" else ()) for name in POINT_SETS]
)
def test_points_of_a_data_set_have_the_mean_log_density_of_its_distribution(name):
    # 20,000 points of the data set against as many draws of the mixture. A difference of 5 standard errors has
    # p = 6e-7.
    data, mixture = make_dataset(name, 20_000, 3, **options_of(name)), mixture_of(name)
    own = mixture.log_density(mixture.sample(20_000, generator(9, "test")))
    given = mixture.log_density(torch.from_numpy(data.points))
    error = float((own.var() / len(own) + given.var() / len(given)).sqrt())
    assert abs(float(own.mean() - given.mean())) < 5 * error


@pytest.mark.parametrize("name", POINT_SETS)
def test_points_of_a_data_set_have_the_dimension_of_its_distribution(name):
    assert make_dataset(name, 10, 3, **options_of(name)).points.shape[1] == mixture_of(name).dim


@pytest.mark.parametrize("name", POINT_SETS)
def test_labels_of_a_data_set_begin_at_0(name):
    data = make_dataset(name, 1000, 3, **options_of(name))
    assert data.labels is None or data.labels.min() == 0


def test_labels_name_the_parts_of_a_data_set():
    data = make_dataset("circles", 1000, 0, noise=0.01, factor=0.5)
    radius = np.linalg.norm(data.points, axis=1)
    assert (radius[data.labels == 0] > 0.9).all()
    assert (radius[data.labels == 1] < 0.6).all()


@pytest.mark.slow  # a new interpreter
def test_the_score_of_many_points_takes_little_memory(tmp_path):
    """100,000 points times 2,000 centres at once would take 1.6 GB.

    A process shows only the peak of its memory, so the score is computed in a process of its own.
    """
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


def straight_line():
    """The line from (0, 0) to (1, 0) with noise 0.1."""
    return curve(lambda a: np.stack([a, 0 * a], 1), 0, 1, 0.1, 1)


def test_the_weights_of_a_curve_sum_to_one():
    assert float(straight_line().weights.sum()) == pytest.approx(1, abs=1e-12)


def test_the_weights_of_two_mixed_curves_sum_to_one():
    line = straight_line()
    assert float(equal_mixture([line, line]).weights.sum()) == pytest.approx(1, abs=1e-12)


def test_the_density_of_a_straight_line_is_the_closed_form():
    expected = math.log((stats.norm.cdf(5) - stats.norm.cdf(-5)) * stats.norm.pdf(0) / 0.1)
    found = float(straight_line().log_density(torch.tensor([[0.5, 0.0]])))
    assert found == pytest.approx(expected, abs=1e-9)


# ---------------------------------------------------------------- too little noise for an exact density

SHARP = {"moons": {"noise": 1e-3}, "circles": {"noise": 1e-3, "factor": 0.5}}
every_sharp_set = pytest.mark.parametrize("name", SHARP)


def sharp_points(name):
    """4,000 points of a set with noise 1e-3, the centres (4000, 2) of their circles, and the radii (4000,)."""
    data = make_dataset(name, 4000, 0, **SHARP[name])
    if name == "circles":
        return data.points, np.zeros((4000, 2)), np.where(data.labels == 0, 1, 0.5)
    return data.points, np.stack([data.labels, 0.5 * data.labels], 1), np.ones(4000)


@every_sharp_set
def test_with_too_little_noise_a_set_has_no_exact_distribution(name):
    data = make_dataset(name, 4000, 0, **SHARP[name])
    assert (data.mixture, data.parts) == (None, ())


@every_sharp_set
def test_points_with_little_noise_scatter_by_that_noise(name):
    x, centre, radius = sharp_points(name)
    distance = np.linalg.norm(x - centre, axis=1) - radius
    # The sample's standard deviation is off by 5 standard errors once in 1,000,000 runs.
    assert distance.std() == pytest.approx(1e-3, abs=5 * 1e-3 / math.sqrt(2 * 4000))


@every_sharp_set
def test_points_with_little_noise_lie_all_along_the_curve(name):
    # They do not lie at the nodes of a quadrature rule only.
    x, centre, _ = sharp_points(name)
    assert len(np.unique(np.arctan2(*(x - centre).T).round(4))) > 3000


def test_moons_without_noise_have_no_density():
    assert not make_dataset("moons", 10, 0, noise=0.0).mixture.has_density


# ---------------------------------------------------------------- draws and posterior means


def test_evenly_spread_draws_have_a_better_mean_than_random_draws():
    mixture = mixture_of("moons")
    exact = mixture.weights @ mixture.centres
    errors = []
    for seed in range(10):
        draws = mixture.sample_evenly(256, seed), mixture.sample(256, generator(seed, "test"))
        errors.append([float((points.mean(0) - exact).abs().max()) for points in draws])
    even, chance = np.mean(errors, axis=0)
    assert even < 0.2 * chance


def every_state(test):
    """Parametrise a test by data set and step."""
    test = pytest.mark.parametrize("t", [0, 30, 500, 999])(test)
    return pytest.mark.parametrize("name", ["moons", "helix"])(test)


COSINE = CosineNoiseScheduler(1000)


def exact_prediction(name, t):
    """Five draws of x_t (5, d), and the prediction of the exact denoiser for them."""
    mixture = mixture_of(name)
    x_t = mixture.noised(*COSINE.alpha_sigma_at(t)).sample(5, generator(0, "test"))
    return x_t, exact_denoiser(mixture, COSINE)(x_t, torch.tensor(t))


@every_state
def test_the_exact_prediction_of_x_0_is_the_posterior_mean(name, t):
    # It is computed from the centres. At the last step, where alpha is 5e-5, x_t / alpha would lose 4 of 16 digits.
    x_t, prediction = exact_prediction(name, t)
    posteriors = [mixture_of(name).posterior(x, *COSINE.alpha_sigma_at(t)) for x in x_t]
    expected = torch.stack([p.weights @ p.centres for p in posteriors])
    tolerance = 1e-13 if t == 999 else 1e-9
    torch.testing.assert_close(prediction.x_0, expected, rtol=tolerance, atol=tolerance)


@every_state
def test_noise_and_data_of_the_exact_prediction_make_x_t(name, t):
    alpha, sigma = COSINE.alpha_sigma_at(t)
    x_t, (eps, x_0) = exact_prediction(name, t)
    torch.testing.assert_close(alpha * x_0 + sigma * eps, x_t, rtol=1e-9, atol=1e-9)


@every_state
def test_the_exact_prediction_of_eps_is_that_of_the_mixture(name, t):
    x_t, prediction = exact_prediction(name, t)
    torch.testing.assert_close(prediction.eps, mixture_of(name).eps(x_t, *COSINE.alpha_sigma_at(t)))


# ---------------------------------------------------------------- sheets, which need fewer centres under noise


def every_sheet(test):
    """Parametrise a test by data set and dimension of the embedding."""
    test = pytest.mark.parametrize("name", ["checkerboard", "swiss_roll_3d", "s_curve"])(test)
    return pytest.mark.parametrize("embed", [None, 6])(test)


every_noise_level = pytest.mark.parametrize(("alpha", "sigma"), [(0.9, 0.05), (0.8, 0.6), (0.1, 1.0), (0.0, 1.0)])


@functools.cache
def sheet(name, embed):
    """A sheet at half its size, which chooses its centres by the noise; and the same mixture with all its centres."""
    mixture = make_dataset(name, 10, 0, embed=embed, **options_of(name)).mixture.scaled(
        torch.zeros(1), torch.tensor(0.5)
    )
    return mixture, GaussianMixture(mixture.centres, mixture.variance, mixture.weights)


@every_sheet
@every_noise_level
def test_a_noisy_sheet_has_the_density_of_all_its_centres(name, embed, alpha, sigma):
    mixture, whole = sheet(name, embed)
    noised = whole.noised(alpha, sigma)
    x = noised.sample(100, generator(0, "test"))
    assert float((mixture.noised(alpha, sigma).log_density(x) - noised.log_density(x)).abs().max()) < 1e-6


@every_sheet
@every_noise_level
def test_a_noisy_sheet_has_the_posterior_means_of_all_its_centres(name, embed, alpha, sigma):
    mixture, whole = sheet(name, embed)
    x = whole.noised(alpha, sigma).sample(100, generator(0, "test"))
    for ours, theirs in zip(mixture.denoise(x, alpha, sigma), whole.denoise(x, alpha, sigma)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6)


@every_sheet
def test_a_sheet_without_noise_keeps_all_centres(name, embed):
    mixture, _ = sheet(name, embed)
    assert len(mixture.noised(1.0, 0.0).centres) == len(mixture.centres)


@every_sheet
def test_a_noisy_sheet_needs_fewer_centres(name, embed):
    mixture, _ = sheet(name, embed)
    assert len(mixture.noised(0.1, 1.0).centres) < 0.7 * len(mixture.centres)


def test_a_board_of_sharp_squares_needs_few_centres_under_noise():
    mixture = make_dataset("checkerboard", 10, 0, noise=0.016).mixture
    assert len(mixture.centres) == 20_000
    assert len(mixture.noised(0.9, 0.4).centres) < 1_000


# ---------------------------------------------------------------- sets in a plane of many dimensions


def embedded_moons():
    """Moons in twelve dimensions with other units for each coordinate, as after normalisation."""
    parts = exact_parts("moons", embed=12, noise=0.05)
    return equal_mixture(parts).scaled(torch.zeros(12), torch.linspace(0.5, 2, 12))


@pytest.mark.parametrize(("alpha", "sigma"), [(0.999, 0.04), (0.8, 0.6), (0.1, 0.995)])
def test_the_floor_of_an_embedded_set_is_that_of_the_full_computation_at_the_same_points(alpha, sigma):
    mixture = embedded_moons()
    noised = mixture.noised(alpha, sigma)
    scale = noised.variance.sqrt()
    basis = _basis_of_plane(noised.centres / scale)
    assert basis.shape == (2, 12)
    plane = GaussianMixture(noised.centres / scale @ basis.T, 1.0, noised.weights)
    across = noised.centres[0] / scale
    across = across - across @ basis.T @ basis + (torch.eye(12).double() - basis.T @ basis)[3]  # any point across
    x_t = (plane.sample_evenly(512, seed=0) @ basis + across) * scale

    full = float(mixture.eps_variance(x_t, alpha, sigma).mean())
    assert mixture.mean_eps_variance(alpha, sigma, 512, seed=0) == pytest.approx(full, rel=1e-8)


def test_the_floor_of_an_embedded_set_is_that_of_points_in_all_dimensions():
    mixture = embedded_moons()
    x_t = mixture.noised(0.8, 0.6).sample_evenly(2**13, seed=0)
    full = float(mixture.eps_variance(x_t, 0.8, 0.6).mean())
    assert mixture.mean_eps_variance(0.8, 0.6, 2**13, seed=0) == pytest.approx(full, rel=1e-3)
