"""Parts of image networks and inputs for them: with random weights, or out of a trained network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from images.sets import make_images
from nets.attention import MultiHeadCrossAttention, MultiHeadSelfAttention
from nets.embedding import time_embedding
from nets.unet import (
    LABEL_TOKENS,
    AttentionBlock,
    BottleNeck,
    DownSamplingBlock,
    UNet,
    UpSamplingBlock,
)
from pipeline import Pipeline
from runtime.randomness import generator, integer_seed
from samplers import last
from schedule import NoiseScheduler
from viz.style import label_text

SEED = 0

# Sizes of the blocks with random weights.
SIDE = 32
CHANNELS = 16
COND = 64

# Sizes of the attention with random weights.
POSITIONS = 16
WIDTH = 64
CONTEXT = 6
CONTEXT_WIDTH = 48

UNET_T = 10  # the timestep at which a whole network is drawn on a gradient

# For parts that are not trained: what is random, and what the input is.
RANDOM = {
    "mhsa": "random weights; tokens: embeddings of t = 0 .. 15",
    "mhca": "random weights and context; queries: embeddings of t = 0 .. 15",
    "down": "random weights and condition; input: a gradient",
    "bottleneck": "random weights and condition; input: a gradient",
    "upsample": "random weights and condition; input: gradients",
    "unet": "random weights; input: a gradient",
}

# What to print if a trained network has no such part.
LACKS = {
    "mhsa": "no self-attention (of two heads or more) at its lowest resolution",
    "mhca": "no cross-attention (of two heads or more)",
    "down": "no downsampling block",
    "upsample": "no upsampling block",
}


@dataclass(frozen=True)
class Part:
    """A module and its inputs.

    Attributes:
        module: the part of a network.
        given: its inputs.
        origin: where its weights come from, for titles.
        image: for trained parts, the noisy image (C, H, W) that the network was given.
        grid: for trained parts, the size (h, w) of the map whose pixels are the tokens.
        context: the names of the context tokens.
        x_0: for a whole trained network, its predictions of x_0 (B, C, H, W).
    """

    module: nn.Module
    given: tuple[Tensor | None, ...]
    origin: str = "random weights"
    image: NDArray | None = None
    grid: tuple[int, ...] = ()
    context: list[str] = field(default_factory=list)
    x_0: Tensor | None = None

    def on_gradient(self) -> "Part":
        """Return the same module with a gradient in place of each map that it is given."""
        given = []
        for x in self.given:
            if x is None:
                given.append(None)
            elif x.ndim == 4:
                given.append(gradient(*x.shape[1:]).to(x))
            else:
                given.append(x[:1])
        return replace(self, given=tuple(given), image=None)

    @torch.no_grad()
    def weights(self, causal: bool = False) -> Tensor:
        """Return the attention weights (heads, N, M) of the first image."""
        _, weights = self.module(*self.given, causal=causal, return_weights=True)
        return weights[0].cpu()

    @torch.no_grad()
    def output(self) -> Tensor:
        """Return the output (B, C, H, W); for a downsampling block without the skip."""
        out = self.module(*self.given)
        if isinstance(out, tuple):
            out = out[0]
        return out.cpu()


# ---------------------------------------------------------------- random weights


def random_parts(device: torch.device) -> dict[str, Part]:
    """Return every part by its name, newly initialised; layers that start at zero are random."""
    torch.manual_seed(integer_seed(SEED, "weights"))
    # Embeddings of neighbouring timesteps are similar. Large ones make that visible as a pattern.
    tokens = 3 * time_embedding(torch.arange(POSITIONS), WIDTH)[None]
    context = torch.randn(1, CONTEXT, CONTEXT_WIDTH)
    cond = torch.randn(1, COND)
    fine = gradient(CHANNELS, SIDE, SIDE)
    coarse = gradient(2 * CHANNELS, SIDE // 2, SIDE // 2)
    image = gradient(3, 32, 32)

    modules = {
        "mhsa": MultiHeadSelfAttention(WIDTH, 2),
        "mhca": MultiHeadCrossAttention(WIDTH, CONTEXT_WIDTH, 2),
        "down": DownSamplingBlock(CHANNELS, 2 * CHANNELS, COND),
        "bottleneck": BottleNeck(2 * CHANNELS, COND),
        "upsample": UpSamplingBlock(2 * CHANNELS, CHANNELS, COND),
        "unet": UNet((3, 32, 32), 1000, channels=(32, 64)),
    }
    given = {
        "mhsa": (tokens,),
        "mhca": (tokens, context),
        "down": (fine, cond),
        "bottleneck": (coarse, cond),
        "upsample": (coarse, fine, cond),
        "unet": (image, torch.tensor(UNET_T)),
    }

    context_names = [f"token {i + 1}" for i in range(CONTEXT)]
    parts = {}
    for name, module in modules.items():
        moved = tuple(x.to(device) for x in given[name])
        parts[name] = Part(stirred(module).to(device), moved, RANDOM[name], context=context_names)
    return parts


def stirred(net: nn.Module) -> nn.Module:
    """Give random weights to the layers that start at zero, and return the network.

    Without this, the output of an untrained network is 0.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and not layer.weight.any():
            layer.reset_parameters()
    return net


