"""The forward process: arrays in and out, and the distribution that equation 4 promises."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logit

from dataset import create_moon_dataset
from diffusion import (
    DiffusionModel,
    Prediction,
    clamped_denoiser,
    denoiser,
    forward_states,
    in_chunks,
    prediction_target,
)
from loss.objective import loss_weights, training_loss
from registry.process_rows import TARGETS
from runtime.randomness import generator
from schedule import CosineNoiseScheduler, LinearNoiseScheduler, NoiseScheduler

# ---------------------------------------------------------------- arrays in and out


class Call(NamedTuple):
    """What README's first lines on the forward process give."""

    model: DiffusionModel
    data: np.ndarray
    noisy: np.ndarray
    noise: np.ndarray
    trajectory: np.ndarray


@pytest.fixture(scope="module")
def call():
    data = create_moon_dataset(n_samples=500)
    model = DiffusionModel(num_timesteps=100)
    noisy, noise = model.forward_diffusion(data, t=50)
    return Call(model, data, noisy, noise, model.add_noise_trajectory(data))


def test_noisy_data_and_noise_have_the_shape_of_the_data(call):
    assert call.data.shape == call.noisy.shape == call.noise.shape == (500, 2)


def test_a_trajectory_has_one_state_a_step(call):
    assert call.trajectory.shape == (100, 500, 2)


def test_arrays_of_float32_stay_so(call):
    assert {x.dtype for x in (call.data, call.noisy, call.noise, call.trajectory)} == {np.dtype(np.float32)}


def test_noisy_data_are_those_of_equation_4(call):
    alpha_bar = float(call.model.scheduler.alphas_cumprod[50])
    expected = alpha_bar**0.5 * call.data + (1 - alpha_bar) ** 0.5 * call.noise
    np.testing.assert_allclose(call.noisy, expected, atol=1e-6)


def test_tensors_come_out_as_tensors_of_the_same_dtype():
    data = torch.randn(10, 1, 4, 4, dtype=torch.float64)
    noisy, noise = DiffusionModel(10).forward_diffusion(data, t=torch.arange(10))
    assert noisy.dtype == noise.dtype == torch.float64 and noisy.shape == data.shape


def test_a_trajectory_of_images_has_one_state_a_step():
    data = torch.randn(10, 1, 4, 4, dtype=torch.float64)
    assert DiffusionModel(10).add_noise_trajectory(data).shape == (10, 10, 1, 4, 4)


@pytest.mark.parametrize(
    ("data", "t", "words"),
    [
        (np.zeros((5, 2)), 10, "0..9"),
        (np.zeros((5, 2)), -1, "0..9"),
        (np.zeros(5), 0, "shape"),
        (np.full((5, 2), np.nan), 0, "NaN"),
        (np.zeros((5, 2)), np.arange(4), "rows"),
    ],
)
def test_bad_input_is_named(data, t, words):
    with pytest.raises(ValueError, match=words):
        DiffusionModel(10).forward_diffusion(data, t)


def test_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="noise has shape"):
        DiffusionModel(10).forward_diffusion(np.zeros((5, 2)), 0, np.zeros((4, 2)))


def test_two_models_of_one_seed_draw_the_same_noise():
    data = create_moon_dataset(50)
    noise = [DiffusionModel(10, seed=5).forward_diffusion(data, 5)[1] for _ in range(2)]
    assert np.array_equal(*noise)


def test_every_call_draws_its_own_noise():
    data, model = create_moon_dataset(50), DiffusionModel(10, seed=5)
    noise = [model.forward_diffusion(data, 5)[1] for _ in range(2)]
    assert not np.array_equal(*noise)


# ---------------------------------------------------------------- the distribution of the chain


def test_chain_has_the_marginals_of_eq_4():
    # 40 000 copies of one point: at every chosen t each coordinate is N(sqrt(a) x_0, 1 - a).
    # 8 Kolmogorov tests at level 1e-4: a right chain fails with probability 8e-4 (and the seed is fixed).
    point = np.array([1.5, -0.5])
    model = DiffusionModel(num_timesteps=20, seed=3)
    trajectory = model.add_noise_trajectory(np.tile(point, (40_000, 1)))
    for t in (0, 5, 12, 19):
        alpha_bar = float(model.scheduler.alphas_cumprod[t])
        for i in range(2):
            mixture = stats.norm(alpha_bar**0.5 * point[i], (1 - alpha_bar) ** 0.5)
            assert stats.kstest(trajectory[t, :, i], mixture.cdf).pvalue > 1e-4, (t, i)


