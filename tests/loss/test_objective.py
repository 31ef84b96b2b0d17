"""The objective: the stable target, which is the expected noise over a reference batch, and the draw of steps."""

import functools
from itertools import pairwise

import pytest
import torch

from dataset import make_dataset
from loss.objective import (
    draw_steps,
    reference_batch_size,
    reference_batches,
    references_of_rows,
    stable_target,
    step_weights,
    training_loss,
)
from schedule import LinearNoiseScheduler

SCHEDULER = LinearNoiseScheduler(1000)


def noised_rows(n, t, seed=0, d=2):
    """x_0 (n, d), eps (n, d), alpha (n, 1), sigma (n, 1) and x_t (n, d) at step t, in float64."""
    g = torch.Generator().manual_seed(seed)
    x_0 = torch.randn(n, d, generator=g, dtype=torch.float64)
    eps = torch.randn(n, d, generator=g, dtype=torch.float64)
    alpha, sigma = SCHEDULER.alpha_sigma(torch.full((n,), t), x_0)
    return x_0, eps, alpha, sigma, alpha * x_0 + sigma * eps


# ---------------------------------------------------------------- the stable target


@pytest.mark.parametrize("t", [0, 30, 300, 999])
def test_the_stable_target_is_the_posterior_mean_over_the_rows(t):
    x_0, _, alpha, sigma, x_t = noised_rows(12, t)
    found = stable_target(x_t, alpha, sigma, None, reference_batches(x_0, None, 12))
    for i in range(12):
        p = (-0.5 * ((x_t[i] - alpha[0] * x_0) / sigma[0]).square().sum(1)).softmax(0)
        torch.testing.assert_close(found.x_0[i], (p[:, None] * x_0).sum(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0, 30, 300, 999])
def test_noise_and_data_of_the_stable_target_make_x_t(t):
    x_0, _, alpha, sigma, x_t = noised_rows(12, t)
    found = stable_target(x_t, alpha, sigma, None, reference_batches(x_0, None, 12))
    torch.testing.assert_close(alpha * found.x_0 + sigma * found.eps, x_t)