def gradient(channels: int, height: int, width: int) -> Tensor:
    """Return ramps from -1 to 1, (1, channels, height, width).

    The first channel rises to the right, the others in evenly spaced directions.
    """
    angles = 2 * math.pi * torch.arange(channels)[:, None, None] / channels
    down, right = torch.meshgrid(
        torch.linspace(-1, 1, height),
        torch.linspace(-1, 1, width),
        indexing="ij",
    )
    ramps = angles.cos() * right + angles.sin() * down
    largest = ramps.abs().amax((1, 2), keepdim=True)
    return (ramps / largest)[None]


def stretched(images: Tensor) -> Tensor:
    """Shift and scale each image (B, C, H, W) such that it fills -1 .. 1, for display."""
    low = images.amin((1, 2, 3), keepdim=True)
    high = images.amax((1, 2, 3), keepdim=True)
    return 2 * (images - low) / (high - low).clamp(min=1e-8) - 1


# ---------------------------------------------------------------- a trained network


def trained_parts(pipeline: Pipeline, device: torch.device) -> dict[str, Part]:
    """Return the parts of a trained network by name, with their inputs for a noisy image.

    Parts that the network does not have are missing; LACKS names them.

    Raises:
        ValueError: the network takes points.
    """
    if not pipeline.of_images:
        raise ValueError(
            "this is a checkpoint of points, but only networks for images can be drawn",
        )
    net = pipeline.net
    if not isinstance(net, UNet):
        raise ValueError("only the parts of moonwalk's UNet can be drawn, and this network is of diffusers")
    x_0, label = example(pipeline, device)
    t = half_noised(pipeline.scheduler)
    x_t = noised(pipeline.scheduler, x_0, t)
    modules = _modules(net)
    given = inputs(net, modules, x_t, t.to(device), label)

    moment = f"t = {int(t)} of {pipeline.scheduler.num_timesteps}"
    origin = f"trained weights, {_condition(pipeline, label)}{moment}"
    label_tokens = [f"label token {i + 1}" for i in range(LABEL_TOKENS)]
    lowest_map = given["bottleneck"][0]
    parts = {}
    for name, module in modules.items():
        parts[name] = Part(
            module,
            given[name],
            origin=origin,
            image=x_t[0].cpu().numpy(),
            grid=tuple(lowest_map.shape[2:]),
            context=[*label_tokens, "time"],
        )
    parts["unet"] = _whole(pipeline, x_0, label)
    return parts


def _modules(net: UNet) -> dict[str, nn.Module]:
    """Return the modules to draw by name, those that the network has."""
    lowest = net.bottleneck.stage
    found = {
        "mhsa": _last_attention(lowest.attention),
        "mhca": _last_attention(lowest.cross),
        "down": net.down[0] if len(net.down) else None,
        "bottleneck": net.bottleneck,
        "upsample": net.up[-1] if len(net.up) else None,
    }
    return {name: module for name, module in found.items() if module is not None}


def _last_attention(blocks: nn.ModuleList) -> nn.Module | None:
    """Return the last attention with at least two heads, which is how many are drawn, or None."""
    last = None
    for block in blocks:
        if isinstance(block, AttentionBlock) and block.attention.heads > 1:
            last = block.attention
    return last


