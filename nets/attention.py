"""Multi-head attention between tokens (Vaswani et al. 2017, arXiv 1706.03762, section 3.2).

Softmax over a single key is 1 whatever the query is, so with a context of one token cross-attention does not depend on
x: give it several.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadCrossAttention(nn.Module):
    """Queries from x (B, N, dim), keys and values from context (B, M, context_dim) -> (B, N, dim).

    Raises:
        ValueError: dim is not divisible by heads.
    """

    def __init__(self, dim: int, context_dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"{dim} channels cannot be divided among {heads} attention heads: choose a divisor")
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(context_dim, 2 * dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, context: Tensor, *, causal: bool = False, return_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """With `return_weights` also the attention weights (B, heads, N, M), whose rows sum to 1."""
        q = self._split(self.query(x))  # (B, heads, N, dim / heads)
        k, v = (self._split(part) for part in self.key_value(context).chunk(2, -1))  # (B, heads, M, dim / heads)
        if return_weights:
            weights = attention_weights(q, k, causal)  # (B, heads, N, M)
            return self._merged(weights @ v), weights
        return self._merged(attend(q, k, v, causal))

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, heads, N, dim / heads)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _merged(self, tokens: Tensor) -> Tensor:
        """(B, heads, N, dim / heads) -> (B, N, dim)."""
        return self.output(tokens.transpose(1, 2).flatten(2))


class MultiHeadSelfAttention(MultiHeadCrossAttention):
    """Cross-attention whose context is x itself: (B, N, dim) -> (B, N, dim).

    With `causal`, no token attends to those after it.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, dim, heads)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # there is no other context
        self, x: Tensor, *, causal: bool = False, return_weights: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        return super().forward(x, x, causal=causal, return_weights=return_weights)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """attention_weights(q, k) @ v (..., N, d), by a kernel that never holds the N x M weights in memory.

    In fp32 on CPUs, also where products are in bf16: torch's gradient in bf16 takes four times as long there.
    """
    if not q.is_cpu:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.to(wide), k.to(wide), v.to(wide), is_causal=causal)


def attention_weights(q: Tensor, k: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d)) (eq. 1): q (..., N, d), k (..., M, d) -> (..., N, M)."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., N, M)
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)  # (N, M)
        scores = scores.masked_fill(future, -math.inf)
    return scores.softmax(-1)
