"""Conditioning on an observation, for distributions whose posterior is known in closed form."""

import functools
from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import gaussian, untrained

from conf import choices
from conf.config import Train
from conf.groups import MLP, File, Moons
from dataset import Normaliser, make_dataset
from diffusion import Prediction, exact_denoiser
from metrics.conditioning import file_posterior_table, file_posteriors, inpaint, posteriors
from pipeline import Pipeline, build
from points.tables import Columns, coordinate_names
from runtime.randomness import generator
from samplers import last
from samplers.observation import (
    MASKS,
    _log_weights,
    check_possible,
    draw_posterior,
    read_line,
    read_mask,
    read_terms,
    whitened_posterior,
)
from samplers.posterior import EPS_SHIFT_MAX, METHODS, conditioned, dps, mmps, pigdm, r_squared, repaint, sample_given
from samplers.spacing import spaced_timesteps
from schedule import CosineNoiseScheduler, FlowNoiseScheduler, LinearNoiseScheduler
from viz.conditioning_pictures import file_posterior_figure

SCHEDULER = LinearNoiseScheduler(1000)
MOONS = make_dataset("moons", 100, 0, noise=0.05)


# ---------------------------------------------------------------- observations


@pytest.mark.parametrize(("text", "dim", "matrix"), [("2x-y=0.3", 2, [[2, -1]]), ("-x + .5*z = -1", 3, [[-1, 0, 0.5]])])
def test_an_observation_in_words_becomes_a_row_of_coefficients(text, dim, matrix):
    assert read_line(text, coordinate_names(None, dim), 0.1).matrix.tolist() == matrix


@pytest.mark.parametrize(
    "wrong",
    [
        "q=1",
        "z=1",
        "y",
        "y=",
        "y=b",
        "=1",
        "x-x=1",
        "mask:left",
        "y=nan",
        "x*y=1",
        "x3=1",
        "z+x=1",
        "1e-9x=1",
    ],
)
def test_words_that_are_no_observation_are_refused(wrong):
    with pytest.raises(ValueError, match="is no observation of a point"):
        read_line(wrong, coordinate_names(None, 2), 0.1)


COLUMNS = ["carat", "price", "sepal length (cm)", "a-b", "1990", "2", "x"]


@pytest.mark.parametrize(
    ("text", "factors", "value"),
    [
        ("carat=1.0", {0: 1}, 1.0),
        ("2*carat-price=0.3", {0: 2, 1: -1}, 0.3),
        ("Price = 1e3", {1: 1}, 1e3),
        ("sepal length (cm)=5", {2: 1}, 5),
        ("'sepal length (cm)' - .5 \"a-b\"=-2", {2: 1, 3: -0.5}, -2),
        ("a-b=1", {3: 1}, 1),
        ("1990=3", {4: 1}, 3),
        ("3*1990=3", {4: 3}, 3),
        ("2=3", {5: 1}, 3),
        ("2x=3", {6: 2}, 3),
        ("x1+x3=3", {0: 1, 2: 1}, 3),
    ],
)
def test_columns_of_a_file_are_observed_by_name_or_position(text, factors, value):
    row, observed = read_terms(text, COLUMNS)
    assert {i: factor for i, factor in enumerate(row.tolist()) if factor} == factors
    assert observed == value


@pytest.mark.parametrize("wrong", ["karat=1", "carat price=1", "carat*price=1", '"carat=1', "x8=1", "carat", "=2"])
def test_an_observation_of_no_column_is_answered_with_all_columns(wrong):
    with pytest.raises(ValueError, match=r'coordinates carat, price, "sepal length \(cm\)", "a-b", "1990", "2", x: '):
        read_terms(wrong, COLUMNS)


