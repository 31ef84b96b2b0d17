"""The forward process: arrays in and out, and the distribution that equation 4 promises."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logit

from dataset import create_moon_dataset
from diffusion import DiffusionModel, Prediction, denoiser, forward_states, in_chunks, prediction_target, within_range
from loss.objective import loss_weights, training_loss
from registry.process_rows import TARGETS
from runtime.randomness import generator
from schedule import CosineNoiseScheduler, LinearNoiseScheduler, NoiseScheduler


def test_calls_as_the_readme_writes_them():
    data = create_moon_dataset(n_samples=500)
    model = DiffusionModel(num_timesteps=100)
    noisy, noise = model.forward_diffusion(data, t=50)
    trajectory = model.add_noise_trajectory(data)
    assert data.shape == noisy.shape == noise.shape == (500, 2)
    assert trajectory.shape == (100, 500, 2)
    assert {data.dtype, noisy.dtype, noise.dtype, trajectory.dtype} == {np.dtype(np.float32)}
    alpha_bar = float(model.scheduler.alphas_cumprod[50])
    np.testing.assert_allclose(noisy, alpha_bar**0.5 * data + (1 - alpha_bar) ** 0.5 * noise, atol=1e-6)


def test_tensors_come_out_as_tensors_of_the_same_dtype():
    data = torch.randn(10, 1, 4, 4, dtype=torch.float64)
    model = DiffusionModel(10)
    noisy, noise = model.forward_diffusion(data, t=torch.arange(10))
    assert noisy.dtype == noise.dtype == torch.float64 and noisy.shape == data.shape
    assert model.add_noise_trajectory(data).shape == (10, 10, 1, 4, 4)


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


def test_same_seed_same_noise_and_every_call_its_own():
    data = create_moon_dataset(50)
    one, two = DiffusionModel(10, seed=5), DiffusionModel(10, seed=5)
    first = one.forward_diffusion(data, 5)[1]
    assert np.array_equal(first, two.forward_diffusion(data, 5)[1])
    assert not np.array_equal(first, one.forward_diffusion(data, 5)[1])


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


def test_training_loss_is_zero_for_the_noise_itself_and_one_for_silence():
    scheduler, eps = (
        DiffusionModel(100).scheduler,
        torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)),
    )
    x_0, t = torch.randn(4000, 2), torch.randint(100, (4000,))
    right = training_loss(lambda x_t, t, label: eps, scheduler, x_0, t, eps).ordinary
    silent = training_loss(lambda x_t, t, label: torch.zeros_like(x_t), scheduler, x_0, t, eps).ordinary
    assert right.shape == (4000,) and float(right.abs().max()) == 0
    assert float(silent.mean()) == pytest.approx(1, abs=5 * (2 / 8000) ** 0.5)


def test_chosen_steps_of_the_chain_have_its_distribution():
    # 40 000 copies of one point after 0, 1, 6 and 20 forward steps; 6 Kolmogorov tests at level 1e-4 fail with p = 6e-4
    scheduler, point = LinearNoiseScheduler(20), torch.tensor([[1.5, -0.5]], dtype=torch.float64)
    states = list(forward_states(scheduler, point.repeat(40_000, 1), [0, 1, 6, 20], generator(3, "test")))
    assert torch.equal(states[0], point.repeat(40_000, 1))
    for step, x in zip((1, 6, 20), states[1:]):
        alpha, sigma = scheduler.alpha_sigma_at(step - 1)
        for i in range(2):
            assert stats.kstest(x[:, i], stats.norm(alpha * point[0, i], sigma).cdf).pvalue > 1e-4, (step, i)
    # a chain, not draws one by one: cov(x_s, x_t) = (alpha_t / alpha_s) sigma_s^2. Five standard errors: p = 6e-7
    a, (x_s, x_t) = scheduler.stride(5, 19)[0], (states[2][:, 0], states[3][:, 0])
    sigma_s, sigma_t = scheduler.alpha_sigma_at(5)[1], scheduler.alpha_sigma_at(19)[1]
    expected = a * sigma_s / sigma_t
    assert abs(np.corrcoef(x_s, x_t)[0, 1] - expected) < 5 * (1 - expected**2) / 200


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


def test_what_a_network_predicts_is_not_mixed_up(noised):
    scheduler, x_0, t, eps, x_t = noised
    for target, other in [("eps", "x0"), ("x0", "v"), ("v", "eps")]:
        wrong = denoiser(perfect(target, scheduler, x_0, t, eps), scheduler, other)(x_t, t)
        assert not torch.isclose(wrong.eps[5:55], eps[5:55]).flatten(1).all(1).any()
        assert not torch.isclose(wrong.x_0[5:55], x_0[5:55]).flatten(1).all(1).any()


def test_the_label_reaches_the_network(noised):
    scheduler, x_0, t, eps, x_t = noised
    seen = []

    def network(x_t, t, label):
        seen.append(label)
        return x_t

    training_loss(network, scheduler, x_0, t, eps, label=t)
    denoiser(network, scheduler, "eps")(x_t, t)
    assert seen[0] is t and seen[1] is None


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
        "target": squared_error(guess, prediction_target(target).of(x_0, eps, alpha, sigma)),
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
    assert weights.shape == (200,) and weights.dtype == torch.float64
    assert float(weights[0]) < 0.01 and float(weights[-1]) == pytest.approx(1, rel=1e-12)
    # Hang et al.: predicting x_0, the weight is min(SNR, 5) itself
    snr = LinearNoiseScheduler(200).log_snr.mul(2).exp()
    torch.testing.assert_close(loss_weights(LinearNoiseScheduler(200), "x0", "min_snr"), snr.clamp(max=5))


def test_a_loss_without_weights_is_that_of_the_target(noised):
    scheduler, x_0, t, eps, _ = noised
    loss = training_loss(lambda x_t, t, label: 0 * x_t, scheduler, x_0, t, eps).ordinary
    torch.testing.assert_close(loss, eps.square().mean((1, 2, 3)))
    weights = torch.arange(60.0)  # float32, as the training holds them: the loss keeps its dtype
    weighted = training_loss(lambda x_t, t, label: 0 * x_t, scheduler, x_0, t.flip(0), eps, weights=weights).ordinary
    torch.testing.assert_close(weighted, loss * t.flip(0))


# ---------------------------------------------------------------- guidance, and the range of images


@pytest.mark.parametrize("target", TARGETS)
def test_guesses_of_images_are_kept_within_their_range(target, noised):
    scheduler, x_0, t, _, x_t = noised
    alpha, sigma = scheduler.alpha_sigma(t, x_0)
    for guess in (0.9 * x_0, 3 * x_0):
        eps = (x_t - alpha * guess) / sigma
        network = perfect(target, scheduler, guess, t, eps)
        kept = within_range(denoiser(network, scheduler, target), scheduler)(x_t, t)
        torch.testing.assert_close(kept.x_0, guess.clamp(-1, 1), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(scheduler.add_noise(kept.x_0, t, kept.eps), x_t, rtol=1e-8, atol=1e-8)
    assert float((3 * x_0).abs().max()) > 2


def test_a_guess_within_the_range_stays_as_it_is(noised):
    scheduler, x_0, t, eps, x_t = noised
    out = within_range(lambda x_t, t, label: Prediction(eps, x_0), scheduler)(x_t, t)
    assert torch.equal(out.eps, eps) and torch.equal(out.x_0, x_0)


def test_chunks_change_nothing():
    scheduler, x = LinearNoiseScheduler(10), torch.randn(7, 2)
    denoise = denoiser(lambda x_t, t, label: x_t.tanh() + label[:, None], scheduler, "v")
    whole, chunked = (f(x, torch.tensor(4), torch.arange(7)) for f in (denoise, in_chunks(denoise, 3)))
    assert isinstance(chunked, Prediction)
    assert torch.equal(chunked.eps, whole.eps) and torch.equal(chunked.x_0, whole.x_0)
