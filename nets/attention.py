"""Multi-head attention between tokens.

Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadCrossAttention(nn.Module):
    """Queries from x (B, N, dim), keys and values from a context (B, M, context_dim).

    The output has shape (B, N, dim). With a context of a single token, M = 1, the softmax over one
    key is always 1. The output then does not depend on x, so a context needs several tokens.

    Args:
        dim: channels of x, divisible by `heads`.
        context_dim: channels of the context.
        heads: number of attention heads.

    Raises:
        ValueError: dim is not divisible by heads.
    """

    def __init__(self, dim: int, context_dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            problem = f"{dim} channels cannot be divided among {heads} attention heads"
            raise ValueError(f"{problem}: choose a divisor")
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(context_dim, 2 * dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        *,
        causal: bool = False,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the output (B, N, dim).

        With `return_weights`, also return the attention weights (B, heads, N, M), whose rows sum to
        1. With `causal`, token n of x attends to tokens 0 .. n of the context only.
        """
        keys, values = self.key_value(context).chunk(2, -1)  # (B, M, dim) each
        q = self._split_heads(self.query(x))  # (B, heads, N, dim / heads)
        k = self._split_heads(keys)  # (B, heads, M, dim / heads)
        v = self._split_heads(values)
        if return_weights:
            weights = attention_weights(q, k, causal)  # (B, heads, N, M)
            return self._merge_heads(weights @ v), weights
        return self._merge_heads(attend(q, k, v, causal))

    def _split_heads(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, heads, N, dim / heads)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _merge_heads(self, tokens: Tensor) -> Tensor:
        """(B, heads, N, dim / heads) -> (B, N, dim), through the output layer."""
        return self.output(tokens.transpose(1, 2).flatten(2))


class MultiHeadSelfAttention(MultiHeadCrossAttention):
    """Cross-attention whose context is x itself: (B, N, dim) -> (B, N, dim).

    Args:
        dim: channels of x, divisible by `heads`.
        heads: number of attention heads.

    Raises:
        ValueError: dim is not divisible by heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, dim, heads)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # there is no other context
        self,
        x: Tensor,
        *,
        causal: bool = False,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the output (B, N, dim); options as MultiHeadCrossAttention.forward."""
        return super().forward(x, x, causal=causal, return_weights=return_weights)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Return attention_weights(q, k) @ v without holding the N x M weights in memory.

    On CPUs the computation is at least in fp32, also under autocast to bf16. There torch's gradient
    in bf16 takes four times as long.

    Args:
        q: shape (..., N, d).
        k, v: shape (..., M, d).
        causal: token n attends to tokens 0 .. n only.

    Returns:
        Shape (..., N, d).
    """
    if not q.is_cpu:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    dtype = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(
            q.to(dtype),
            k.to(dtype),
            v.to(dtype),
            is_causal=causal,
        )


def attention_weights(q: Tensor, k: Tensor, causal: bool = False) -> Tensor:
    """Return softmax(q k^T / sqrt(d)), eq. 1: q (..., N, d), k (..., M, d) -> (..., N, M).

    With `causal`, the weights of token n on tokens after n are 0.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if causal:
        is_later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(is_later, -math.inf)
    return scores.softmax(-1)
