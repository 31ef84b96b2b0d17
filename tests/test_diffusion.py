"""The forward process: arrays in and out, and the distribution that equation 4 promises."""

import numpy as np
import pytest
import torch
from scipy import stats

from dataset import create_moon_dataset
from diffusion import (
    TARGETS,
    DiffusionModel,
    Prediction,
    denoiser,
    guided,
    in_chunks,
    loss_weights,
    training_loss,
    within_range,
)
from schedule import CosineNoiseScheduler, LinearNoiseScheduler, evenly


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
    scheduler, g = DiffusionModel(100).scheduler, torch.Generator().manual_seed(0)
    eps, x_0, t = torch.randn(4000, 2, generator=g), torch.randn(4000, 2, generator=g), torch.randint(100, (4000,))
    right = training_loss(lambda x_t, t, label: eps, scheduler, x_0, t, eps)
    silent = training_loss(lambda x_t, t, label: torch.zeros_like(x_t), scheduler, x_0, t, eps)
    assert right.shape == (4000,) and float(right.abs().max()) == 0
    assert float(silent.mean()) == pytest.approx(1, abs=5 * (2 / 8000) ** 0.5)


@pytest.mark.parametrize(("count", "expected"), [(2, [0, 10]), (3, [0, 5, 10]), (50, list(range(11)))])
def test_even_steps_hold_both_ends(count, expected):
    assert evenly(0, 10, count) == expected
    assert evenly(10, 0, count) == expected[::-1]


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
    answer = {"eps": eps, "x0": x_0, "v": alpha * eps - sigma * x_0}[target]
    return lambda x_t, t, label: answer.to(x_t)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight", ["target", "eps", "v", "min_snr"])
