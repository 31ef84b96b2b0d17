"""The forward process: arrays in and out, and the distribution that equation 4 promises."""

import numpy as np
import pytest
import torch
from scipy import stats

from dataset import create_moon_dataset
from diffusion import DiffusionModel, chosen_steps, denoiser, guided, loss_weights, training_loss, within_range
from schedule import CosineNoiseScheduler, LinearNoiseScheduler


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
    right = training_loss(lambda x_t, t, label: eps, scheduler, x_0, t, eps)
    silent = training_loss(lambda x_t, t, label: torch.zeros_like(x_t), scheduler, x_0, t, eps)
    assert right.shape == (4000,) and float(right.abs().max()) == 0
    assert float(silent.mean()) == pytest.approx(1, abs=5 * (2 / 8000) ** 0.5)


def test_denoiser_of_a_v_network_turns_its_output_into_eps():
    scheduler = DiffusionModel(100).scheduler
    x, t = torch.randn(3, 2), torch.tensor(40)
    silent = denoiser(lambda x_t, t, label: torch.zeros_like(x_t), scheduler, "v")
    torch.testing.assert_close(silent(x, t), scheduler.sqrt_one_minus_alphas_cumprod[40].float() * x)


@pytest.mark.parametrize(("count", "expected"), [(2, [0, 10]), (3, [0, 5, 10]), (50, list(range(11)))])
def test_chosen_steps_hold_the_first_and_the_last(count, expected):
    assert chosen_steps(10, count) == expected


# ---------------------------------------------------------------- what a network may predict


@pytest.fixture
def noised():
    """A schedule, x_0 within [-1, 1], every step t, eps, and x_t; in float64 and of images."""
    g, scheduler = torch.Generator().manual_seed(0), CosineNoiseScheduler(60)
    x_0 = torch.rand(60, 1, 4, 4, generator=g, dtype=torch.float64) * 2 - 1
    t, eps = torch.arange(60), torch.randn(x_0.shape, generator=g, dtype=torch.float64)
    return scheduler, x_0, t, eps, scheduler.add_noise(x_0, t, eps)


def perfect(prediction, scheduler, x_0, t, eps):
    """A network that knows the answer."""
    alpha, sigma = scheduler.alpha_sigma(t, x_0)
    answer = {"eps": eps, "x0": x_0, "v": alpha * eps - sigma * x_0}[prediction]
    return lambda x_t, t, label: answer


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("weight", ["eps", "v", "min_snr"])
def test_a_perfect_network_of_any_kind_gives_the_true_noise(prediction, weight, noised):
    scheduler, x_0, t, eps, x_t = noised
    denoise = denoiser(perfect(prediction, scheduler, x_0, t, eps), scheduler, prediction)
    torch.testing.assert_close(denoise(x_t, t), eps, rtol=1e-8, atol=1e-8)
    loss = training_loss(denoise, scheduler, x_0, t, eps, weight=weight)
    torch.testing.assert_close(loss, torch.zeros(60, dtype=torch.float64), atol=1e-12, rtol=0)


def test_what_a_network_predicts_is_not_mixed_up(noised):
    scheduler, x_0, t, eps, x_t = noised
    for prediction, other in [("eps", "x0"), ("x0", "v"), ("v", "eps")]:
        wrong = denoiser(perfect(prediction, scheduler, x_0, t, eps), scheduler, other)
        assert not torch.isclose(wrong(x_t, t)[5:55], eps[5:55]).flatten(1).all(1).any()


def test_the_label_reaches_the_network(noised):
    scheduler, x_0, t, eps, x_t = noised
    seen = []
    denoise = denoiser(lambda x_t, t, label: seen.append(label) or x_t, scheduler, "eps")
    training_loss(denoise, scheduler, x_0, t, eps, label=t)
    denoise(x_t, t)
    assert seen[0] is t and seen[1] is None


# ---------------------------------------------------------------- the weights of the loss


