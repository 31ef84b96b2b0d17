"""What the network learns from: the noise expected over a reference batch; which steps are drawn; Muon."""

from itertools import pairwise

import pytest
import torch

from dataset import make_dataset
from loss.objective import (
    draw_steps,
    overlapping,
    reference_batches,
    references_for,
    stable_target,
    step_weights,
    training_loss,
)
from model import build_model, hidden_matrices
from schedule import LinearNoiseScheduler
from training.optimizers import Muon, make_optimizers, orthogonal

SCHEDULER = LinearNoiseScheduler(1000)


def noisy(n, t, seed=0, d=2):
    g = torch.Generator().manual_seed(seed)
    x_0 = torch.randn(n, d, generator=g, dtype=torch.float64)
    eps = torch.randn(n, d, generator=g, dtype=torch.float64)
    alpha, sigma = SCHEDULER.alpha_sigma(torch.full((n,), t), x_0)
    return x_0, eps, alpha, sigma, alpha * x_0 + sigma * eps


# ---------------------------------------------------------------- the stable target


@pytest.mark.parametrize("t", [0, 30, 300, 999])
def test_it_is_bayes_rule_over_the_rows_written_out(t):
    x_0, _, alpha, sigma, x_t = noisy(12, t)
    found = stable_target(x_t, alpha, sigma, None, reference_batches(x_0, None, 12))
    for i in range(12):
        p = (-0.5 * ((x_t[i] - alpha[0] * x_0) / sigma[0]).square().sum(1)).softmax(0)
        torch.testing.assert_close(found.x_0[i], (p[:, None] * x_0).sum(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(alpha * found.x_0 + sigma * found.eps, x_t)


def test_rows_refer_to_their_group_and_their_label_only():
    x_0, _, alpha, sigma, x_t = noisy(11, 500)
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
    x_0, _, alpha, sigma, x_t = noisy(11, 500)
    label = torch.tensor([0, 1, 0, 1, 2, 2, 0, 1, 1, 0, 2])
    whole = reference_batches(x_0, label, 4)
    parts = [
        stable_target(x_t[a:b], alpha[a:b], sigma[a:b], label[a:b], overlapping(whole, a, b), null_label=2).eps
        for a, b in pairwise(cuts)
    ]
    torch.testing.assert_close(torch.cat(parts), stable_target(x_t, alpha, sigma, label, whole, null_label=2).eps)


@pytest.mark.parametrize("t", [60, 300])
def test_on_average_it_is_the_best_guess_with_less_variance(t):
    # The mean over many batches of target - best, in units of its standard error: a z of 4.5 by chance in 1e-5 of runs.
    mixture, g = make_dataset("moons", 10, 0, noise=0.2).mixture, torch.Generator().manual_seed(1)
    alpha, sigma = SCHEDULER.alpha_sigma_at(t)
    off, stable, drawn = [], [], []
    for _ in range(300):
        x_0 = mixture.sample(64, g)
        eps = torch.randn(x_0.shape, generator=g, dtype=torch.float64)
        x_t = alpha * x_0 + sigma * eps
        a, s = torch.full((64, 1), alpha).double(), torch.full((64, 1), sigma).double()
        guess, best = (
            stable_target(x_t, a, s, None, reference_batches(x_0, None, 64)).eps,
            mixture.eps(x_t, alpha, sigma),
        )
        off.append(((guess - best) * best).sum(1).mean())  # the two are uncorrelated where the guess is unbiased
        stable.append((guess - best).square().mean())
        drawn.append((eps - best).square().mean())
    off = torch.stack(off)
    assert abs(float(off.mean() / (off.std() / len(off) ** 0.5))) < 4.5
    assert float(torch.stack(stable).mean()) < 0.25 * float(torch.stack(drawn).mean())


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_one_row_and_repeated_rows_give_back_the_noise(rows):
    _, eps, alpha, sigma, _ = noisy(rows, 200)
    x_0 = torch.ones(rows, 2, dtype=torch.float64)
    found = stable_target(alpha * x_0 + sigma * eps, alpha, sigma, None, reference_batches(x_0, None, 512))
    torch.testing.assert_close(found.eps, eps)
    torch.testing.assert_close(found.x_0, x_0)


def test_in_float32_and_fifty_dimensions_it_stays_finite_and_right():
    x_0, eps, alpha, sigma, x_t = noisy(64, 0, d=50)  # so little noise that each row is its own best guess
    found = stable_target(x_t.float(), alpha.float(), sigma.float(), None, reference_batches(x_0.float(), None, 64))
    torch.testing.assert_close(found.eps.double(), eps, rtol=0, atol=1e-3)


def test_the_ordinary_loss_does_not_depend_on_references():
    x_0, eps, *_ = noisy(32, 0)
    t, net = torch.arange(32) * 30, lambda x_t, t, label: 0.3 * x_t
    plain = training_loss(net, SCHEDULER, x_0, t, eps, target="v")
    both = training_loss(net, SCHEDULER, x_0, t, eps, target="v", references=reference_batches(x_0, None, 16))
    torch.testing.assert_close(both.ordinary, plain.ordinary)
    assert plain.ordinary is plain.stable and float(both.stable.mean()) < float(both.ordinary.mean())


# ---------------------------------------------------------------- the steps drawn


def test_every_bin_of_steps_is_drawn_once_where_power_is_one():
    t = draw_steps(1000, 100, 1.0, torch.Generator().manual_seed(0))
    assert (t // 10).tolist() == list(range(100))


@pytest.mark.parametrize("power", [1.0, 1.6, 3.0])
def test_weighted_back_the_mean_is_that_of_even_steps(power):
    T, f = 50, torch.linspace(1, 3, 50, dtype=torch.float64).exp()
    weights, g = step_weights(T, power), torch.Generator().manual_seed(0)
    counts = torch.stack([draw_steps(T, 1000, power, g).bincount(minlength=T) for _ in range(50)]).double().mean(0)
    due = 1000 / (T * weights)
    assert due.sum() == pytest.approx(1000)
    assert float((counts - due).abs().max()) < 1  # stratified: a bin of steps gets its due but for its ends
    assert float((counts * weights * f).sum() / 1000) == pytest.approx(float(f.mean()), rel=0.01)


# ---------------------------------------------------------------- Muon


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5)])
def test_orthogonal_keeps_singular_vectors_and_evens_out_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonal(matrix) @ v.T
    torch.testing.assert_close(inner, inner.diagonal().diag(), rtol=0, atol=1e-9)
    quintic = torch.linalg.svdvals(matrix) / matrix.norm()
    for _ in range(3):  # on each singular value alone
        quintic = 3.4445 * quintic - 4.7750 * quintic**3 + 2.0315 * quintic**5
    torch.testing.assert_close(inner.diagonal(), quintic)


