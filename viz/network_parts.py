"""Parts of networks for images and their inputs: with random weights, or taken from a trained network."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from images.sets import make_images
from nets.attention import MultiHeadCrossAttention, MultiHeadSelfAttention
from nets.embedding import time_embedding
from nets.unet import LABEL_TOKENS, AttentionBlock, BottleNeck, DownSamplingBlock, UNet, UpSamplingBlock
from pipeline import Pipeline
from runtime.randomness import generator, integer_seed
from samplers import last
from schedule import NoiseScheduler

SEED = 0
SIDE, CHANNELS, COND = 32, 16, 64  # of the blocks with random weights
POSITIONS, WIDTH, CONTEXT, CONTEXT_WIDTH = 16, 64, 6, 48  # of the attention with random weights
UNET_T = 10
# of a part that is not trained: what is random, and what it is given
RANDOM = {
    "mhsa": "random weights; tokens: embeddings of t = 0 .. 15",
    "mhca": "random weights and context; queries: embeddings of t = 0 .. 15",
    "down": "random weights and condition; input: a gradient",
    "bottleneck": "random weights and condition; input: a gradient",
    "upsample": "random weights and condition; input: gradients",
    "unet": "random weights; input: a gradient",
}
# what to print when a trained network lacks a part
LACKS = {
    "mhsa": "no self-attention (of two heads or more) at its lowest resolution",
    "mhca": "no cross-attention (of two heads or more)",
    "down": "no downsampling block",
    "upsample": "no upsampling block",
}


@dataclass(frozen=True)
class Part:
    """A module and its inputs `given`.

    origin: where its weights come from, for titles. For a trained one also the noisy image (C, H, W) that the network
    was given, the size `grid` of the map whose pixels are the tokens, and the names of the context tokens; for a whole
    network its predictions of x_0 (B, C, H, W).
    """

    module: nn.Module
    given: tuple[Tensor | None, ...]
    origin: str = "random weights"
    image: NDArray | None = None
    grid: tuple[int, ...] = ()
    context: list[str] = field(default_factory=list)
    x_0: Tensor | None = None

    def on_gradient(self) -> "Part":
        """The same module with a simple gradient in place of each map that it is given."""
        given = tuple(
            gradient(*x.shape[1:]).to(x) if x is not None and x.ndim == 4 else None if x is None else x[:1]
            for x in self.given
        )
        return replace(self, given=given, image=None)

    @torch.no_grad()
    def weights(self, causal: bool = False) -> Tensor:
        """Attention weights (heads, N, M) of the first image."""
        return self.module(*self.given, causal=causal, return_weights=True)[1][0].cpu()

    @torch.no_grad()
    def output(self) -> Tensor:
        """The output (B, C, H, W); of a downsampling block, without the skip."""
        out = self.module(*self.given)
        return (out[0] if isinstance(out, tuple) else out).cpu()


# ---------------------------------------------------------------- random weights


def random_parts(device: torch.device) -> dict[str, Part]:
    """Every part by its name, newly initialised, with no layer zero."""
    torch.manual_seed(integer_seed(SEED, "weights"))
    tokens = 3 * time_embedding(torch.arange(POSITIONS), WIDTH)[None]  # similar for neighbours, so that patterns appear
    context, cond = torch.randn(1, CONTEXT, CONTEXT_WIDTH), torch.randn(1, COND)
    fine, coarse = gradient(CHANNELS, SIDE, SIDE), gradient(2 * CHANNELS, SIDE // 2, SIDE // 2)
    parts = {
        "mhsa": (MultiHeadSelfAttention(WIDTH, 2), tokens),
        "mhca": (MultiHeadCrossAttention(WIDTH, CONTEXT_WIDTH, 2), tokens, context),
        "down": (DownSamplingBlock(CHANNELS, 2 * CHANNELS, COND), fine, cond),
        "bottleneck": (BottleNeck(2 * CHANNELS, COND), coarse, cond),
        "upsample": (UpSamplingBlock(2 * CHANNELS, CHANNELS, COND), coarse, fine, cond),
        "unet": (UNet((3, 32, 32), 1000, channels=(32, 64)), gradient(3, 32, 32), torch.tensor(UNET_T)),
    }
    names = [f"token {i + 1}" for i in range(CONTEXT)]
    return {
        name: Part(stirred(module).to(device), tuple(g.to(device) for g in given), RANDOM[name], context=names)
        for name, (module, *given) in parts.items()
    }


def stirred(net: nn.Module) -> nn.Module:
    """The same network, with random weights in the layers that start at zero; else an untrained one outputs 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and not layer.weight.any():
            layer.reset_parameters()
    return net


def gradient(channels: int, height: int, width: int) -> Tensor:
    """Ramps from -1 to 1, (1, channels, height, width): the first rises to the right, others elsewhere."""
    angles = 2 * math.pi * torch.arange(channels)[:, None, None] / channels
    down, right = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    ramps = angles.cos() * right + angles.sin() * down
    return (ramps / ramps.abs().amax((1, 2), keepdim=True))[None]


