"""The forward process: arrays in and out, and the distribution that equation 4 promises."""

import numpy as np
import pytest
import torch
from scipy import stats

from dataset import create_moon_dataset
from diffusion import DiffusionModel, chosen_steps, denoiser, training_loss


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
            law = stats.norm(alpha_bar**0.5 * point[i], (1 - alpha_bar) ** 0.5)
            assert stats.kstest(trajectory[t, :, i], law.cdf).pvalue > 1e-4, (t, i)


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