def test_chain_is_markov_with_fresh_noise_at_each_step():
    # what a step adds does not depend on where the point stands, nor on the step before
    model = DiffusionModel(num_timesteps=10, seed=1)
    trajectory = model.add_noise_trajectory(np.zeros((50_000, 1)))[:, :, 0]
    alphas = model.scheduler.alphas.numpy()[:, None]
    added = trajectory[1:] - np.sqrt(alphas[1:]) * trajectory[:-1]
    for before, now in [(trajectory[:-1], added), (added[:-1], added[1:])]:
        for a, b in zip(before, now):  # |correlation| > 5 / sqrt(n) has probability 6e-7
            assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(50_000)


COPIES, CHOSEN = 40_000, [0, 1, 6, 20]
POINT = torch.tensor([[1.5, -0.5]], dtype=torch.float64)


@pytest.fixture(scope="module")
def chosen_states():
    """40,000 copies of one point after 0, 1, 6 and 20 forward steps."""
    scheduler = LinearNoiseScheduler(20)
    return list(forward_states(scheduler, POINT.repeat(COPIES, 1), CHOSEN, generator(3, "test")))


def test_the_chain_begins_with_the_data(chosen_states):
    assert torch.equal(chosen_states[0], POINT.repeat(COPIES, 1))


@pytest.mark.parametrize("i", [1, 2, 3])
def test_chosen_steps_of_the_chain_have_its_distribution(i, chosen_states):
    # 6 Kolmogorov tests at level 1e-4 in all: a right chain fails with probability 6e-4 (and the seed is fixed).
    alpha, sigma = LinearNoiseScheduler(20).alpha_sigma_at(CHOSEN[i] - 1)
    for axis in range(2):
        expected = stats.norm(alpha * POINT[0, axis], sigma)
        assert stats.kstest(chosen_states[i][:, axis], expected.cdf).pvalue > 1e-4


def test_chosen_steps_of_the_chain_are_correlated_as_in_closed_form(chosen_states):
    # A chain, not draws one by one: cov(x_s, x_t) = (alpha_t / alpha_s) sigma_s^2. Five standard errors: p = 6e-7.
    scheduler = LinearNoiseScheduler(20)
    x_s, x_t = chosen_states[2][:, 0], chosen_states[3][:, 0]
    sigma_s, sigma_t = scheduler.alpha_sigma_at(5)[1], scheduler.alpha_sigma_at(19)[1]
    expected = scheduler.transition(5, 19)[0] * sigma_s / sigma_t
    assert abs(np.corrcoef(x_s, x_t)[0, 1] - expected) < 5 * (1 - expected**2) / COPIES**0.5


# ---------------------------------------------------------------- the loss


EPS = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))


def losses_of(network):
    """The losses (4000,) of a network on random rows, whose noise is EPS."""
    x_0, t = torch.randn(4000, 2), torch.randint(100, (4000,))
    return training_loss(network, DiffusionModel(100).scheduler, x_0, t, EPS).ordinary


def test_the_loss_of_the_noise_itself_is_0():
    losses = losses_of(lambda x_t, t, label: EPS)
    assert losses.shape == (4000,) and float(losses.abs().max()) == 0


def test_the_loss_of_silence_is_1():
    losses = losses_of(lambda x_t, t, label: torch.zeros_like(x_t))
    assert float(losses.mean()) == pytest.approx(1, abs=5 * (2 / 8000) ** 0.5)


# ---------------------------------------------------------------- what a network may predict


@pytest.fixture
def noised():
    """A schedule, x_0 within [-1, 1], every step t, eps, and x_t; in float64 and of images."""
    g, scheduler = torch.Generator().manual_seed(0), CosineNoiseScheduler(60)
    x_0 = torch.rand(60, 1, 4, 4, generator=g, dtype=torch.float64) * 2 - 1
    t, eps = torch.arange(60), torch.randn(x_0.shape, generator=g, dtype=torch.float64)
    return scheduler, x_0, t, eps, scheduler.add_noise(x_0, t, eps)


def perfect(target, scheduler, x_0, t, eps):
    """A network that knows the answer."""
    alpha, sigma = scheduler.alpha_sigma(t, x_0)
    answer = {"eps": eps, "x0": x_0, "v": alpha * eps - sigma * x_0, "velocity": eps - x_0}[target]
    return lambda x_t, t, label: answer


