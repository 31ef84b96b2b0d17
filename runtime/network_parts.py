"""A look inside networks for images: their parts with random weights, or taken out of a trained one."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from images.sets import make_images
from nets.attention import MultiHeadCrossAttention, MultiHeadSelfAttention
from nets.embedding import time_embedding
from nets.unet import LABEL_TOKENS, BottleNeck, DownSamplingBlock, UNet, UpSamplingBlock
from runtime.randomness import generator, integer_seed
from runtime.trained import Trained
from schedule import NoiseScheduler

SEED = 0
SIDE, CHANNELS, COND = 32, 16, 64  # of the blocks with random weights
POSITIONS, WIDTH, CONTEXT, CONTEXT_WIDTH = 16, 64, 6, 48  # of the attention with random weights
UNET_T = 10
# what a trained network may lack
LACKS = {
    "mhsa": "no self-attention (of two heads or more) at its lowest resolution",
    "mhca": "no cross-attention (of two heads or more)",
    "down": "no downsampling block",
    "upsample": "no upsampling block",
}


@dataclass(frozen=True)
class Part:
    """A module and what it is given.

    origin: where its weights are from, for titles. Of a trained one also the noised image (C, H, W) that the network
    was shown, the size `grid` of the map whose pixels are the tokens, and names of the context's tokens; of a whole
    one its guesses (B, C, H, W) of the clean image.
    """

    module: nn.Module
    given: tuple[Tensor, ...]
    origin: str = "random weights"
    image: NDArray | None = None
    grid: tuple[int, ...] = ()
    context: list[str] = field(default_factory=list)
    guesses: Tensor | None = None

    @torch.no_grad()
    def weights(self, **options: Any) -> Tensor:
        """Attention weights (heads, N, M); options: see MultiHeadSelfAttention."""
        return self.module(*self.given, return_weights=True, **options)[1][0].cpu()

    @torch.no_grad()
    def output(self) -> Tensor:
        """What it makes of what it is given, (B, C, H, W); of a block without the skip."""
        out = self.module(*self.given)
        return (out[0] if isinstance(out, tuple) else out).cpu()


# ---------------------------------------------------------------- random weights


def random_parts(device: torch.device) -> dict[str, Part]:
    """Every part by its name, fresh, with weights that are nowhere zero."""
    torch.manual_seed(integer_seed(SEED, "weights"))
    tokens = 3 * time_embedding(torch.arange(POSITIONS), WIDTH)[None]  # of neighbours alike, so that patterns are seen
    context, cond = torch.randn(1, CONTEXT, CONTEXT_WIDTH), torch.randn(1, COND)
    fine, coarse = gradient(CHANNELS, SIDE), gradient(2 * CHANNELS, SIDE // 2)
    parts = {
        "mhsa": (MultiHeadSelfAttention(WIDTH, 2), tokens),
        "mhca": (MultiHeadCrossAttention(WIDTH, CONTEXT_WIDTH, 2), tokens, context),
        "down": (DownSamplingBlock(CHANNELS, 2 * CHANNELS, COND), fine, cond),
        "bottleneck": (BottleNeck(2 * CHANNELS, COND), coarse, cond),
        "upsample": (UpSamplingBlock(2 * CHANNELS, CHANNELS, COND), coarse, fine, cond),
        "unet": (UNet((3, 32, 32), 1000, channels=(32, 64)), gradient(3, 32), torch.tensor(UNET_T)),
    }
    names = [f"token {i + 1}" for i in range(CONTEXT)]
    return {
        name: Part(stirred(module).to(device), tuple(g.to(device) for g in given), context=names)
        for name, (module, *given) in parts.items()
    }


def stirred(net: nn.Module) -> nn.Module:
    """Layers that begin at zero, so that an untrained network answers nothing, get random weights like the others."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and not layer.weight.any():
            layer.reset_parameters()
    return net


def gradient(channels: int, side: int) -> Tensor:
    """Ramps from -1 to 1, (1, channels, side, side): the first rises to the right, the others in other directions."""
    angles = 2 * math.pi * torch.arange(channels)[:, None, None] / channels
    down, right = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    ramps = angles.cos() * right + angles.sin() * down
    return (ramps / ramps.abs().amax((1, 2), keepdim=True))[None]


