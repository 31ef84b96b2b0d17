"""Epsilon-networks for points, all called `net(x_t, t, label=None)`, and every network by its name."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.embedding import label_or_null, time_embedding
from nets.unet import UNet


class MLP(nn.Module):
    """A residual multilayer perceptron for points: x_t (B, d), t (B,) or () -> (B, d).

    Its inputs are x and sin and cos of x at frequencies 1, 2, 4, ...: without those, thin structures come out blurred
    (Tancik et al. 2020, arXiv 2006.10739).
    """

    TIME_DIM = 32
    frequencies: Tensor
    times: Tensor

    def __init__(
        self,
        dims: tuple[int, ...],
        num_timesteps: int,
        num_labels: int = 0,
        *,
        hidden: int,
        layers: int,
        frequencies: int,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        (d,) = dims
        self.register_buffer("frequencies", 2.0 ** torch.arange(frequencies), persistent=False)
        self.register_buffer("times", time_embedding(torch.arange(num_timesteps), self.TIME_DIM), persistent=False)
        self.inputs = nn.Linear(d * (1 + 2 * frequencies), hidden, bias=False)
        self.time = nn.Linear(self.TIME_DIM, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(layers))
        self.outputs = nn.Linear(hidden, d)
        nn.init.zeros_(self.outputs.weight)  # the best output that ignores the input
        self.label = nn.Embedding(num_labels + 1, hidden) if num_labels else None

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        angles = (x_t[:, :, None] * self.frequencies).flatten(1)  # (B, d * frequencies)
        features = torch.cat([x_t, angles.sin(), angles.cos()], 1)  # (B, d * (1 + 2 * frequencies))
        # addmm(a, b, c) is a + b c in one call. Where t has shape (), one row of time serves the whole batch.
        condition = self.time(F.embedding(t, self.times))  # (B, hidden) or (hidden,); indexing is five times slower
        label = label_or_null(label, self.num_labels, t)
        if self.label is not None:
            condition = condition + self.label(label)
        h = torch.addmm(condition, features, self.inputs.weight.T)  # (B, hidden)
        # In place where no gradient needs the old h; in bf16 (runtime.device) torch.addmm alone converts the weights.
        add = torch.addmm if torch.is_grad_enabled() or h.dtype != x_t.dtype else Tensor.addmm_
        for layer in self.layers:
            h = add(h, F.silu(h), layer.weight.T)  # pyright: ignore[reportArgumentType]  # all are nn.Linear
        return self.outputs(F.silu(h))


class LinearModel(nn.Module):
    """One affine map per time step and label: x_t (B, d), t (B,) or () -> (B, d). Trained, the best linear denoiser.

    Its samples are Gaussian, with the data's mean and covariance: a lesson in why networks are needed.
    """

    def __init__(self, dims: tuple[int, ...], num_timesteps: int, num_labels: int = 0) -> None:
        super().__init__()
        (d,) = dims
        self.num_labels = num_labels
        self.weight = nn.Parameter(torch.zeros(num_timesteps, num_labels + 1, d, d))
        self.bias = nn.Parameter(torch.zeros(num_timesteps, num_labels + 1, d))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        label = label_or_null(label, self.num_labels, t)
        return (self.weight[t, label] @ x_t[:, :, None])[:, :, 0] + self.bias[t, label]


MODELS: dict[str, type[nn.Module]] = {"mlp": MLP, "linear": LinearModel, "unet": UNet, "unet_small": UNet}


def build_model(name: str, dims: tuple[int, ...], num_timesteps: int, num_labels: int = 0, **options: Any) -> nn.Module:
    """The network of that name for data of shape (B, *dims) with labels 0 .. num_labels-1 (0: unconditional).

    Raises:
        ValueError: no such network, or it does not take such data or options.
    """
    check_takes(name, images=len(dims) == 3)
    try:
        return MODELS[name](dims, num_timesteps, num_labels, **options)
    except TypeError as error:
        raise ValueError(f"model={name} does not take these options: {error}") from error


def hidden_matrices(net: nn.Module) -> list[Tensor]:
    """The weights between hidden layers, which Muon may train; of a UNet, convolutions too.

    The first and the last layer and the embeddings keep AdamW; other networks have none or keep theirs.
    """
    if isinstance(net, MLP):
        return [layer.weight for layer in net.layers if isinstance(layer, nn.Linear)]
    if isinstance(net, UNet):
        inner = (net.down, net.bottleneck, net.up)
        return [weight for part in inner for weight in part.parameters() if weight.ndim > 1]
    return []


def check_takes(name: str, images: bool) -> None:
    """Raises ValueError if there is no such network, or if it takes points and the data is images, or vice versa."""
    if name not in MODELS:
        raise ValueError(f"model {name!r} is unknown; choose one of {', '.join(MODELS)}")
    if (MODELS[name] is UNet) != images:
        have, use = ("images", "unet") if images else ("points", "mlp")
        raise ValueError(f"model={name} is not for {have}, which this data set holds: use model={use}")