@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_network_of_any_target_gives_the_true_noise_and_data(target, noised):
    scheduler, x_0, t, eps, x_t = noised
    network = perfect(target, scheduler, x_0, t, eps)
    prediction = denoiser(network, scheduler, target)(x_t, t)
    torch.testing.assert_close(prediction.eps, eps, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(prediction.x_0, x_0, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("target", TARGETS)
def test_the_loss_of_a_perfect_network_is_0_whatever_its_target(target, noised):
    scheduler, x_0, t, eps, _ = noised
    network = perfect(target, scheduler, x_0, t, eps)
    loss = training_loss(network, scheduler, x_0, t, eps, target=target).ordinary
    torch.testing.assert_close(loss, torch.zeros(60, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize("target", TARGETS)
def test_targets_hold_for_a_process_that_does_not_preserve_the_variance(target):
    s = torch.linspace(0.05, 0.95, 20)
    scheduler, g = NoiseScheduler(1 - s, s), torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 20, 2, generator=g, dtype=torch.float64)
    t = torch.arange(20)
    x_t = scheduler.add_noise(x_0, t, eps)
    prediction = denoiser(perfect(target, scheduler, x_0, t, eps), scheduler, target)(x_t, t)
    torch.testing.assert_close(prediction, Prediction(eps, x_0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("target", ["v", "x0", "velocity"])
def test_nothing_is_lost_at_the_end_of_the_schedule(target):
    # alpha is 5e-5 there. In float32, (x_t - sigma eps) / alpha, which this once went through, is off by 4e-2.
    scheduler, g = CosineNoiseScheduler(1000), torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 1000, 2, generator=g)
    t = torch.tensor(999)
    alpha, sigma = scheduler.alpha_sigma(t, x_0)
    assert float(alpha) == pytest.approx(4.93e-5, rel=0.01)
    x_t = scheduler.add_noise(x_0, t, eps)
    prediction = denoiser(perfect(target, scheduler, x_0, t, eps), scheduler, target)(x_t, t)
    assert float((prediction.x_0 - x_0).abs().max()) < 1e-6
    assert float((prediction.eps - eps).abs().max()) < 1e-6
    detour = (x_t - sigma * prediction.eps) / alpha
    assert 1e-3 < float((detour - x_0).abs().max()) < 1e-1


@pytest.mark.parametrize(("target", "other"), [("eps", "x0"), ("x0", "v"), ("v", "eps")])
def test_what_a_network_predicts_is_not_mixed_up(target, other, noised):
    scheduler, x_0, t, eps, x_t = noised
    wrong = denoiser(perfect(target, scheduler, x_0, t, eps), scheduler, other)(x_t, t)
    assert not torch.isclose(wrong.eps[5:55], eps[5:55]).flatten(1).all(1).any()
    assert not torch.isclose(wrong.x_0[5:55], x_0[5:55]).flatten(1).all(1).any()


class Listener:
    """A network that keeps the labels it is given."""

    def __init__(self):
        self.labels = []

    def __call__(self, x_t, t, label):
        self.labels.append(label)
        return x_t


def test_the_label_of_a_training_reaches_the_network(noised):
    scheduler, x_0, t, eps, _ = noised
    network = Listener()
    training_loss(network, scheduler, x_0, t, eps, label=t)
    assert network.labels[0] is t


def test_a_denoiser_that_gets_no_label_gives_none_to_the_network(noised):
    scheduler, _, t, _, x_t = noised
    network = Listener()
    denoiser(network, scheduler, "eps")(x_t, t)
    assert network.labels == [None]


# ---------------------------------------------------------------- the weights of the loss

SCHEDULERS = pytest.mark.parametrize(
    "scheduler", [LinearNoiseScheduler(60), CosineNoiseScheduler(60)], ids=["linear", "cosine"]
)


def squared_error(a, b):
    return (a - b).square().flatten(1).mean(1)


@SCHEDULERS
@pytest.mark.parametrize("target", TARGETS)
def test_a_weight_makes_the_loss_the_error_of_what_it_names(scheduler, target):
    # |eps_hat - eps|^2 and |v_hat - v|^2, where eps_hat and v_hat are what any guess of the target implies
    g = torch.Generator().manual_seed(0)
    x_0, eps, guess = torch.randn(3, 60, 1, 4, 4, generator=g, dtype=torch.float64)
    t = torch.arange(60)
    alpha, sigma = scheduler.alpha_sigma(t, x_0)
    how_often = torch.from_numpy(np.diff(stats.norm.cdf(logit(np.linspace(0, 1, 61)))))  # t, where its logit is N(0, 1)
    eps_hat, x_0_hat = denoiser(lambda *_: guess, scheduler, target)(scheduler.add_noise(x_0, t, eps), t)
    direct = {
        "target": squared_error(guess, prediction_target(target).value(x_0, eps, alpha, sigma)),
        "eps": squared_error(eps_hat, eps),
        "v": squared_error(alpha * eps_hat - sigma * x_0_hat, alpha * eps - sigma * x_0),
        "logit_normal": squared_error(eps_hat - x_0_hat, eps - x_0) * 60 * how_often,
    }
    for weight, expected in direct.items():
        weights = loss_weights(scheduler, target, weight)
        ours = training_loss(lambda *_: guess, scheduler, x_0, t, eps, target=target, weights=weights).ordinary
        torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-12)


@SCHEDULERS
def test_loss_weights_in_closed_form(scheduler):
    # alpha-bar alone says them all: 1 / alpha^2 = 1 / alpha-bar, SNR = alpha-bar / (1 - alpha-bar)
    for t, a in enumerate(scheduler.alphas_cumprod.tolist()):
        snr = a / (1 - a)
        of_eps = {"eps": 1.0, "v": 1 / a, "min_snr": min(snr, 5.0) / snr}
        velocity = a / (a**0.5 + (1 - a) ** 0.5) ** 2
        share = {"eps": 1.0, "v": a, "x0": snr, "velocity": velocity}  # |eps_hat - eps|^2 over the target's error
        for target in TARGETS:
            assert float(loss_weights(scheduler, target, "target")[t]) == 1
            for weight, value in of_eps.items():
                expected = pytest.approx(value * share[target], rel=1e-9)
                assert float(loss_weights(scheduler, target, weight)[t]) == expected, (t, target, weight)


def test_min_snr_keeps_the_end_and_tames_the_beginning():
    weights = loss_weights(LinearNoiseScheduler(200), "eps", "min_snr")
    assert float(weights[0]) < 0.01
    assert float(weights[-1]) == pytest.approx(1, rel=1e-12)


def test_min_snr_has_one_weight_a_step_in_float64():
    weights = loss_weights(LinearNoiseScheduler(200), "eps", "min_snr")
    assert weights.shape == (200,) and weights.dtype == torch.float64


def test_min_snr_of_a_network_that_predicts_x_0_is_the_capped_snr():
    # Hang et al. 2023 (arXiv 2303.09556)
    scheduler = LinearNoiseScheduler(200)
    snr = scheduler.log_snr.mul(2).exp()
    torch.testing.assert_close(loss_weights(scheduler, "x0", "min_snr"), snr.clamp(max=5))


def silent_loss(noised, t, weights=None):
    """The losses at the steps t of a network that always answers 0."""
    scheduler, x_0, _, eps, _ = noised
    return training_loss(lambda x_t, t, label: 0 * x_t, scheduler, x_0, t, eps, weights=weights).ordinary


def test_a_loss_without_weights_is_that_of_the_target(noised):
    _, _, t, eps, _ = noised
    torch.testing.assert_close(silent_loss(noised, t), eps.square().mean((1, 2, 3)))


def test_weights_of_float32_multiply_the_loss_and_leave_its_dtype(noised):
    t = noised[2]
    weighted = silent_loss(noised, t.flip(0), weights=torch.arange(60.0))
    torch.testing.assert_close(weighted, silent_loss(noised, t) * t.flip(0))


# ---------------------------------------------------------------- guidance, and the range of images


@pytest.mark.parametrize("factor", [0.9, 3])
@pytest.mark.parametrize("target", TARGETS)
def test_predictions_of_images_are_kept_within_their_range(target, factor, noised):
    scheduler, x_0, t, _, x_t = noised
    alpha, sigma = scheduler.alpha_sigma(t, x_0)
    predicted = factor * x_0
    assert factor < 1 or float(predicted.abs().max()) > 2
    network = perfect(target, scheduler, predicted, t, (x_t - alpha * predicted) / sigma)
    kept = clamped_denoiser(denoiser(network, scheduler, target), scheduler)(x_t, t)
    torch.testing.assert_close(kept.x_0, predicted.clamp(-1, 1), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(scheduler.add_noise(kept.x_0, t, kept.eps), x_t, rtol=1e-8, atol=1e-8)


def test_a_prediction_within_the_range_stays_as_it_is(noised):
    scheduler, x_0, t, eps, x_t = noised
    out = clamped_denoiser(lambda x_t, t, label: Prediction(eps, x_0), scheduler)(x_t, t)
    assert torch.equal(out.eps, eps) and torch.equal(out.x_0, x_0)


def test_chunks_change_nothing():
    scheduler, x = LinearNoiseScheduler(10), torch.randn(7, 2)
    denoise = denoiser(lambda x_t, t, label: x_t.tanh() + label[:, None], scheduler, "v")
    whole, chunked = (f(x, torch.tensor(4), torch.arange(7)) for f in (denoise, in_chunks(denoise, 3)))
    assert isinstance(chunked, Prediction)
    assert torch.equal(chunked.eps, whole.eps) and torch.equal(chunked.x_0, whole.x_0)


def test_a_denoiser_in_chunks_gives_each_row_its_own_step_and_takes_an_int():
    x, t = torch.randn(7, 2), torch.arange(7)

    def denoise(x_t, t, label=None):
        return Prediction(x_t + t.view(-1, 1), x_t * t.view(-1, 1))

    for chunked, whole in zip(in_chunks(denoise, 3)(x, t), denoise(x, t)):
        assert torch.equal(chunked, whole)
    for by_int, whole in zip(in_chunks(denoise, 3)(x, 4), denoise(x, torch.tensor(4))):
        assert torch.equal(by_int, whole)