def stretched(images: Tensor) -> Tensor:
    """Each image (B, C, H, W) moved and scaled to fill -1 .. 1, for display."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return 2 * (images - low) / (high - low).clamp(min=1e-8) - 1


# ---------------------------------------------------------------- a trained network


def trained_parts(trained: Trained, device: torch.device) -> dict[str, Part]:
    """The parts of a trained network by their names, each with what reaches it of a noised image; but those in LACKS.

    Raises:
        ValueError: it is a network for points.
    """
    if not trained.of_images:
        raise ValueError("this is a checkpoint of points, and these are pictures of a network for images")
    net, scheduler, (x_0, label) = trained.net, trained.scheduler, example(trained, device)
    t = half_noised(scheduler)
    x_t = noised(scheduler, x_0, t)
    modules = {
        "mhsa": _attention(net.bottleneck.stage.attention),
        "mhca": _attention(net.bottleneck.stage.cross),
        "down": next(iter(net.down), None),
        "bottleneck": net.bottleneck,
        "upsample": next(reversed(net.up), None),
    }
    modules = {name: module for name, module in modules.items() if module is not None}
    given = inputs(net, modules, x_t, t.to(device), label)
    about = {
        "origin": f"trained weights, {_asked(trained, label)}t = {int(t)} of {scheduler.num_timesteps}",
        "image": x_t[0].cpu().numpy(),
        "grid": tuple(given["bottleneck"][0].shape[2:]),
        "context": [*[f"label token {i + 1}" for i in range(LABEL_TOKENS)], "time"],
    }
    parts = {name: Part(module, given[name], **about) for name, module in modules.items()}
    return parts | {"unet": _whole(trained, x_0, label)}


@torch.no_grad()
def inputs(net: nn.Module, modules: dict[str, nn.Module], *given: Tensor | None) -> dict[str, tuple[Tensor, ...]]:
    """What reaches each of these modules while net(*given) runs."""
    seen: dict[str, tuple[Tensor, ...]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args}))
        for name, module in modules.items()
    ]
    net(*given)
    for hook in hooks:
        hook.remove()
    return seen


def example(trained: Trained, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """A clean image (1, C, H, W) of the model's data set, and its label (1,) if it knows labels.

    Where the data set cannot be read here, or is another by now, it is a sample of the model's own.
    """
    try:
        data = make_images(n_samples=1, seed=SEED, **trained.config["dataset"])
        if data.dims != trained.dims or (trained.classes and data.classes != trained.classes):
            raise ValueError("its sizes or classes have changed")
        x_0, label = data[:1]
    except (OSError, ValueError) as error:
        print(f"a sample stands for an image of the data set, which cannot be read here: {error}")
        label = trained.labels(None, 1)
        *_, last = trained.sample(1, SEED, labels=label)
        x_0 = last.x_t
    return x_0.to(device), label.to(device) if trained.classes else None


def half_noised(scheduler: NoiseScheduler) -> Tensor:
    """The step at which the variance of x_t is half signal and half noise, ()."""
    return (scheduler.alpha.square() - 0.5).abs().argmin()


def noised(scheduler: NoiseScheduler, x_0: Tensor, t: Tensor) -> Tensor:
    """x_t, with the same noise for every row."""
    eps = torch.randn(x_0.shape[1:], generator=generator(SEED, "noise")).expand(len(x_0), -1, -1, -1)
    return scheduler.add_noise(x_0, t.to(x_0.device), eps.to(x_0.device))


@torch.no_grad()
def _whole(trained: Trained, x_0: Tensor, label: Tensor | None) -> Part:
    """The network on one image at rising noise, with its guesses of that image."""
    last, device = trained.scheduler.num_timesteps - 1, x_0.device
    t = torch.tensor([min(UNET_T, last), last // 4, last // 2, 3 * last // 4], device=device)
    x_t = noised(trained.scheduler, x_0.expand(4, -1, -1, -1), t)
    label = None if label is None else label.expand(4)
    guesses = trained.denoise()(x_t, t, label).x_0
    origin = f"trained weights, {_asked(trained, label)}the output is {trained.config['model']['prediction']}"
    return Part(trained.net, (x_t, t, label), origin, guesses=guesses.cpu())


def _asked(trained: Trained, label: Tensor | None) -> str:
    return "" if label is None else f"label {trained.classes[int(label[0])]}, "


def _attention(blocks: nn.ModuleList) -> nn.Module | None:
    """The last attention there, if its two first heads can be shown."""
    return blocks[-1].attention if blocks and blocks[-1].attention.heads > 1 else None
