"""Epsilon-networks for points, all called `net(x_t, t, label=None)`, and the time embedding."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def time_embedding(t: Tensor, dim: int, max_period: float = 10_000) -> Tensor:
    """Sinusoidal embedding [sin, cos] of integer steps: shape (*t.shape, dim) (Vaswani et al. 2017, section 3.5).

    At t = 0 the sin half is 0 and the cos half is 1.

    Raises:
        ValueError: dim is odd or not positive.
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"the time embedding needs an even dimension of at least 2, got {dim}")
    half = torch.arange(dim // 2, device=t.device, dtype=torch.float32)
    frequencies = torch.exp(-math.log(max_period) * half / (dim // 2))
    angles = t[..., None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


class MLP(nn.Module):
    """A residual multilayer perceptron for points: x_t (B, d), t (B,) or () -> (B, d).

    Beside x it sees sin and cos of x at frequencies 1, 2, 4, ...: without them thin structures come out blurred
    (Tancik et al. 2020, arXiv 2006.10739).
    """

    TIME_DIM = 32

    def __init__(
        self, dims: tuple[int, ...], num_timesteps: int, *, hidden: int, layers: int, frequencies: int
    ) -> None:
        super().__init__()
        (d,) = dims
        self.register_buffer("frequencies", 2.0 ** torch.arange(frequencies), persistent=False)
        self.register_buffer("times", time_embedding(torch.arange(num_timesteps), self.TIME_DIM), persistent=False)
        self.inputs = nn.Linear(d * (1 + 2 * frequencies), hidden, bias=False)
        self.time = nn.Linear(self.TIME_DIM, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(layers))
        self.outputs = nn.Linear(hidden, d)
        nn.init.zeros_(self.outputs.weight)  # starts as the best guess that ignores the data

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        angles = (x_t[:, :, None] * self.frequencies).flatten(1)
        features = torch.cat([x_t, angles.sin(), angles.cos()], 1)
        # addmm(a, b, c) is a + b c in one call. Where t has shape (), one row of time serves the whole batch.
        h = torch.addmm(self.time(self.times[t]), features, self.inputs.weight.T)
        for layer in self.layers:
            h = torch.addmm(h, F.silu(h), layer.weight.T)
        return self.outputs(F.silu(h))


class LinearModel(nn.Module):
    """One affine map per time step: x_t (B, d), t (B,) or () -> (B, d). The best linear denoiser, once trained.

    What it makes is the Gaussian with the data's mean and covariance: a lesson in why networks are needed.
    """

    def __init__(self, dims: tuple[int, ...], num_timesteps: int) -> None:
        super().__init__()
        (d,) = dims
        self.weight = nn.Parameter(torch.zeros(num_timesteps, d, d))
        self.bias = nn.Parameter(torch.zeros(num_timesteps, d))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return (self.weight[t] @ x_t[:, :, None])[:, :, 0] + self.bias[t]


MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "linear": LinearModel}


def build_model(name: str, dims: tuple[int, ...], num_timesteps: int, **options: Any) -> nn.Module:
    """The network of that name for data of shape (B, *dims).

    Raises:
        ValueError: no such network, or it does not take such data or options.
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r} is unknown; choose one of {', '.join(MODELS)}")
    if len(dims) != 1:
        raise ValueError(f"model={name} is for points of shape (B, d); this data has shape (B, {str(dims)[1:-1]})")
    try:
        return MODELS[name](dims, num_timesteps, **options)
    except TypeError as error:
        raise ValueError(f"model={name} does not take these options: {error}") from error