@torch.no_grad()
def inputs(
    net: nn.Module,
    modules: Mapping[str, nn.Module],
    *given: Tensor | None,
) -> dict[str, tuple[Tensor, ...]]:
    """Run net(*given) and return the inputs of each of these modules."""
    caught: dict[str, tuple[Tensor, ...]] = {}
    hooks = []
    for name, module in modules.items():
        hook = module.register_forward_pre_hook(partial(_catch, caught, name))
        hooks.append(hook)
    net(*given)
    for hook in hooks:
        hook.remove()
    return caught


def _catch(
    caught: dict[str, tuple[Tensor, ...]],
    name: str,
    module: nn.Module,
    args: tuple[Tensor, ...],
) -> None:
    """Keep the inputs of a module; a hook that PyTorch calls before the module runs."""
    caught[name] = args


def example(pipeline: Pipeline, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return a clean image (1, C, H, W) and, for a conditional model, its label (1,).

    The image is of the model's data set. If that cannot be read or has changed, it is a sample of
    the model.
    """
    try:
        x_0, label = _example_of_data_set(pipeline)
    except (OSError, ValueError) as error:
        print(
            f"using a sample in place of an image of the data set, which cannot be read here: {error}",
        )
        label = pipeline.labels(None, 1)
        x_0 = last(pipeline.states(1, labels=label, seed=SEED))
    if label is not None:
        label = label.to(device)
    return x_0.to(device), label


def _example_of_data_set(pipeline: Pipeline) -> tuple[Tensor, Tensor | None]:
    """Return an image (1, C, H, W) of the data set, and its label (1,) if the model takes one.

    Raises:
        OSError, ValueError: the data set cannot be read, or does not fit the model.
    """
    data = make_images(n_samples=1, seed=SEED, **pipeline.config["dataset"])
    other_classes = pipeline.classes and data.classes != pipeline.classes
    if data.dims != pipeline.dims or other_classes:
        raise ValueError("its sizes or classes have changed")
    row = data[:1]
    return row[0], row[-1] if pipeline.classes else None


def half_noised(scheduler: NoiseScheduler) -> Tensor:
    """Return the timestep t, shape (), at which signal and noise are equally strong."""
    return scheduler.log_snr.abs().argmin()


def noised(scheduler: NoiseScheduler, x_0: Tensor, t: Tensor) -> Tensor:
    """Return x_t of images x_0 (B, C, H, W), with the same noise for every row."""
    eps = torch.randn(x_0.shape[1:], generator=generator(SEED, "noise"))
    eps = eps.expand(len(x_0), -1, -1, -1)
    return scheduler.add_noise(x_0, t.to(x_0.device), eps.to(x_0.device))


@torch.no_grad()
def _whole(pipeline: Pipeline, x_0: Tensor, label: Tensor | None) -> Part:
    """Return the network on a gradient and on one image at four noise levels, with predictions.

    Args:
        pipeline: the trained network.
        x_0: a clean image (1, C, H, W).
        label: its label (1,), if the model is conditional.
    """
    final = pipeline.scheduler.num_timesteps - 1
    t = torch.tensor(
        [min(UNET_T, final), final // 4, final // 2, 3 * final // 4],
        device=x_0.device,
    )
    ramp = gradient(*x_0.shape[1:]).to(x_0)
    noisy = noised(pipeline.scheduler, x_0.expand(4, -1, -1, -1), t)
    x_t = torch.cat([ramp, noisy])
    t = torch.cat([t[:1], t])
    if label is not None:
        label = label.expand(5)
    predicted = pipeline.denoiser()(x_t, t, label).x_0
    target = pipeline.config["model"]["prediction"]
    origin = f"trained weights, {_condition(pipeline, label)}the output is {target}"
    return Part(pipeline.net, (x_t, t, label), origin, x_0=predicted.cpu())


def _condition(pipeline: Pipeline, label: Tensor | None) -> str:
    """Return the label in words for a title; empty without a label."""
    if label is None:
        return ""
    return f"{label_text(pipeline.classes, label[0])}, "