def stretched(images: Tensor) -> Tensor:
    """Each image (B, C, H, W) shifted and scaled to fill -1 .. 1, for display."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return 2 * (images - low) / (high - low).clamp(min=1e-8) - 1


# ---------------------------------------------------------------- a trained network


def trained_parts(pipeline: Pipeline, device: torch.device) -> dict[str, Part]:
    """The parts of a trained network by name, each with its inputs for a noisy image; it may lack those in LACKS.

    Raises:
        ValueError: the network takes points.
    """
    if not pipeline.of_images:
        raise ValueError("this is a checkpoint of points, but only networks for images can be drawn")
    net, scheduler, (x_0, label) = pipeline.net, pipeline.scheduler, example(pipeline, device)
    assert isinstance(net, UNet)
    t = half_noised(scheduler)
    x_t = noised(scheduler, x_0, t)
    found = {
        "mhsa": _last_attention(net.bottleneck.stage.attention),
        "mhca": _last_attention(net.bottleneck.stage.cross),
        "down": next(iter(net.down), None),
        "bottleneck": net.bottleneck,
        "upsample": next(reversed(net.up), None),
    }
    modules = {name: module for name, module in found.items() if module is not None}
    given = inputs(net, modules, x_t, t.to(device), label)
    about: dict[str, Any] = {
        "origin": f"trained weights, {_condition(pipeline, label)}t = {int(t)} of {scheduler.num_timesteps}",
        "image": x_t[0].cpu().numpy(),
        "grid": tuple(given["bottleneck"][0].shape[2:]),
        "context": [*[f"label token {i + 1}" for i in range(LABEL_TOKENS)], "time"],
    }
    parts = {name: Part(module, given[name], **about) for name, module in modules.items()}
    return parts | {"unet": _whole(pipeline, x_0, label)}


@torch.no_grad()
def inputs(net: nn.Module, modules: dict[str, nn.Module], *given: Tensor | None) -> dict[str, tuple[Tensor, ...]]:
    """The inputs of each of these modules while net(*given) runs."""
    caught: dict[str, tuple[Tensor, ...]] = {}
    hooks = [module.register_forward_pre_hook(partial(_catch, caught, name)) for name, module in modules.items()]
    net(*given)
    for hook in hooks:
        hook.remove()
    return caught


def _catch(caught: dict[str, tuple[Tensor, ...]], name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    caught[name] = args


def example(pipeline: Pipeline, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """A clean image (1, C, H, W) of the model's data set, and its label (1,) if the model is conditional.

    If the data set cannot be read here, or has changed, it is a sample of the model.
    """
    try:
        data = make_images(n_samples=1, seed=SEED, **pipeline.config["dataset"])
        if data.dims != pipeline.dims or (pipeline.classes and data.classes != pipeline.classes):
            raise ValueError("its sizes or classes have changed")
        x_0, label = data[:1][0], data[:1][-1] if pipeline.classes else None
    except (OSError, ValueError) as error:
        print(f"using a sample in place of an image of the data set, which cannot be read here: {error}")
        label = pipeline.labels(None, 1)
        x_0 = last(pipeline.states(1, labels=label, seed=SEED))
    return x_0.to(device), None if label is None else label.to(device)


def half_noised(scheduler: NoiseScheduler) -> Tensor:
    """The step t, shape (), at which signal and noise are equally strong."""
    return scheduler.log_snr.abs().argmin()


def noised(scheduler: NoiseScheduler, x_0: Tensor, t: Tensor) -> Tensor:
    """x_t, with the same noise for every row."""
    eps = torch.randn(x_0.shape[1:], generator=generator(SEED, "noise")).expand(len(x_0), -1, -1, -1)
    return scheduler.add_noise(x_0, t.to(x_0.device), eps.to(x_0.device))


@torch.no_grad()
def _whole(pipeline: Pipeline, x_0: Tensor, label: Tensor | None) -> Part:
    """The network on a gradient and on one image at four levels of noise, with its predictions of x_0."""
    final, device = pipeline.scheduler.num_timesteps - 1, x_0.device
    t = torch.tensor([min(UNET_T, final), final // 4, final // 2, 3 * final // 4], device=device)
    x_t = torch.cat([gradient(*x_0.shape[1:]).to(x_0), noised(pipeline.scheduler, x_0.expand(4, -1, -1, -1), t)])
    t, label = torch.cat([t[:1], t]), None if label is None else label.expand(5)
    predicted = pipeline.denoiser()(x_t, t, label).x_0
    origin = f"trained weights, {_condition(pipeline, label)}the output is {pipeline.config['model']['prediction']}"
    return Part(pipeline.net, (x_t, t, label), origin, x_0=predicted.cpu())


def _condition(pipeline: Pipeline, label: Tensor | None) -> str:
    return "" if label is None else f"label {pipeline.classes[int(label[0])]}, "


def _last_attention(blocks: nn.ModuleList) -> nn.Module | None:
    """The last attention of these AttentionBlocks, if it has the two heads that are drawn."""
    heads = [block.attention for block in blocks if isinstance(block, AttentionBlock) and block.attention.heads > 1]
    return heads[-1] if heads else None
