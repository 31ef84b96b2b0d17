"""Attention against torch's own, and what must hold whatever the weights are."""

import pytest
import torch
from torch import nn

from nets.attention import MultiHeadCrossAttention, MultiHeadSelfAttention, attention_weights

DIM, HEADS, N = 24, 4, 7


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def self_attention():
    """Ours, with weights large enough that the attention is far from even."""
    ours = MultiHeadSelfAttention(DIM, HEADS)
    nn.init.normal_(ours.query.weight, std=0.5)
    return ours


def torchs(ours, context_dim=DIM):
    """torch.nn.MultiheadAttention with the same weights."""
    theirs = nn.MultiheadAttention(DIM, HEADS, kdim=context_dim, vdim=context_dim, batch_first=True)
    key, value = ours.key_value.weight.detach().chunk(2)
    with torch.no_grad():
        if context_dim == DIM:
            theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, key, value]))
        else:
            theirs.q_proj_weight.copy_(ours.query.weight)
            theirs.k_proj_weight.copy_(key)
            theirs.v_proj_weight.copy_(value)
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    return theirs


# ---------------------------------------------------------------- against torch.nn.MultiheadAttention


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_torchs(causal):
    ours, x = self_attention(), torch.randn(3, N, DIM)
    mask = torch.ones(N, N, dtype=torch.bool).triu(1) if causal else None
    expected, expected_weights = torchs(ours)(x, x, x, attn_mask=mask, average_attn_weights=False)
    out, weights = ours(x, causal=causal, return_weights=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(ours(x, causal=causal), expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("context_dim", "tokens"), [(10, 5), (40, 9), (DIM, N)])
def test_cross_attention_is_torchs(context_dim, tokens, causal):
    ours = MultiHeadCrossAttention(DIM, context_dim, HEADS)
    x, context = torch.randn(2, N, DIM), torch.randn(2, tokens, context_dim)
    mask = torch.ones(N, tokens, dtype=torch.bool).triu(1) if causal else None
    expected, expected_weights = torchs(ours, context_dim)(
        x, context, context, attn_mask=mask, average_attn_weights=False
    )
    out, weights = ours(x, context, causal=causal, return_weights=True)
    assert out.shape == x.shape and weights.shape == (2, HEADS, N, tokens)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(ours(x, context, causal=causal), expected)


def test_the_gradients_are_torchs():
    ours, x = self_attention(), torch.randn(2, N, DIM)
    theirs = torchs(ours)
    ours(x).square().sum().backward()
    theirs(x, x, x)[0].square().sum().backward()
    expected = theirs.in_proj_weight.grad
    torch.testing.assert_close(ours.query.weight.grad, expected[:DIM])
    torch.testing.assert_close(ours.key_value.weight.grad, expected[DIM:])


# ---------------------------------------------------------------- the weights


@pytest.mark.parametrize("causal", [False, True])
def test_weights_are_probabilities(causal):
    _, weights = self_attention()(torch.randn(3, N, DIM), causal=causal, return_weights=True)
    assert weights.shape == (3, HEADS, N, N) and bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, HEADS, N))
    assert bool((weights.triu(1) == 0).all()) == causal
    assert not torch.allclose(weights[:, 0], weights[:, 1])  # every head has weights of its own


def test_weights_are_the_softmax_of_scaled_products():
    weights = attention_weights(torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([[3.0, 0, 0, 0], [0, 1, 0, 0]]))
    torch.testing.assert_close(weights, torch.tensor([[3.0, 0.0]]).softmax(-1))  # 2 * 3 / sqrt(4)


# ---------------------------------------------------------------- properties


@pytest.mark.parametrize("changed", range(N))
def test_causal_outputs_do_not_depend_on_later_tokens(changed):
    ours, x = self_attention(), torch.randn(2, N, DIM)
    other = x.clone()
    other[:, changed] += torch.randn(2, DIM)
    before, after = ours(x, causal=True), ours(other, causal=True)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.isclose(before[:, changed:], after[:, changed:]).all(-1).any()
    assert not torch.isclose(ours(x), ours(other)).all(-1).any()  # without the mask every token depends on it


@pytest.mark.parametrize("seed", range(3))
def test_self_attention_is_equivariant_to_order(seed):
    ours, x = self_attention(), torch.randn(2, N, DIM)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(ours(x[:, order]), ours(x)[:, order])


def test_the_order_of_the_context_does_not_matter():
    ours = MultiHeadCrossAttention(DIM, 10, HEADS)
    x, context = torch.randn(2, N, DIM), torch.randn(2, 5, 10)
    torch.testing.assert_close(ours(x, context.flip(1)), ours(x, context))


def test_a_single_context_token_makes_cross_attention_a_constant():
    ours, context = MultiHeadCrossAttention(DIM, 10, HEADS), torch.randn(2, 1, 10)
    one, other = ours(torch.randn(2, N, DIM), context), ours(torch.randn(2, N, DIM), context)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, one[:, :1].expand_as(one))
    assert not torch.allclose(one[0], one[1])  # it is the context that distinguishes them


def test_the_samples_of_a_batch_are_independent():
    ours, x = self_attention(), torch.randn(3, N, DIM)
    torch.testing.assert_close(ours(x)[1:2], ours(x[1:2]))


@pytest.mark.parametrize("heads", [0, 5, 48, -1])
def test_heads_that_do_not_divide_the_channels_are_refused(heads):
    with pytest.raises(ValueError, match=rf"24 channels .* {heads} attention heads"):
        MultiHeadSelfAttention(DIM, heads)
    with pytest.raises(ValueError, match="choose a divisor"):
        MultiHeadCrossAttention(DIM, 10, heads)