def test_a_perfect_network_of_any_kind_gives_the_true_noise_and_data(target, weight, noised):
    scheduler, x_0, t, eps, x_t = noised
    net = perfect(target, scheduler, x_0, t, eps)
    found = denoiser(net, scheduler, target)(x_t, t)
    torch.testing.assert_close(found.eps, eps, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.x_0, x_0, rtol=1e-8, atol=1e-8)
    weights = loss_weights(scheduler, target, weight)
    loss = training_loss(net, scheduler, x_0, t, eps, target=target, weights=weights)
    torch.testing.assert_close(loss, torch.zeros(60, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("target", ["v", "x0"])
def test_nothing_is_lost_where_hardly_any_signal_is_left(target):
    # alpha is 5e-5 at the end of the cosine schedule: x_0 by way of eps would be off by 4e-2 in float32
    scheduler, g = CosineNoiseScheduler(1000), torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 100, 2, generator=g)
    t = torch.tensor(999)
    x_t = scheduler.add_noise(x_0, t, eps)
    found = denoiser(perfect(target, scheduler, x_0, t, eps), scheduler, target)(x_t, t)
    torch.testing.assert_close(found.x_0, x_0, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.eps, eps, rtol=0, atol=1e-6)


def test_targets_are_not_mixed_up(noised):
    scheduler, x_0, t, eps, x_t = noised
    for target, other in [("eps", "x0"), ("x0", "v"), ("v", "eps")]:
        wrong = denoiser(perfect(target, scheduler, x_0, t, eps), scheduler, other)(x_t, t)
        assert not torch.isclose(wrong.eps[5:55], eps[5:55]).flatten(1).all(1).any()


def test_the_label_reaches_the_network(noised):
    scheduler, x_0, t, eps, x_t = noised
    seen = []

    def net(x_t, t, label):
        seen.append(label)
        return x_t

    training_loss(net, scheduler, x_0, t, eps, label=t)
    denoiser(net, scheduler, "eps")(x_t, t)
    assert seen[0] is t and seen[1] is None


def test_chunks_change_nothing():
    scheduler, x = LinearNoiseScheduler(10), torch.randn(7, 2)
    denoise = denoiser(lambda x_t, t, label: x_t.tanh(), scheduler, "v")
    for one, other in zip(in_chunks(denoise, 3)(x, torch.tensor(4)), denoise(x, torch.tensor(4))):
        assert torch.equal(one, other)


# ---------------------------------------------------------------- the weights of the loss


@pytest.mark.parametrize("scheduler", [LinearNoiseScheduler(60), CosineNoiseScheduler(60)], ids=["linear", "cosine"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight", ["eps", "v"])
def test_a_weight_makes_the_error_of_any_target_that_of_eps_or_v(scheduler, target, weight):
    g, t = torch.Generator().manual_seed(0), torch.arange(60)
    x_0, eps, out = torch.randn(3, 60, 1, 4, 4, generator=g, dtype=torch.float64)
    alpha, _ = scheduler.alpha_sigma(t, x_0)
    x_t = scheduler.add_noise(x_0, t, eps)
    believed = denoiser(lambda *_: out, scheduler, target)(x_t, t).eps
    # given x_t, an error of eps is alpha times one of v
    direct = (believed - eps) / (alpha if weight == "v" else 1)
    weights = loss_weights(scheduler, target, weight)
    ours = training_loss(lambda *_: out, scheduler, x_0, t, eps, target=target, weights=weights)
    torch.testing.assert_close(ours, direct.square().flatten(1).mean(1), rtol=1e-7, atol=1e-10)


def test_min_snr_in_closed_form():
    scheduler = LinearNoiseScheduler(200)
    weights = loss_weights(scheduler, "eps", "min_snr")
    for t in range(200):
        a = float(scheduler.alphas_cumprod[t])
        snr = a / (1 - a)
        assert float(weights[t]) == pytest.approx(min(snr, 5.0) / snr, rel=1e-12)
    assert float(weights[0]) < 0.01 and float(weights[-1]) == 1


@pytest.mark.parametrize("target", TARGETS)
def test_the_weight_of_the_target_itself_is_one(target):
    scheduler = CosineNoiseScheduler(60)
    assert bool((loss_weights(scheduler, target, "target") == 1).all())
    assert bool((loss_weights(scheduler, "eps", "eps") == 1).all())


# ---------------------------------------------------------------- guidance, and the range of images


def with_or_without(x_t, t, label=None):
    """A denoiser whose answers with and without a label differ."""
    eps = 0.3 * x_t if label is None else x_t + label[:, None]
    return Prediction(eps, 1 - 2 * eps)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 3.0])
def test_guidance_steps_away_from_the_answer_without_a_label(w):
    x_t, t, label = torch.randn(4, 2), torch.tensor(3), torch.arange(4)
    steered = guided(with_or_without, w)(x_t, t, label)
    for ours, conditional, unconditional in zip(
        steered, with_or_without(x_t, t, label), with_or_without(x_t, t), strict=True
    ):
        torch.testing.assert_close(ours, (1 + w) * conditional - w * unconditional)
        if w == 0:
            assert torch.equal(ours, conditional)


@pytest.mark.parametrize(("w", "labelled", "calls"), [(0.0, True, 1), (2.0, False, 1), (2.0, True, 2)])
def test_guidance_asks_the_network_no_more_often_than_it_must(w, labelled, calls):
    x_t, asked = torch.randn(4, 2), []

    def denoise(x_t, t, label=None):
        asked.append(label)
        return with_or_without(x_t, t, label)

    out = guided(denoise, w)(x_t, torch.tensor(3), torch.arange(4) if labelled else None)
    assert len(asked) == calls
    assert labelled or torch.equal(out.eps, with_or_without(x_t, torch.tensor(3)).eps)


def test_guesses_of_images_are_kept_within_their_range(noised):
    scheduler, x_0, t, _, x_t = noised
    alpha, sigma = scheduler.alpha_sigma(t, x_t)
    for guess in (0.9 * x_0, 3 * x_0):
        denoise = denoiser(lambda *_, guess=guess: guess, scheduler, "x0")
        kept = within_range(denoise, scheduler)(x_t, t)
        assert torch.equal(kept.x_0, guess.clamp(-1, 1))
        # both parts stay one story: x_t = alpha x_0 + sigma eps
        torch.testing.assert_close(alpha * kept.x_0 + sigma * kept.eps, x_t, rtol=1e-8, atol=1e-8)
    assert float((3 * x_0).abs().max()) > 2


def test_a_guess_within_the_range_leaves_the_noise_as_it_is(noised):
    scheduler, x_0, t, eps, x_t = noised
    out = within_range(lambda x_t, t, label: Prediction(eps, x_0), scheduler)(x_t, t)
    assert torch.equal(out.eps, eps)
