"""A UNet with attention for small images, `net(x_t, t, label=None)`: (B, C, H, W) -> (B, C, H, W).

What makes it fast on a CPU: squares of `patch` x `patch` pixels become channels before the first convolution
(pixel_unshuffle) and pixels again at the end, so nothing runs at full resolution; and attention is used only on maps
of at most `attention_size` pixels a side.

    x_t -> stem -> DownSamplingBlock ... -> BottleNeck -> UpSamplingBlock ... -> head
                        \\__________________ skip ________________/
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from nets.attention import MultiHeadCrossAttention, MultiHeadSelfAttention
from nets.embedding import TimeEmbedding, label_or_null

LABEL_TOKENS = 4  # learned tokens of a label in cross-attention
CONDITIONING = ("embedding", "cross_attention")


def group_norm(channels: int, most: int = 8) -> nn.GroupNorm:
    """GroupNorm (Wu and He 2018) with the most groups, up to `most`, that divide the channels into two or more each.

    In a group of one channel, normalising would remove what the condition adds: the network could not depend on t.

    Raises:
        ValueError: there would be a single group of many channels.
    """
    groups = next((g for g in range(min(most, channels // 2), 0, -1) if channels % g == 0), 1)
    if groups == 1 and channels > 2:
        raise ValueError(f"{channels} channels cannot be divided into groups of equal size: choose a multiple of 8")
    return nn.GroupNorm(groups, channels)


# ---------------------------------------------------------------- parts of a stage


class StageOptions(TypedDict, total=False):
    """Options of Stage, which the blocks below pass on to it."""

    blocks: int
    heads: int
    attention: bool
    context_dim: int | None


class ResidualBlock(nn.Module):
    """Two convolutions, with the condition (B, cond_dim) added between them: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = group_norm(in_channels), group_norm(out_channels)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv_2 = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.condition = nn.Linear(cond_dim, out_channels)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x))) + self.condition(cond)[:, :, None, None]  # (B, out, H, W)
        return self.skip(x) + self.conv_2(F.silu(self.norm_2(h)))


class AttentionBlock(nn.Module):
    """Residual attention among the pixels of a map (B, C, H, W), or with `context_dim` from them to context tokens."""

    def __init__(self, channels: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        if context_dim is None:
            self.attention = MultiHeadSelfAttention(channels, heads)
        else:
            self.attention = MultiHeadCrossAttention(channels, context_dim, heads)
        _zero(self.attention.output)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, H * W, C)
        return x + self.attention(tokens, *context).transpose(1, 2).unflatten(2, x.shape[2:])  # (B, C, H, W)


