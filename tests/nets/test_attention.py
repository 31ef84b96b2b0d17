"""Attention against torch's own, and properties that hold for all weights."""

import pytest
import torch
from torch import nn

from nets.attention import MultiHeadCrossAttention, MultiHeadSelfAttention, attention_weights

DIM, HEADS, N = 24, 4, 7


def self_attention():
    """Our self-attention, with weights so large that the attention is far from uniform."""
    ours = MultiHeadSelfAttention(DIM, HEADS)
    nn.init.normal_(ours.query.weight, std=0.5)
    return ours


def torch_attention(ours, context_dim=DIM):
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


every_mask = pytest.mark.parametrize("causal", [False, True])
every_context = pytest.mark.parametrize(("context_dim", "tokens"), [(10, 5), (40, 9), (DIM, N)])


def self_attention_of_torch(ours, x, causal):
    """Output and weights of torch's self-attention with our weights."""
    mask = torch.ones(N, N, dtype=torch.bool).triu(1) if causal else None
    return torch_attention(ours)(x, x, x, attn_mask=mask, average_attn_weights=False)


def cross_attention_of_torch(ours, x, context, causal):
    """Output and weights of torch's cross-attention with our weights."""
    tokens, context_dim = context.shape[1:]
    mask = torch.ones(N, tokens, dtype=torch.bool).triu(1) if causal else None
    theirs = torch_attention(ours, context_dim)
    return theirs(x, context, context, attn_mask=mask, average_attn_weights=False)


@every_mask
def test_self_attention_gives_the_output_of_torch(causal):
    ours, x = self_attention(), torch.randn(3, N, DIM)
    expected, _ = self_attention_of_torch(ours, x, causal)
    torch.testing.assert_close(ours(x, causal=causal), expected)


@every_mask
def test_self_attention_gives_the_output_and_weights_of_torch(causal):
    ours, x = self_attention(), torch.randn(3, N, DIM)
    expected, expected_weights = self_attention_of_torch(ours, x, causal)
    out, weights = ours(x, causal=causal, return_weights=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)


@every_mask
@every_context
def test_cross_attention_gives_the_output_of_torch(context_dim, tokens, causal):
    ours = MultiHeadCrossAttention(DIM, context_dim, HEADS)
    x, context = torch.randn(2, N, DIM), torch.randn(2, tokens, context_dim)
    expected, _ = cross_attention_of_torch(ours, x, context, causal)
    torch.testing.assert_close(ours(x, context, causal=causal), expected)


@every_mask
@every_context
def test_cross_attention_gives_the_output_and_weights_of_torch(context_dim, tokens, causal):
    ours = MultiHeadCrossAttention(DIM, context_dim, HEADS)
    x, context = torch.randn(2, N, DIM), torch.randn(2, tokens, context_dim)
    expected, expected_weights = cross_attention_of_torch(ours, x, context, causal)
    out, weights = ours(x, context, causal=causal, return_weights=True)
    assert out.shape == x.shape
    assert weights.shape == (2, HEADS, N, tokens)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)


def test_self_attention_gives_the_gradients_of_torch():
    ours, x = self_attention(), torch.randn(2, N, DIM)
    theirs = torch_attention(ours)
    ours(x).square().sum().backward()
    theirs(x, x, x)[0].square().sum().backward()
    expected = theirs.in_proj_weight.grad
    torch.testing.assert_close(ours.query.weight.grad, expected[:DIM])
    torch.testing.assert_close(ours.key_value.weight.grad, expected[DIM:])


# ---------------------------------------------------------------- the weights


def weights_of(causal):
    _, weights = self_attention()(torch.randn(3, N, DIM), causal=causal, return_weights=True)
    return weights


@every_mask
def test_weights_are_probabilities(causal):
    weights = weights_of(causal)
    assert weights.shape == (3, HEADS, N, N)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, HEADS, N))


@every_mask
def test_weights_of_later_tokens_are_0_with_the_causal_mask_only(causal):
    assert bool((weights_of(causal).triu(1) == 0).all()) == causal


@every_mask
def test_every_head_has_weights_of_its_own(causal):
    weights = weights_of(causal)
    assert not torch.allclose(weights[:, 0], weights[:, 1])


def test_weights_are_the_softmax_of_scaled_products():
    weights = attention_weights(torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([[3.0, 0, 0, 0], [0, 1, 0, 0]]))
    torch.testing.assert_close(weights, torch.tensor([[3.0, 0.0]]).softmax(-1))  # 2 * 3 / sqrt(4)


# ---------------------------------------------------------------- properties


every_token = pytest.mark.parametrize("changed", range(N))


def before_and_after(changed, causal):
    """Outputs (2, N, DIM) for an input, and for the same input with another token at this place."""
    ours, x = self_attention(), torch.randn(2, N, DIM)
    other = x.clone()
    other[:, changed] += torch.randn(2, DIM)
    return ours(x, causal=causal), ours(other, causal=causal)


@every_token
def test_causal_outputs_do_not_depend_on_later_tokens(changed):
    before, after = before_and_after(changed, causal=True)
    assert torch.equal(before[:, :changed], after[:, :changed])


@every_token
def test_causal_outputs_depend_on_every_earlier_token(changed):
    before, after = before_and_after(changed, causal=True)
    assert not torch.isclose(before[:, changed:], after[:, changed:]).all(-1).any()


@every_token
def test_without_the_causal_mask_every_output_depends_on_every_token(changed):
    before, after = before_and_after(changed, causal=False)
    assert not torch.isclose(before, after).all(-1).any()


@pytest.mark.parametrize("seed", range(3))
def test_self_attention_is_equivariant_to_order(seed):
    ours, x = self_attention(), torch.randn(2, N, DIM)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(ours(x[:, order]), ours(x)[:, order])


def test_the_order_of_the_context_does_not_matter():
    ours = MultiHeadCrossAttention(DIM, 10, HEADS)
    x, context = torch.randn(2, N, DIM), torch.randn(2, 5, 10)
    torch.testing.assert_close(ours(x, context.flip(1)), ours(x, context))


def test_with_a_single_context_token_the_output_does_not_depend_on_the_input():
    ours, context = MultiHeadCrossAttention(DIM, 10, HEADS), torch.randn(2, 1, 10)
    one, other = ours(torch.randn(2, N, DIM), context), ours(torch.randn(2, N, DIM), context)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, one[:, :1].expand_as(one))


def test_with_a_single_context_token_the_output_depends_on_the_context():
    ours, context = MultiHeadCrossAttention(DIM, 10, HEADS), torch.randn(2, 1, 10)
    one = ours(torch.randn(2, N, DIM), context)
    assert not torch.allclose(one[0], one[1])


def test_the_samples_of_a_batch_are_independent():
    ours, x = self_attention(), torch.randn(3, N, DIM)
    torch.testing.assert_close(ours(x)[1:2], ours(x[1:2]))


@pytest.mark.parametrize("heads", [0, 5, 48, -1])
def test_heads_of_self_attention_that_do_not_divide_the_channels_are_refused(heads):
    with pytest.raises(ValueError, match=rf"24 channels .* {heads} attention heads"):
        MultiHeadSelfAttention(DIM, heads)


@pytest.mark.parametrize("heads", [0, 5, 48, -1])
def test_heads_of_cross_attention_that_do_not_divide_the_channels_are_refused(heads):
    with pytest.raises(ValueError, match="choose a divisor"):
        MultiHeadCrossAttention(DIM, 10, heads)