def test_rows_refer_to_their_group_and_their_label_only():
    x_0, _, alpha, sigma, x_t = noised_rows(11, 500)
    label = torch.tensor([0, 1, 0, 1, 2, 2, 0, 1, 1, 0, 2])  # 2: none
    whole = stable_target(x_t, alpha, sigma, label, reference_batches(x_0, label, 4), null_label=2).x_0
    for first in (0, 4, 8):  # groups of 4, 4 and 3 rows
        rows = slice(first, first + 4)
        for i, own in enumerate(label[rows].tolist()):
            kept = torch.ones_like(label[rows], dtype=torch.bool) if own == 2 else label[rows] == own
            among = x_0[rows][kept]
            p = (-0.5 * ((x_t[first + i] - alpha[0] * among) / sigma[0]).square().sum(1)).softmax(0)
            torch.testing.assert_close(whole[first + i], (p[:, None] * among).sum(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cuts", [(0, 11), (0, 4, 8, 11), (0, 3, 6, 9, 11), (0, 1, 10, 11)])
def test_a_part_of_a_batch_has_the_references_that_it_has_in_the_whole(cuts):
    x_0, _, alpha, sigma, x_t = noised_rows(11, 500)
    label = torch.tensor([0, 1, 0, 1, 2, 2, 0, 1, 1, 0, 2])
    whole = reference_batches(x_0, label, 4)
    parts = [
        stable_target(x_t[a:b], alpha[a:b], sigma[a:b], label[a:b], references_of_rows(whole, a, b), null_label=2).eps
        for a, b in pairwise(cuts)
    ]
    torch.testing.assert_close(torch.cat(parts), stable_target(x_t, alpha, sigma, label, whole, null_label=2).eps)


@functools.cache
def deviations_of_targets(t):
    """Deviations from the posterior mean E[eps given x_t] of moons, for 300 batches of 64 rows.

    Returns, for each batch (300,): the mean product of the stable target's deviation with the posterior mean, the mean
    square of the stable target's deviation, and the mean square of the drawn noise's deviation.
    """
    mixture, g = make_dataset("moons", 10, 0, noise=0.2).mixture, torch.Generator().manual_seed(1)
    alpha, sigma = SCHEDULER.alpha_sigma_at(t)
    products, stable, drawn = [], [], []
    for _ in range(300):
        x_0 = mixture.sample(64, g)
        eps = torch.randn(x_0.shape, generator=g, dtype=torch.float64)
        x_t = alpha * x_0 + sigma * eps
        a, s = torch.full((64, 1), alpha).double(), torch.full((64, 1), sigma).double()
        target = stable_target(x_t, a, s, None, reference_batches(x_0, None, 64)).eps
        mean = mixture.eps(x_t, alpha, sigma)
        products.append(((target - mean) * mean).sum(1).mean())
        stable.append((target - mean).square().mean())
        drawn.append((eps - mean).square().mean())
    return torch.stack(products), torch.stack(stable), torch.stack(drawn)


@pytest.mark.parametrize("t", [60, 300])
def test_the_stable_target_is_unbiased(t):
    # Without a bias, deviation and posterior mean are uncorrelated. The mean product, in units of its standard error,
    # exceeds 4.5 by chance in 1e-5 of runs.
    products, _, _ = deviations_of_targets(t)
    assert abs(float(products.mean() / (products.std() / len(products) ** 0.5))) < 4.5


@pytest.mark.parametrize("t", [60, 300])
def test_the_stable_target_has_a_quarter_of_the_variance_of_the_drawn_noise(t):
    _, stable, drawn = deviations_of_targets(t)
    assert float(stable.mean()) < 0.25 * float(drawn.mean())


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_stable_target_of_equal_rows_is_the_drawn_noise(rows):
    _, eps, alpha, sigma, _ = noised_rows(rows, 200)
    x_0 = torch.ones(rows, 2, dtype=torch.float64)
    found = stable_target(alpha * x_0 + sigma * eps, alpha, sigma, None, reference_batches(x_0, None, 512))
    torch.testing.assert_close(found.eps, eps)
    torch.testing.assert_close(found.x_0, x_0)


def test_the_stable_target_is_right_in_float32_and_fifty_dimensions():
    # At step 0 there is so little noise that the posterior mean of each row is the row itself.
    x_0, eps, alpha, sigma, x_t = noised_rows(64, 0, d=50)
    found = stable_target(x_t.float(), alpha.float(), sigma.float(), None, reference_batches(x_0.float(), None, 64))
    torch.testing.assert_close(found.eps.double(), eps, rtol=0, atol=1e-3)


def losses_with_and_without_references():
    x_0, eps, *_ = noised_rows(32, 0)
    t, net = torch.arange(32) * 30, lambda x_t, t, label: 0.3 * x_t
    without = training_loss(net, SCHEDULER, x_0, t, eps, target="v")
    references = reference_batches(x_0, None, 16)
    return training_loss(net, SCHEDULER, x_0, t, eps, target="v", references=references), without


def test_the_ordinary_loss_does_not_depend_on_references():
    with_references, without = losses_with_and_without_references()
    torch.testing.assert_close(with_references.ordinary, without.ordinary)


def test_without_references_the_stable_loss_is_the_ordinary_loss():
    _, without = losses_with_and_without_references()
    assert without.ordinary is without.stable


def test_references_lower_the_loss():
    with_references, _ = losses_with_and_without_references()
    assert float(with_references.stable.mean()) < float(with_references.ordinary.mean())


# ---------------------------------------------------------------- the steps drawn


def test_with_power_1_every_bin_of_steps_is_drawn_once():
    t = draw_steps(1000, 100, 1.0, torch.Generator().manual_seed(0))
    assert (t // 10).tolist() == list(range(100))


every_power = pytest.mark.parametrize("power", [1.0, 1.6, 3.0])


def counts_of_draws(power):
    """How often each of 50 steps is drawn (50,), in the mean of 50 draws of 1,000 steps."""
    g = torch.Generator().manual_seed(0)
    return torch.stack([draw_steps(50, 1000, power, g).bincount(minlength=50) for _ in range(50)]).double().mean(0)


@every_power
def test_the_inverse_weights_of_steps_are_their_probabilities(power):
    assert (1000 / (50 * step_weights(50, power))).sum() == pytest.approx(1000)


@every_power
def test_steps_are_drawn_with_the_inverse_of_their_weights(power):
    expected = 1000 / (50 * step_weights(50, power))
    # The draw is stratified: a bin of steps has its expected count except at its ends.
    assert float((counts_of_draws(power) - expected).abs().max()) < 1


@every_power
def test_a_weighted_mean_over_drawn_steps_is_the_mean_over_uniform_steps(power):
    f = torch.linspace(1, 3, 50, dtype=torch.float64).exp()
    weighted = (counts_of_draws(power) * step_weights(50, power) * f).sum() / 1000
    assert float(weighted) == pytest.approx(float(f.mean()), rel=0.01)


@pytest.mark.parametrize(("rows", "references"), [(500, 0), (10_239, 0), (10_240, 512), (200_000, 512)])
def test_by_default_only_large_data_sets_have_references(rows, references):
    assert reference_batch_size(rows, None) == references


@pytest.mark.parametrize(("rows", "asked"), [(500, 64), (10**6, 0)])
def test_the_number_of_references_can_be_chosen(rows, asked):
    assert reference_batch_size(rows, asked) == asked