@pytest.mark.parametrize("scheduler", [LinearNoiseScheduler(60), CosineNoiseScheduler(60)], ids=["linear", "cosine"])
def test_the_weight_v_makes_the_error_that_of_v(scheduler):
    g = torch.Generator().manual_seed(0)
    x_0, eps, guess = torch.randn(3, 60, 1, 4, 4, generator=g, dtype=torch.float64)
    t = torch.arange(60)
    alpha, sigma = scheduler.alpha_sigma(t, x_0)
    direct = (guess - (alpha * eps - sigma * x_0)).square().flatten(1).mean(1)
    ours = training_loss(denoiser(lambda *_: guess, scheduler, "v"), scheduler, x_0, t, eps, weight="v")
    torch.testing.assert_close(ours, direct, rtol=1e-8, atol=1e-10)


def test_min_snr_in_closed_form():
    scheduler = LinearNoiseScheduler(200)
    weights = loss_weights(scheduler, "min_snr")
    for t in range(200):
        a = float(scheduler.alphas_cumprod[t])
        snr = a / (1 - a)
        assert float(weights[t]) == pytest.approx(min(snr, 5.0) / snr, rel=1e-12)
    assert float(weights[0]) < 0.01 and float(weights[-1]) == 1


def test_the_plain_weight_is_one_at_every_step(noised):
    scheduler, x_0, t, eps, _ = noised
    assert bool((loss_weights(scheduler, "eps") == 1).all())
    loss = training_loss(lambda x_t, t, label: 0 * x_t, scheduler, x_0, t, eps)
    torch.testing.assert_close(loss, eps.square().mean((1, 2, 3)))


# ---------------------------------------------------------------- guidance, and the range of images


def with_or_without(x_t, t, label=None):
    """A denoiser whose answers with and without a label are told apart."""
    return 0.3 * x_t if label is None else x_t + label[:, None]


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 3.0])
def test_guidance_steps_away_from_the_answer_without_a_label(w):
    x_t, t, label = torch.randn(4, 2), torch.tensor(3), torch.arange(4)
    conditional, unconditional = with_or_without(x_t, t, label), with_or_without(x_t, t)
    steered = guided(with_or_without, w)(x_t, t, label)
    torch.testing.assert_close(steered, (1 + w) * conditional - w * unconditional)
    if w == 0:
        assert torch.equal(steered, conditional)
    if w == 1:
        torch.testing.assert_close(steered, 2 * conditional - unconditional)


@pytest.mark.parametrize(("w", "labelled", "calls"), [(0.0, True, 1), (2.0, False, 1), (2.0, True, 2)])
def test_guidance_asks_the_network_no_more_often_than_it_must(w, labelled, calls):
    x_t, asked = torch.randn(4, 2), []

    def denoise(x_t, t, label=None):
        asked.append(label)
        return with_or_without(x_t, t, label)

    out = guided(denoise, w)(x_t, torch.tensor(3), torch.arange(4) if labelled else None)
    assert len(asked) == calls
    assert labelled or torch.equal(out, with_or_without(x_t, torch.tensor(3)))


def test_guesses_of_images_are_kept_within_their_range(noised):
    scheduler, x_0, t, _, x_t = noised
    inner, outer = 0.9 * x_0, 3 * x_0

    def kept(guess):
        denoise = within_range(lambda x_t, t, label: scheduler.eps_from_x0(x_t, t, guess), scheduler)
        return scheduler.predict_x0(x_t, t, denoise(x_t, t))

    torch.testing.assert_close(kept(inner), inner, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(kept(outer), outer.clamp(-1, 1), rtol=1e-8, atol=1e-8)
    assert float(outer.abs().max()) > 2


def test_a_guess_within_the_range_leaves_the_noise_as_it_is(noised):
    scheduler, _, t, eps, x_t = noised
    out = within_range(lambda x_t, t, label: eps, scheduler)(x_t, t)
    torch.testing.assert_close(out, eps, rtol=1e-8, atol=1e-8)
