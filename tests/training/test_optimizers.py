"""Muon, and which weights each optimizer updates."""

import pytest
import torch

from model import build_model, hidden_matrices
from training.optimizers import Muon, make_optimizers, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5)])
def test_orthogonal_keeps_singular_vectors(shape):
    _, inner = in_singular_vectors(shape)
    torch.testing.assert_close(inner, inner.diagonal().diag(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5)])
def test_orthogonal_applies_a_quintic_polynomial_to_each_singular_value_three_times(shape):
    matrix, inner = in_singular_vectors(shape)
    expected = torch.linalg.svdvals(matrix) / matrix.norm()
    for _ in range(3):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(inner.diagonal(), expected)


def in_singular_vectors(shape):
    """A random matrix, and U^T orthogonal(matrix) V for its singular vectors U and V."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return matrix, u.T @ orthogonal(matrix) @ v.T


# ---------------------------------------------------------------- which weights


def small_mlp():
    return build_model("mlp", (2,), 10, hidden=8, layers=3, frequencies=1)


def test_muon_updates_the_hidden_matrices_of_an_mlp():
    _, muon = make_optimizers(small_mlp(), "muon", lr=0.1, weight_decay=0.0)
    assert isinstance(muon, Muon)
    assert [tuple(w.shape) for w in muon.param_groups[0]["params"]] == [(8, 8)] * 3


def test_muon_and_adamw_together_update_every_weight_once():
    net = small_mlp()
    adamw, muon = make_optimizers(net, "muon", lr=0.1, weight_decay=0.0)
    sizes = sum(w.numel() for optimizer in (adamw, muon) for w in optimizer.param_groups[0]["params"])
    assert sizes == sum(w.numel() for w in net.parameters())


def test_adamw_alone_is_one_optimizer():
    assert len(make_optimizers(small_mlp(), "adamw", lr=0.1, weight_decay=0.0)) == 1


def test_a_network_without_hidden_matrices_has_no_muon():
    linear = build_model("linear", (2,), 10)
    assert not hidden_matrices(linear)
    assert len(make_optimizers(linear, "muon", lr=0.1, weight_decay=0.0)) == 1


def test_muon_updates_no_weight_of_the_ends_of_a_unet():
    net = build_model("unet_small", (1, 8, 8), 10, num_labels=3)
    of_muon = {id(weight) for weight in hidden_matrices(net)}
    others = {
        name.split(".")[0] for name, weight in net.named_parameters() if id(weight) not in of_muon and weight.ndim > 1
    }
    assert others == {"time", "label", "stem", "head"}


def test_muon_updates_matrices_and_kernels_of_a_unet():
    net = build_model("unet_small", (1, 8, 8), 10, num_labels=3)
    assert all(weight.ndim in (2, 4) for weight in hidden_matrices(net))


# ---------------------------------------------------------------- the steps of Muon


def descent(steps):
    """A matrix (16, 16) after these of 400 steps towards a goal, with a falling learning rate; and the goal."""
    weight = torch.nn.Parameter(torch.zeros(16, 16))
    goal = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    optimizer = Muon([weight], lr=0.02)
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - i / 400)
        optimizer.zero_grad()
        (weight - goal).square().sum().backward()
        optimizer.step()
    return weight.detach(), goal


def test_a_step_of_muon_has_the_size_of_half_the_learning_rate():
    weight, _ = descent(1)
    assert 0.3 < float(weight.square().mean().sqrt()) / (0.02 * 0.5) < 1.3


def test_muon_descends_to_the_goal():
    weight, goal = descent(400)
    assert float((weight - goal).square().mean()) < 0.01 * float(goal.square().mean())


def test_muon_updates_a_kernel_as_a_matrix():
    g = torch.Generator().manual_seed(0)
    weight, grad = torch.randn(6, 4, 3, 3, generator=g), torch.randn(6, 4, 3, 3, generator=g)
    kernel, matrix = weight.clone().requires_grad_(), weight.flatten(1).clone().requires_grad_()
    for parameter in (kernel, matrix):
        parameter.grad = grad.view_as(parameter).clone()
        Muon([parameter], lr=0.02).step()
    assert torch.equal(kernel.flatten(1), matrix)
    assert not torch.equal(kernel, weight)


def test_muon_has_the_momentum_of_nesterov():
    """Two steps written out: m_k = b m_{k-1} + (1 - b) g_k, and the step is along b m_k + (1 - b) g_k."""
    gradients = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.zeros(6, 4))
    b = 0.9
    momentum = torch.zeros(6, 4)
    expected = torch.zeros(6, 4)
    optimizer = Muon([weight], lr=0.1, momentum=b)
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
        momentum = b * momentum + (1 - b) * g
        expected = expected - 0.1 * 0.5 * 6**0.5 * orthogonal(b * momentum + (1 - b) * g)
    torch.testing.assert_close(weight.data, expected)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_only_adamw_decays_weights(name):
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