def table_model(scale):
    """An untrained model of a file of three columns, which are `scale` times as wide as 1, 10 and 100."""
    torch.manual_seed(0)
    config = asdict(Train(dataset=File(path="gone.csv"), model=MLP(hidden=8, layers=1), num_timesteps=20))
    net, scheduler = build(config, (3,))
    std = scale * torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    columns = Columns(("a", "b", "c"), (False,) * 3)
    return Pipeline(net, scheduler, Normaliser(3 * std, std), config, columns=columns).ready(torch.device("cpu"))


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e12])
def test_the_noise_follows_the_units_of_the_columns_and_no_file_is_read(scale):
    found = file_posteriors(table_model(scale), f"b={30 * scale}", None, None, 50, 0)
    assert found.noise == pytest.approx(0.5 * scale)
    assert "0.05 standard deviations" in found.noise_text
    assert all(np.isfinite(points).all() for points in found.points.values())
    assert found.misfit["repaint"] < 2
    assert "no truth is known" in file_posterior_table(found)


def test_samples_of_a_file_do_not_depend_on_units():
    one, other = (file_posteriors(table_model(s), f"2*a-b={-20 * s}", None, None, 20, 0) for s in (1.0, 2.0**20))
    assert np.allclose(one.samples * 2.0**20, other.samples)


def test_an_observation_far_from_all_rows_of_a_file_is_refused():
    with pytest.raises(ValueError, match=r"b=1e9 contradicts the data, in which b lies around 30"):
        file_posteriors(table_model(1.0), "b=1e9", None, None, 20, 0)


@pytest.mark.parametrize(("text", "panels"), [("b=30", 3), ("2*a-b=-20", 4)])
def test_the_picture_of_a_file_shows_what_is_observed_and_the_other_columns(text, panels):
    figure = file_posterior_figure(file_posteriors(table_model(1.0), text, None, None, 20, 0))
    assert len(figure.axes) == panels * len(METHODS)
    assert figure.axes[0].lines[0].get_xdata()[0] == float(text.rpartition("=")[2])


@pytest.mark.parametrize("noise", [1e-4, 1e4])
def test_noise_that_does_not_fit_points_of_width_one_is_refused(noise):
    model = untrained(Moons(), MLP(hidden=8, layers=1))
    with pytest.raises(ValueError, match=r"observe_noise must be at least 0.001 and at most 1000"):
        posteriors(model, "y=0.2", noise, None, 10, 0)


@pytest.mark.parametrize("wrong", ["1000000x=0.2", f"{'9' * 40}x=0.2"])
def test_an_observation_that_is_too_precise_is_refused(wrong):
    with pytest.raises(ValueError, match=r"all but infinitely precise.* raise observe_noise"):
        read_line(wrong, coordinate_names(None, 2), 0.05)


def test_an_observation_far_from_all_data_is_refused():
    with pytest.raises(ValueError, match="contradicts"):
        check_possible(MOONS.mixture, read_line("y=50", coordinate_names(None, 2), 0.05), "y=50")


def test_an_observation_near_some_data_is_accepted():
    check_possible(MOONS.mixture, read_line("y=0.2", coordinate_names(None, 2), 0.05), "y=0.2")


def test_the_masks_are_those_of_the_options():
    assert MASKS.keys() == set(choices.MASKS)


@pytest.mark.parametrize(
    ("mask", "pixels"),
    [("left", [0, 1, 4, 5, 8, 9, 12, 13]), ("bottom", [*range(8, 16)]), ("centre", [5, 6, 9, 10])],
)
def test_a_mask_observes_its_pixels(mask, pixels):
    image = torch.arange(16.0).reshape(1, 4, 4)
    assert read_mask(f"mask:{mask}", image, 0.1).value.tolist() == pixels


def test_an_observation_of_points_is_refused_for_images():
    with pytest.raises(ValueError, match="choose one of mask:left"):
        read_mask("y=1", torch.arange(16.0).reshape(1, 4, 4), 0.1)


every_observation = pytest.mark.parametrize("text", ["y=0.2", "2x-y=0.3"])


