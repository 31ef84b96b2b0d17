"""Networks for points, and every network by its name.

All of them are called `net(x_t, t, label=None)`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.embedding import label_or_null, time_embedding
from nets.unet import UNet
from registry import implementation
from registry.network_rows import ADOPTED, NETWORKS
from registry.plugins import called, is_of_plugin


class MLP(nn.Module):
    """A residual multilayer perceptron for points: x_t (B, d), t (B,) or () -> (B, d).

    Besides x, its inputs are sin and cos of x at the frequencies 1, 2, 4 ... Without them the
    network smooths thin structures.

    Source of the frequencies: Tancik et al. 2020 (arXiv 2006.10739).

    Args:
        dims: (d,).
        num_timesteps: T.
        num_labels: number of labels; 0 for an unconditional network.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        frequencies: number of frequencies.
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
        powers = 2.0 ** torch.arange(frequencies)
        times = time_embedding(torch.arange(num_timesteps), self.TIME_DIM)
        self.register_buffer("frequencies", powers, persistent=False)
        self.register_buffer("times", times, persistent=False)

        self.inputs = nn.Linear(d * (1 + 2 * frequencies), hidden, bias=False)
        self.time = nn.Linear(self.TIME_DIM, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(layers))
        self.outputs = nn.Linear(hidden, d)
        nn.init.zeros_(self.outputs.weight)  # of the outputs that ignore the input, 0 is the best
        self.label = nn.Embedding(num_labels + 1, hidden) if num_labels else None

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the output (B, d); label (B,) or None."""
        angles = (x_t[:, :, None] * self.frequencies).flatten(1)  # (B, d * frequencies)
        features = torch.cat([x_t, angles.sin(), angles.cos()], 1)

        # F.embedding is five times faster here than indexing.
        condition = self.time(F.embedding(t, self.times))  # (B, hidden), or (hidden,) for t ()
        label = label_or_null(label, self.num_labels, t)
        if self.label is not None:
            condition = condition + self.label(label)

        # addmm(a, b, c) is a + b c in one call. addmm_ writes the sum into a, which is faster where
        # no gradient needs the old a. For bf16 (runtime.device) only addmm converts the weights.
        h = torch.addmm(condition, features, self.inputs.weight.T)  # (B, hidden)
        in_bf16 = h.dtype != x_t.dtype
        can_overwrite = not torch.is_grad_enabled() and not in_bf16
        add = Tensor.addmm_ if can_overwrite else torch.addmm
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            h = add(h, F.silu(h), layer.weight.T)
        return self.outputs(F.silu(h))


class LinearModel(nn.Module):
    """One affine map for each step and label: x_t (B, d), t (B,) or () -> (B, d).

    Trained, it is the best linear denoiser. Its samples are Gaussian, with the mean and covariance
    of the data. It shows why networks are needed.

    Args:
        dims: (d,).
        num_timesteps: T.
        num_labels: number of labels; 0 for an unconditional model.
    """

    def __init__(self, dims: tuple[int, ...], num_timesteps: int, num_labels: int = 0) -> None:
        super().__init__()
        (d,) = dims
        self.num_labels = num_labels
        self.weight = nn.Parameter(torch.zeros(num_timesteps, num_labels + 1, d, d))
        self.bias = nn.Parameter(torch.zeros(num_timesteps, num_labels + 1, d))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the output (B, d); label (B,) or None."""
        label = label_or_null(label, self.num_labels, t)
        product = self.weight[t, label] @ x_t[:, :, None]  # (B, d, 1)
        return product[:, :, 0] + self.bias[t, label]


# ---------------------------------------------------------------- networks by name


def build_model(
    name: str,
    dims: tuple[int, ...],
    num_timesteps: int,
    num_labels: int = 0,
    **options: Any,
) -> nn.Module:
    """Return a new network of that name.

    Args:
        name: a key of registry.network_rows.NETWORKS or ADOPTED.
        dims: the shape of one datum: (d,) for points, (C, H, W) for images.
        num_timesteps: T.
        num_labels: labels are 0 .. num_labels-1; 0 for an unconditional network.
        options: the options of the network, such as `hidden` or `channels`.

    Raises:
        ValueError: no such network, or one that does not take such data or options.
    """
    if name not in ADOPTED:
        check_model_takes(name, images=len(dims) == 3)
    make = implementation({**NETWORKS, **ADOPTED}[name])
    try:
        net = make(dims, num_timesteps, num_labels, **options)
    except TypeError as error:
        if is_of_plugin(error):
            raise
        raise ValueError(f"model={name} does not take these options: {error}") from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"{called('network', name)} returned {type(net).__name__} and no torch.nn.Module")
    return net


def check_model_takes(name: str, images: bool) -> None:
    """Check that a network of that name exists and takes images, or points.

    Raises:
        ValueError: no such network, or one for the other kind of data.
    """
    if name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise ValueError(f"model {name!r} is unknown; choose one of {known}")
    if NETWORKS[name].for_images == images:
        return
    kind = "images" if images else "points"
    advice = "use model=unet" if images else "use model=mlp"
    raise ValueError(f"model={name} is not for {kind}, which this data set holds: {advice}")


def hidden_matrices(net: nn.Module) -> list[Tensor]:
    """Return the weights between hidden layers, which Muon may train.

    For a UNet these include convolutions. Embeddings, the first and the last layer are not among
    them. For other networks the list is empty.
    """
    if isinstance(net, MLP):
        return [layer.weight for layer in net.layers if isinstance(layer, nn.Linear)]
    if isinstance(net, UNet):
        weights = []
        for part in (net.down, net.bottleneck, net.up):
            weights += [weight for weight in part.parameters() if weight.ndim > 1]
        return weights
    return []
