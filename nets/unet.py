"""A UNet with attention for small images, `net(x_t, t, label=None)`: (B, C, H, W) -> (B, C, H, W).

What makes it quick on a CPU: pixels are taken together in squares of `patch` before the first convolution
(pixel_unshuffle) and given back at the end, so nothing runs at full resolution; and attention looks only at maps of
at most `attention_size` pixels a side.

    x_t -> stem -> DownSamplingBlock ... -> BottleNeck -> UpSamplingBlock ... -> head
                        \\__________________ skip ________________/
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.attention import MultiHeadCrossAttention, MultiHeadSelfAttention
from nets.embedding import TimeEmbedding, label_or_null

LABEL_TOKENS = 4  # learned tokens of a label in cross-attention; one alone would make it a constant
CONDITIONING = ("embedding", "cross_attention")


def group_norm(channels: int, largest: int = 8) -> nn.GroupNorm:
    """GroupNorm (Wu and He 2018): as many groups of at least two channels as divide them, at most `largest`.

    A group of one channel would take away what the condition adds to it: the network could not see t.

    Raises:
        ValueError: only one group would remain for many channels.
    """
    groups = next((g for g in range(min(largest, channels // 2), 0, -1) if channels % g == 0), 1)
    if groups == 1 and channels > 2:
        raise ValueError(f"{channels} channels cannot be divided into groups of equal size: choose a multiple of 8")
    return nn.GroupNorm(groups, channels)


# ---------------------------------------------------------------- parts of a stage


class ResidualBlock(nn.Module):
    """Two convolutions with the condition (B, cond_dim) added in between: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = group_norm(in_channels), group_norm(out_channels)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv_2 = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.condition = nn.Linear(cond_dim, out_channels)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x))) + self.condition(cond)[:, :, None, None]
        return self.skip(x) + self.conv_2(F.silu(self.norm_2(h)))


class AttentionBlock(nn.Module):
    """Attention among the pixels of a map (B, C, H, W), or with `context_dim` from them to context tokens; residual."""

    def __init__(self, channels: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        if context_dim is None:
            self.attention = MultiHeadSelfAttention(channels, heads)
        else:
            self.attention = MultiHeadCrossAttention(channels, context_dim, heads)
        _zero(self.attention.output)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attention(tokens, *context).transpose(1, 2).unflatten(2, x.shape[2:])


class Stage(nn.Module):
    """What happens at one resolution: residual blocks, each followed by self- and cross-attention where asked for."""

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
    """A stage, then half the resolution by a convolution of stride 2.

    (B, in, H, W) -> (B, out, H/2, W/2) and the skip (B, in, H, W). Options: see Stage.

    Raises:
        ValueError: the map cannot be halved.
    """

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int, **stage: int | bool | None) -> None:
        super().__init__()
        self.stage = Stage(in_channels, in_channels, cond_dim, **stage)
        self.down = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, cond: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if x.shape[-1] % 2 or x.shape[-2] % 2:
            height, width = x.shape[-2:]
            use = f"{height + height % 2}x{width + width % 2}"
            raise ValueError(f"a map of {height}x{width} cannot be halved: make both sides even, {use}, or halve less")
        skip = self.stage(x, cond, context)
        return self.down(skip), skip


class BottleNeck(nn.Module):
    """The stage at the lowest resolution: (B, C, H, W) -> (B, C, H, W). Options: see Stage."""

    def __init__(self, channels: int, cond_dim: int, **stage: int | bool | None) -> None:
        super().__init__()
        self.stage = Stage(channels, channels, cond_dim, **stage)

    def forward(self, x: Tensor, cond: Tensor, context: Tensor | None = None) -> Tensor:
        return self.stage(x, cond, context)


class UpSamplingBlock(nn.Module):
    """Twice the resolution by a transposed convolution, the skip beside it, then a stage.

    (B, in, H, W) and the skip (B, out, 2H, 2W) -> (B, out, 2H, 2W). Options: see Stage.
    """

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int, **stage: int | bool | None) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.stage = Stage(2 * out_channels, out_channels, cond_dim, **stage)

    def forward(self, x: Tensor, skip: Tensor, cond: Tensor, context: Tensor | None = None) -> Tensor:
        return self.stage(torch.cat([self.up(x), skip], 1), cond, context)


# ---------------------------------------------------------------- the whole


class UNet(nn.Module):
    """The epsilon-network for images: x_t (B, C, H, W), t (B,) or (), label (B,) or None -> (B, C, H, W).

    Args:
        dims: (C, H, W).
        num_timesteps: T.
        num_labels: classes 0 .. num_labels-1; 0: unconditional. `label=None` is the null label of guidance
            (Ho and Salimans 2022, arXiv 2207.12598); in a batch it is the number num_labels.
        channels: of each resolution, from the highest to the lowest: one fewer than it has entries are halvings.
        blocks: residual blocks at each resolution.
        patch: squares of so many pixels a side enter as one.
        heads: of attention.
        attention_size: attention at maps of at most so many pixels a side.
        conditioning: the label is added to the time embedding ("embedding"), or pixels look at learned tokens
            of label and time ("cross_attention").

    Raises:
        ValueError: a size that cannot be halved so often, channels that do not go into heads or groups, another
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
        if crossed and sides[-1] > attention_size:  # nothing would ever look at the label
            raise ValueError(f"cross_attention needs attention: raise attention_size to {sides[-1]} or more")
        tokens = LABEL_TOKENS if crossed else 1

        def stage(level: int) -> dict[str, int | bool | None]:
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
        cond, context = self._condition(t.expand(len(x_t)), label)
        x = self.stem(F.pixel_unshuffle(x_t, self.patch))
        skips = []
        for block in self.down:
            x, skip = block(x, cond, context)
            skips.append(skip)
        x = self.bottleneck(x, cond, context)
        for block in self.up:
            x = block(x, skips.pop(), cond, context)
        return F.pixel_shuffle(self.head(F.silu(self.norm(x))), self.patch)

    def _condition(self, t: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What every residual block is told (B, cond_dim), and the tokens that pixels may look at (B, M, cond_dim)."""
        time, label = self.time(t), label_or_null(label, self.num_labels, t)
        if self.label is None:
            return F.silu(time), None
        told = self.label(label)
        if not self.crossed:
            return F.silu(time + told), None
        return F.silu(time), torch.cat([told.unflatten(1, (LABEL_TOKENS, -1)), time[:, None]], 1)


def _sides(dims: tuple[int, ...], patch: int, levels: int) -> list[int]:
    """The longer side of the map at every resolution."""
    _, height, width = dims
    divisor = patch * 2 ** (levels - 1)
    if height % divisor or width % divisor:
        nearest = [-(-side // divisor) * divisor for side in (height, width)]
        raise ValueError(
            f"{height}x{width} cannot be taken in squares of {patch} and halved {levels - 1} times: both sides must be"
            f" divisible by {divisor}; use {nearest[0]}x{nearest[1]}, fewer channels in model.channels or a smaller"
            " model.patch"
        )
    return [max(height, width) // patch // 2**i for i in range(levels)]


def _zero(layer: nn.Module) -> nn.Module:
    """A residual branch, or a whole network, begins as nothing: the weights are zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
