"""Embeddings of the step t, and the null label."""

import math

import torch
from torch import Tensor, nn


def time_embedding(t: Tensor, dim: int, max_period: float = 10_000) -> Tensor:
    """Return the sinusoidal embedding [sin, cos] of integer steps: shape (*t.shape, dim).

    At t = 0 the first half, the sines, is 0, and the second half, the cosines, is 1.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.

    Raises:
        ValueError: dim is odd or less than 2.
    """
    if dim < 2 or dim % 2:
        rule = "an even dimension of at least 2"
        raise ValueError(f"the time embedding needs {rule}, got {dim}")
    radians_per_step = frequencies(dim, max_period).to(t.device)
    angles = t[..., None].float() * radians_per_step  # (*t.shape, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], -1)


def frequencies(dim: int, max_period: float = 10_000) -> Tensor:
    """Return the frequencies of time_embedding in radians per step: (dim / 2,), falling from 1."""
    half = torch.arange(dim // 2, dtype=torch.float32)
    return torch.exp(-math.log(max_period) * half / (dim // 2))


class TimeEmbedding(nn.Module):
    """The sinusoidal embedding of t, followed by two learned layers.

    t of shape (B,) or () gives (B, out_dim) or (out_dim,).

    Args:
        dim: dimension of the sinusoidal embedding, even.
        out_dim: dimension of the output.
        num_timesteps: T.

    Raises:
        ValueError: dim is odd or less than 2; in a call, t is not an integer in 0 .. T-1.
    """

    table: Tensor  # (num_timesteps, dim)

    def __init__(self, dim: int, out_dim: int, num_timesteps: int = 1000) -> None:
        super().__init__()
        table = time_embedding(torch.arange(num_timesteps), dim)
        self.register_buffer("table", table, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(dim, out_dim),
            nn.SiLU(),
            nn.Linear(out_dim, out_dim),
        )

    def forward(self, t: Tensor) -> Tensor:
        """Return the embedding of t (B,) or ()."""
        if t.is_floating_point():
            raise ValueError(f"t must be an integer step, got {t.dtype}")
        # On a GPU, reading t.min() would wait for it, and indexing out of range raises anyway.
        if t.device.type == "cpu" and t.numel():
            low = int(t.min())
            high = int(t.max())
            if low < 0 or high >= len(self.table):
                raise ValueError(f"t must lie in 0..{len(self.table) - 1}, got {low}..{high}")
        return self.layers(self.table[t])


def label_or_null(label: Tensor | None, num_labels: int, like: Tensor) -> Tensor:
    """Return `label`, or for None the null label in the shape of `like`.

    The null label is `num_labels`. With it a conditional network predicts unconditionally, as
    classifier-free guidance needs.

    Args:
        label: shape (B,), or None.
        num_labels: number of labels of the network; 0 for an unconditional one.
        like: shape (B,) or ().

    Raises:
        ValueError: labels for an unconditional network.
    """
    if label is None:
        return torch.full_like(like, num_labels, dtype=torch.long)
    if num_labels == 0:
        raise ValueError("labels were given to a network that was trained without them")
    return label