class Stage(nn.Module):
    """The layers at one resolution: residual blocks, each followed by self- and cross-attention if wanted."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_dim: int,
        *,
        blocks: int = 2,
        heads: int = 4,
        attention: bool = True,
        context_dim: int | None = None,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.residual = nn.ModuleList(ResidualBlock(a, b, cond_dim) for a, b in pairwise(widths))
        self.attention = nn.ModuleList(AttentionBlock(out_channels, heads) for _ in range(blocks if attention else 0))
        crossed = attention and context_dim is not None
        self.cross = nn.ModuleList(AttentionBlock(out_channels, heads, context_dim) for _ in range(blocks * crossed))

    def forward(self, x: Tensor, cond: Tensor, context: Tensor | None = None) -> Tensor:
        for i, residual in enumerate(self.residual):
            x = residual(x, cond)
            if self.attention:
                x = self.attention[i](x)
            if self.cross:
                x = self.cross[i](x, context)
        return x


class DownSamplingBlock(nn.Module):
    """A stage, then a convolution of stride 2 that halves the resolution.

    (B, in, H, W) -> (B, out, H/2, W/2) and the skip (B, in, H, W). Options: see Stage.

    Raises:
        ValueError: the map cannot be halved.
    """

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int, **stage: Unpack[StageOptions]) -> None:
        super().__init__()
        self.stage = Stage(in_channels, in_channels, cond_dim, **stage)
        self.down = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, cond: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if x.shape[-1] % 2 or x.shape[-2] % 2:
            height, width = x.shape[-2:]
            use = f"{height + height % 2}x{width + width % 2}"
            raise ValueError(f"a map of {height}x{width} cannot be halved: make both sides even, {use}, or halve less")
        skip = self.stage(x, cond, context)  # (B, in, H, W)
        return self.down(skip), skip


class BottleNeck(nn.Module):
    """The stage at the lowest resolution: (B, C, H, W) -> (B, C, H, W). Options: see Stage."""

    def __init__(self, channels: int, cond_dim: int, **stage: Unpack[StageOptions]) -> None:
        super().__init__()
        self.stage = Stage(channels, channels, cond_dim, **stage)

    def forward(self, x: Tensor, cond: Tensor, context: Tensor | None = None) -> Tensor:
        return self.stage(x, cond, context)


class UpSamplingBlock(nn.Module):
    """A transposed convolution that doubles the resolution, concatenation with the skip, then a stage.

    (B, in, H, W) and the skip (B, out, 2H, 2W) -> (B, out, 2H, 2W). Options: see Stage.
    """

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int, **stage: Unpack[StageOptions]) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.stage = Stage(2 * out_channels, out_channels, cond_dim, **stage)

    def forward(self, x: Tensor, skip: Tensor, cond: Tensor, context: Tensor | None = None) -> Tensor:
        return self.stage(torch.cat([self.up(x), skip], 1), cond, context)  # of (B, 2 out, 2H, 2W)


# ---------------------------------------------------------------- the whole


class UNet(nn.Module):
    """The epsilon-network for images: x_t (B, C, H, W), t (B,) or (), label (B,) or None -> (B, C, H, W).

    Args:
        dims: (C, H, W).
        num_timesteps: T.
        num_labels: classes 0 .. num_labels-1; 0: unconditional. `label=None` is the null label of guidance
            (Ho and Salimans 2022, arXiv 2207.12598), which has the number num_labels in a batch.
        channels: at each resolution, from the highest to the lowest; the resolution halves between entries.
        blocks: residual blocks at each resolution.
        patch: side, in pixels, of the squares that enter as one.
        heads: attention heads.
        attention_size: the longest side, in pixels, of maps with attention.
        conditioning: the label is added to the time embedding ("embedding"), or pixels attend to learned tokens of
            the label and one of the time ("cross_attention").

    Raises:
        ValueError: a size that cannot be halved that often, channels that heads or groups do not divide, an unknown
            conditioning, or cross-attention where no map is small enough for it.
    """

    def __init__(
        self,
        dims: tuple[int, ...],
        num_timesteps: int,
        num_labels: int = 0,
        *,
        channels: Sequence[int] = (48, 96),
        blocks: int = 2,
        patch: int = 2,
        heads: int = 4,
        attention_size: int = 8,
        conditioning: str = "embedding",
    ) -> None:
        super().__init__()
        if conditioning not in CONDITIONING:
            raise ValueError(f"conditioning must be one of {', '.join(CONDITIONING)}, not {conditioning!r}")
        if not channels or min(channels) < 1:
            raise ValueError(f"channels must be a list of numbers above 0, such as [32,64]; got {list(channels)}")
        self.patch, self.num_labels = patch, num_labels
        sides = _sides(dims, patch, len(channels))
        cond_dim = 2 * channels[0]
        crossed = conditioning == "cross_attention" and num_labels > 0
        if crossed and sides[-1] > attention_size:  # the label would have no effect
            raise ValueError(f"cross_attention needs attention: raise attention_size to {sides[-1]} or more")
        tokens = LABEL_TOKENS if crossed else 1

        def stage(level: int) -> StageOptions:
            attention = sides[level] <= attention_size
            context_dim = cond_dim if crossed else None
            return {"blocks": blocks, "heads": heads, "attention": attention, "context_dim": context_dim}

        self.time = TimeEmbedding(channels[0] + channels[0] % 2, cond_dim, num_timesteps)
        self.label = nn.Embedding(num_labels + 1, tokens * cond_dim) if num_labels else None
        self.crossed = crossed

        self.stem = nn.Conv2d(dims[0] * patch**2, channels[0], 3, padding=1)
        steps = list(enumerate(pairwise(channels)))
        self.down = nn.ModuleList(DownSamplingBlock(a, b, cond_dim, **stage(i)) for i, (a, b) in steps)
        self.bottleneck = BottleNeck(channels[-1], cond_dim, **stage(len(channels) - 1))
        self.up = nn.ModuleList(UpSamplingBlock(b, a, cond_dim, **stage(i)) for i, (a, b) in reversed(steps))
        self.norm = group_norm(channels[0])
        self.head = _zero(nn.Conv2d(channels[0], dims[0] * patch**2, 3, padding=1))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        cond, context = self._condition(t.expand(len(x_t)), label)  # (B, cond_dim), (B, M, cond_dim) or None
        x = self.stem(F.pixel_unshuffle(x_t, self.patch))  # (B, channels[0], H / patch, W / patch)
        skips = []
        for block in self.down:
            x, skip = block(x, cond, context)
            skips.append(skip)
        x = self.bottleneck(x, cond, context)
        for block in self.up:
            x = block(x, skips.pop(), cond, context)
        return F.pixel_shuffle(self.head(F.silu(self.norm(x))), self.patch)  # (B, C, H, W)

    def _condition(self, t: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The condition of every residual block (B, cond_dim), and the context tokens (B, M, cond_dim) or None."""
        time, label = self.time(t), label_or_null(label, self.num_labels, t)  # (B, cond_dim), (B,)
        if self.label is None:
            return F.silu(time), None
        embedded = self.label(label)  # (B, tokens * cond_dim)
        if not self.crossed:
            return F.silu(time + embedded), None
        return F.silu(time), torch.cat([embedded.unflatten(1, (LABEL_TOKENS, -1)), time[:, None]], 1)


def _sides(dims: tuple[int, ...], patch: int, levels: int) -> list[int]:
    """The longer side of the map at every resolution."""
    _, height, width = dims
    divisor = patch * 2 ** (levels - 1)
    if height % divisor or width % divisor:
        nearest = [-(-side // divisor) * divisor for side in (height, width)]
        raise ValueError(
            f"{height}x{width} cannot be divided into squares of {patch} and halved {levels - 1} times: both sides must"
            f" be divisible by {divisor}; use {nearest[0]}x{nearest[1]}, fewer channels in model.channels or a smaller"
            " model.patch"
        )
    return [max(height, width) // patch // 2**i for i in range(levels)]


def _zero(layer: nn.Module) -> nn.Module:
    """The layer with all weights zero, so that a residual branch, or a whole network, starts with the output 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