@every_observation
def test_exact_posterior_draws_have_the_means_of_weighted_draws_of_the_prior(text):
    seen = read_line(text, coordinate_names(None, 2), 0.1)
    x = draw_posterior(MOONS.mixture, seen, 20_000, generator(0, "test"))
    prior = MOONS.mixture.sample(400_000, generator(1, "test"))
    w = seen.log_likelihood(prior).softmax(0)
    # Four standard errors of a mean, in standard deviations: exceeded by chance once in 16,000 runs.
    error = 4 * (1 / 20_000 + float(w.square().sum())) ** 0.5
    for f in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x.prod(1), lambda x: x[:, 0].square()):
        mean = float((w * f(prior)).sum())
        spread = float((w * (f(prior) - mean).square()).sum().sqrt())
        assert abs(float(f(x).mean()) - mean) < error * spread


@every_observation
def test_the_weights_of_the_posterior_sum_to_the_integral_of_prior_times_likelihood(text):
    seen = read_line(text, coordinate_names(None, 2), 0.1)
    side = torch.linspace(-2, 3.2, 521, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    evidence = (MOONS.mixture.log_density(grid) + seen.log_likelihood(grid)).exp().sum() * 0.01**2  # p(y)
    assert float(evidence) == pytest.approx(float(_log_weights(MOONS.mixture, seen).exp().sum()), rel=1e-3)


# ---------------------------------------------------------------- posterior samplers

MEAN, VARIANCE = torch.tensor([0.3, -0.2]), torch.tensor([1.0, 0.25])


@pytest.mark.parametrize("variance", [torch.ones(2), VARIANCE], ids=["standard", "other"])
@pytest.mark.parametrize("t", [50, 500, 900])
@pytest.mark.parametrize("method", ["dps", "pigdm", "mmps"])
def test_the_score_of_a_conditioned_gaussian_is_that_of_the_covariance_which_a_method_assumes(variance, t, method):
    """The Jacobian is alpha variance / p with p = alpha^2 variance + sigma^2.

    The true covariance of x_0 given x_t is sigma^2 variance / p.
    """
    seen = read_line("x-2y=0.5", coordinate_names(None, 2), 0.1)
    alpha, sigma = SCHEDULER.alpha_sigma_at(t)
    exact, x_t = exact_denoiser(gaussian(MEAN, variance), SCHEDULER), torch.randn(20, 2, dtype=torch.float64)
    A, noised = seen.matrix, alpha**2 * variance.double() + sigma**2
    eps, x_0 = exact(x_t, torch.tensor(t))
    covariance, V = {
        "dps": (dps, 0 * noised),
        "pigdm": (pigdm, r_squared(alpha, sigma) + 0 * noised),
        "mmps": (mmps, sigma**2 * variance / noised),
    }[method]
    weight = (seen.value - x_0 @ A.T) / (seen.noise**2 + (A * V) @ A.T)
    score = alpha * variance / noised * (weight @ A)
    score = score * (EPS_SHIFT_MAX * 2**0.5 / sigma / score.norm(dim=1, keepdim=True)).clamp(max=1)
    ours = conditioned(exact, SCHEDULER, seen, covariance)(x_t, torch.tensor(t))
    torch.testing.assert_close(ours.eps, eps - sigma * score)
    torch.testing.assert_close(ours.x_0, x_0 + sigma**2 / alpha * score)


@pytest.mark.parametrize(
    ("variance", "covariance"),
    [(torch.ones(2), mmps), (torch.ones(2), pigdm), (VARIANCE, mmps)],
    ids=["standard-mmps", "standard-pigdm", "other-mmps"],
)
def test_an_observed_coordinate_of_a_gaussian_gives_the_denoiser_of_the_exact_posterior(variance, covariance):
    """MMPS is exact for every Gaussian with independent coordinates, and PiGDM for those of variance 1."""
    x_t, t = torch.randn(20, 2, dtype=torch.float64), torch.tensor(400)
    variance, noise = variance.double(), 0.1
    gain = variance[1] / (variance[1] + noise**2)
    centre = MEAN.double() + torch.tensor([0, gain * (0.7 - MEAN[1])])
    posterior = gaussian(centre, torch.stack([variance[0], variance[1] * (1 - gain)]))
    expected = exact_denoiser(posterior, SCHEDULER)(x_t, t)
    exact = exact_denoiser(gaussian(MEAN, variance), SCHEDULER)
    ours = conditioned(exact, SCHEDULER, read_line("y=0.7", coordinate_names(None, 2), noise), covariance)(x_t, t)
    torch.testing.assert_close(ours.x_0, expected.x_0)
    torch.testing.assert_close(ours.eps, expected.eps)


def along_and_across(x):
    """Coordinates of points (n, 2): along (1, 1), which x + y observes, and across it."""
    return (x[:, 0] + x[:, 1]) / 2**0.5, (x[:, 0] - x[:, 1]) / 2**0.5


@pytest.fixture(scope="module")
def conditioned_samples(standard_normal):
    """A function of the method: 2,000 samples of a standard normal distribution, given x + y = 1 up to noise 0.2."""

    @functools.cache
    def samples(method):
        seen, g = read_line("x+y=1", coordinate_names(None, 2), 0.2), generator(0, "test")
        x_T = torch.randn(2000, 2, generator=g)
        exact = exact_denoiser(standard_normal, SCHEDULER)
        if method == "repaint":
            timesteps = spaced_timesteps(SCHEDULER, 30, "even")
            return last(repaint(exact, SCHEDULER, x_T, seen, timesteps=timesteps, generator=g))
        return last(sample_given(exact, SCHEDULER, x_T, seen, method=method, generator=g))

    return samples


# RePaint takes the observation for the truth, as if the data were uniform, so its samples have another distribution.
every_method_but_repaint = pytest.mark.parametrize("method", ["mmps", "tds", "sir"])
every_method = pytest.mark.parametrize("method", ["mmps", "repaint", "tds", "sir"])
GAIN = 2 / (2 + 0.2**2)


@every_method_but_repaint
def test_samples_of_a_gaussian_have_the_mean_of_the_posterior(method, conditioned_samples):
    along, _ = along_and_across(conditioned_samples(method))
    assert float(along.mean()) == pytest.approx(GAIN / 2**0.5, abs=0.02)


@every_method_but_repaint
def test_samples_of_a_gaussian_have_the_spread_of_the_posterior(method, conditioned_samples):
    along, _ = along_and_across(conditioned_samples(method))
    # A hundred ancestral steps make the spread a little too small.
    assert float(along.std()) == pytest.approx((1 - GAIN) ** 0.5, rel=0.2)


@every_method
def test_samples_of_a_gaussian_have_nearly_the_observed_value(method, conditioned_samples):
    along, _ = along_and_across(conditioned_samples(method))
    assert float(along.mean()) == pytest.approx(0.7, abs=0.03)


@every_method
def test_samples_of_a_gaussian_keep_its_mean_and_spread_in_the_unobserved_direction(method, conditioned_samples):
    _, across = along_and_across(conditioned_samples(method))
    assert float(across.mean()) == pytest.approx(0, abs=0.1)
    assert float(across.std()) == pytest.approx(1, rel=0.25)


@pytest.fixture(scope="module")
def states_of_an_imperfect_network(standard_normal):
    """A function of the method: all x_t of 100 samples on the flow, given x + y = 1 up to noise 0.1.

    The denoiser depends on x_t where it should not, as networks do. At the first steps 1 / alpha, which is about a
    thousand, multiplies this error.
    """
    flow = FlowNoiseScheduler(1000)
    exact = exact_denoiser(standard_normal, flow)

    def network(x_t, t, label=None):
        alpha, sigma = flow.alpha_sigma_at(int(t))
        x_0 = exact(x_t, t).x_0 + 0.03 * sigma * (3 * x_t).sin()
        return Prediction((x_t - alpha * x_0) / sigma, x_0)

    @functools.cache
    def states(method):
        seen, g = read_line("x+y=1", coordinate_names(None, 2), 0.1), generator(0, "test")
        x_T = torch.randn(100, 2, generator=g)
        return [state.x_t for state in sample_given(network, flow, x_T, seen, method=method, generator=g)]

    return states


@pytest.mark.parametrize("method", METHODS)
def test_on_a_flow_no_sample_is_driven_far_away_by_the_error_of_a_network(method, states_of_an_imperfect_network):
    assert all(float(x.abs().max()) < 10 for x in states_of_an_imperfect_network(method))


@pytest.mark.parametrize("method", METHODS)
def test_on_a_flow_samples_of_an_imperfect_network_have_the_observed_value(method, states_of_an_imperfect_network):
    along, _ = along_and_across(states_of_an_imperfect_network(method)[-1])
    assert float(along.mean()) == pytest.approx(0.7, abs=0.1)
    assert float(along.std()) < 0.25


@pytest.mark.parametrize("method", METHODS)
def test_on_a_flow_samples_of_an_imperfect_network_vary_in_the_unobserved_direction(
    method, states_of_an_imperfect_network
):
    _, across = along_and_across(states_of_an_imperfect_network(method)[-1])
    assert 0.5 < float(across.std()) < 1.5


@pytest.mark.parametrize("covariance", [dps, pigdm, mmps])
def test_each_row_is_conditioned_on_its_own_observation(covariance):
    exact = exact_denoiser(MOONS.mixture, SCHEDULER)
    x_t, t = torch.randn(3, 2, dtype=torch.float64), torch.tensor(300)
    observations = [read_line(f"y={value}", coordinate_names(None, 2), 0.1) for value in (0.1, 0.4, -0.3)]
    find_checkpoints = observations[0]._replace(value=torch.stack([one.value for one in observations]))
    together = conditioned(exact, SCHEDULER, find_checkpoints, covariance)(x_t, t)
    for i, one in enumerate(observations):
        alone = conditioned(exact, SCHEDULER, one, covariance)(x_t, t)
        torch.testing.assert_close(together.x_0[i], alone.x_0[i])


# ---------------------------------------------------------------- images


def inpainted(method):
    """The left halves of digits, filled in by a network whose prediction is grey for every x_t."""
    config = {"num_samples": 100, "seed": 0, "dataset": {"name": "digits"}, "model": {"prediction": "x0"}}
    net = torch.nn.Linear(1, 1)
    net.forward = lambda x, t, label=None: 0 * x
    one = torch.ones(1, 8, 8)
    pipeline = Pipeline(net, CosineNoiseScheduler(20), Normaliser(0 * one, one), config)
    return inpaint(pipeline, "mask:left", 0.1, method, 0, 0)


@pytest.mark.parametrize("method", ["dps", "pigdm", "mmps", "repaint", "tds"])
def test_every_method_fills_in_images_with_finite_pixels(method):
    found = inpainted(method)
    assert found.samples.shape == (8, 10, 1, 8, 8)
    assert np.isfinite(found.samples).all()


def test_repaint_keeps_the_observed_pixels_of_each_image_whatever_the_network_predicts():
    found = inpainted("repaint")
    seen = found.observed[:, None] & np.ones_like(found.samples, bool)
    assert np.abs(found.samples - found.images[:, None])[seen].mean() < 0.15


def test_the_whitened_posterior_has_the_density_of_bayes_rule_and_the_draws_of_the_posterior():
    seen = read_line("x-2y=0.3", "xy", 0.2)
    posterior, W = whitened_posterior(MOONS.mixture, seen)
    x = draw_posterior(MOONS.mixture, seen, 20_000, generator(0, "whitened"))

    some = x[:100]
    by_bayes = MOONS.mixture.log_density(some) + seen.log_likelihood(some)
    constant = posterior.log_density(some @ W.T) - by_bayes
    assert torch.allclose(constant, constant[0].expand_as(constant), atol=1e-9)

    own = posterior.sample(20_000, generator(1, "whitened")) @ torch.linalg.inv(W).T
    assert torch.allclose(own.mean(0), x.mean(0), atol=0.03)
    assert torch.allclose(own.T.cov(), x.T.cov(), atol=0.03)
