"""Conditioning on the step and the label: the sinusoidal time embedding, a learned one, and the null label."""

import math

import torch
from torch import Tensor, nn


def time_embedding(t: Tensor, dim: int, max_period: float = 10_000) -> Tensor:
    """Sinusoidal embedding [sin, cos] of integer steps: shape (*t.shape, dim) (Vaswani et al. 2017, section 3.5).

    At t = 0 the sin half is 0 and the cos half is 1.

    Raises:
        ValueError: dim is odd or less than 2.
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"the time embedding needs an even dimension of at least 2, got {dim}")
    angles = t[..., None].float() * frequencies(dim, max_period).to(t.device)  # (*t.shape, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], -1)


def frequencies(dim: int, max_period: float = 10_000) -> Tensor:
    """Of the sines and cosines of time_embedding, in radians per step: (dim / 2,), falling from 1."""
    half = torch.arange(dim // 2, dtype=torch.float32)
    return torch.exp(-math.log(max_period) * half / (dim // 2))


class TimeEmbedding(nn.Module):
    """The sinusoidal embedding of t (B,) or () through two learned layers: (B, out_dim) or (out_dim,).

    Raises:
        ValueError: an odd dim, or a t that is not an integer step in 0 .. num_timesteps-1.
    """

    table: Tensor  # (num_timesteps, dim)

    def __init__(self, dim: int, out_dim: int, num_timesteps: int = 1000) -> None:
        super().__init__()
        self.register_buffer("table", time_embedding(torch.arange(num_timesteps), dim), persistent=False)
        self.layers = nn.Sequential(nn.Linear(dim, out_dim), nn.SiLU(), nn.Linear(out_dim, out_dim))

    def forward(self, t: Tensor) -> Tensor:
        if t.is_floating_point():
            raise ValueError(f"t must be an integer step, got {t.dtype}")
        # Only on the CPU: reading a value on a GPU would wait for it, and indexing out of range raises there anyway.
        if t.device.type == "cpu" and t.numel() and not 0 <= int(t.min()) <= int(t.max()) < len(self.table):
            raise ValueError(f"t must lie in 0..{len(self.table) - 1}, got {int(t.min())}..{int(t.max())}")
        return self.layers(self.table[t])


def label_or_null(label: Tensor | None, num_labels: int, like: Tensor) -> Tensor:
    """Labels (B,), or for None the null label `num_labels`, in the shape of `like` (guidance steers away from it).

    Raises:
        ValueError: labels for an unconditional network (num_labels is 0).
    """
    if label is None:
        return torch.full_like(like, num_labels, dtype=torch.long)
    if num_labels == 0:
        raise ValueError("labels were given to a network that was trained without them")
    return label