def test_muon_takes_the_hidden_matrices_of_an_mlp_and_nothing_else():
    net = build_model("mlp", (2,), 10, hidden=8, layers=3, frequencies=1)
    adamw, muon = make_optimizers(net, "muon", lr=0.1, weight_decay=0.0)
    assert isinstance(muon, Muon) and [tuple(w.shape) for w in muon.param_groups[0]["params"]] == [(8, 8)] * 3
    sizes = sum(w.numel() for optimizer in (adamw, muon) for w in optimizer.param_groups[0]["params"])
    assert sizes == sum(w.numel() for w in net.parameters())
    assert len(make_optimizers(net, "adamw", lr=0.1, weight_decay=0.0)) == 1
    linear = build_model("linear", (2,), 10)
    assert not hidden_matrices(linear) and len(make_optimizers(linear, "muon", lr=0.1, weight_decay=0.0)) == 1


def test_muon_descends_and_its_step_has_the_size_that_it_says():
    weight = torch.nn.Parameter(torch.zeros(16, 16))
    goal, optimizer = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)), Muon([weight], lr=0.02)
    for i in range(400):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - i / 400)
        optimizer.zero_grad()
        (weight - goal).square().sum().backward()
        optimizer.step()
        if i == 0:
            assert 0.3 < float(weight.detach().square().mean().sqrt()) / (0.02 * 0.5) < 1.3
    assert float((weight.detach() - goal).square().mean()) < 0.01 * float(goal.square().mean())


def test_muon_takes_the_inner_weights_of_a_unet():
    net = build_model("unet_small", (1, 8, 8), 10, num_labels=3)
    taken = {id(weight) for weight in hidden_matrices(net)}
    others = {
        name.split(".")[0] for name, weight in net.named_parameters() if id(weight) not in taken and weight.ndim > 1
    }
    assert others == {"time", "label", "stem", "head"}
    assert all(weight.ndim in (2, 4) for weight in hidden_matrices(net))


def test_a_convolution_is_a_matrix_to_muon():
    g = torch.Generator().manual_seed(0)
    weight, grad = torch.randn(6, 4, 3, 3, generator=g), torch.randn(6, 4, 3, 3, generator=g)
    kernel, matrix = weight.clone().requires_grad_(), weight.flatten(1).clone().requires_grad_()
    for parameter in (kernel, matrix):
        parameter.grad = grad.view_as(parameter).clone()
        Muon([parameter], lr=0.02).step()
    assert torch.equal(kernel.flatten(1), matrix)
    assert not torch.equal(kernel, weight)


def test_muon_looks_ahead_as_nesterov_does():
    """Two steps written out: m_k = b m_{k-1} + (1 - b) g_k, and the step is along b m_k + (1 - b) g_k."""
    gradients = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    weight, b, momentum, expected = torch.nn.Parameter(torch.zeros(6, 4)), 0.9, torch.zeros(6, 4), torch.zeros(6, 4)
    optimizer = Muon([weight], lr=0.1, momentum=b)
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
        momentum = b * momentum + (1 - b) * g
        expected = expected - 0.1 * 0.5 * 6**0.5 * orthogonal(b * momentum + (1 - b) * g)
    torch.testing.assert_close(weight.data, expected)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_adamw_decays_weights_and_as_it_was_told(name):
    net = build_model("mlp", (2,), 8, hidden=8, layers=2, frequencies=1)
    optimizers = make_optimizers(net, name, lr=0.1, weight_decay=0.5)
    before = [p.detach().clone() for p in net.parameters()]
    of_muon = {id(w) for each in optimizers[1:] for w in each.param_groups[0]["params"]}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    for each in optimizers:
        each.step()
    for p, old in zip(net.parameters(), before):
        torch.testing.assert_close(p.data, old if id(p) in of_muon else (1 - 0.1 * 0.5) * old)


def test_few_rows_are_not_learnt_by_heart_unless_asked_for():
    assert [references_for(rows, None) for rows in (500, 10_239, 10_240, 200_000)] == [0, 0, 512, 512]
    assert references_for(500, 64) == 64 and references_for(10**6, 0) == 0
