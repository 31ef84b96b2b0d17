"""A UNet with attention for small images: `net(x_t, t, label=None)`, (B, C, H, W) -> (B, C, H, W).

Two choices make it fast on a CPU. Squares of `patch` x `patch` pixels become channels before the
first convolution (pixel_unshuffle) and pixels again after the last, so nothing runs at full
resolution. Attention is used only on maps of at most `attention_size` pixels a side.

    x_t -> stem -> DownSamplingBlock ... -> BottleNeck -> UpSamplingBlock ... -> head
                        \\__________________ skip ________________/
"""

import math
from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from nets.attention import MultiHeadCrossAttention, MultiHeadSelfAttention
from nets.embedding import TimeEmbedding, label_or_null

LABEL_TOKENS = 4  # learned tokens of a label in cross-attention
MAX_GROUPS = 8  # of a GroupNorm
CONDITIONING = ("embedding", "cross_attention")


def group_norm(channels: int, most: int = MAX_GROUPS) -> nn.GroupNorm:
    """Return a GroupNorm (Wu and He 2018) with as many groups as possible, up to `most`.

    Each group has at least two channels. In a group of one channel, the normalisation would remove
    the condition that was added to it, and the output could not depend on t.

    Raises:
        ValueError: more than two channels that only a single group divides.
    """
    groups = min(most, channels // 2)
    while groups > 1 and channels % groups != 0:
        groups -= 1
    groups = max(groups, 1)
    if groups == 1 and channels > 2:
        problem = f"{channels} channels cannot be divided into groups of equal size"
        raise ValueError(f"{problem}: choose a multiple of 8")
    return nn.GroupNorm(groups, channels)


# ---------------------------------------------------------------- parts of a stage


class StageOptions(TypedDict, total=False):
    """The options of Stage, which the blocks below pass on to it."""

    blocks: int
    heads: int
    attention: bool
    context_dim: int | None


class ResidualBlock(nn.Module):
    """Two convolutions with a condition added between them, and a skip connection.

    x (B, in, H, W) and the condition (B, cond_dim) give (B, out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int) -> None:
        super().__init__()
        self.norm_1 = group_norm(in_channels)
        self.norm_2 = group_norm(out_channels)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv_2 = _with_zero_weights(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.condition = nn.Linear(cond_dim, out_channels)
        if in_channels == out_channels:
            self.skip = nn.Identity()
        else:
            self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        shift = self.condition(cond)[:, :, None, None]
        h = self.conv_1(F.silu(self.norm_1(x))) + shift  # (B, out, H, W)
        return self.skip(x) + self.conv_2(F.silu(self.norm_2(h)))


class AttentionBlock(nn.Module):
    """Residual attention of the pixels of a map: (B, C, H, W) -> (B, C, H, W).

    Without `context_dim` the pixels attend to each other. With it they attend to a context
    (B, M, context_dim), which is then an argument of the call.
    """

    def __init__(self, channels: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        if context_dim is None:
            self.attention = MultiHeadSelfAttention(channels, heads)
        else:
            self.attention = MultiHeadCrossAttention(channels, context_dim, heads)
        _with_zero_weights(self.attention.output)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, H * W, C)
        attended = self.attention(tokens, *context)  # (B, H * W, C)
        return x + attended.transpose(1, 2).unflatten(2, x.shape[2:])


class Stage(nn.Module):
    """The layers at one resolution: residual blocks, each followed by attention if wanted.

    x (B, in, H, W), the condition (B, cond_dim) and perhaps a context (B, M, context_dim) give
    (B, out, H, W).

    Args:
        in_channels, out_channels, cond_dim: see above.
        blocks: number of residual blocks.
        heads: attention heads.
        attention: whether self-attention follows each block.
        context_dim: if given, cross-attention follows self-attention.
    """

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
        # The order of construction is that of the initial random weights.
        self.residual = nn.ModuleList()
        for i in range(blocks):
            width = in_channels if i == 0 else out_channels
            self.residual.append(ResidualBlock(width, out_channels, cond_dim))

        self.attention = nn.ModuleList()
        if attention:
            for _ in range(blocks):
                self.attention.append(AttentionBlock(out_channels, heads))

        self.cross = nn.ModuleList()
        if attention and context_dim is not None:
            for _ in range(blocks):
                self.cross.append(AttentionBlock(out_channels, heads, context_dim))

    def forward(self, x: Tensor, cond: Tensor, context: Tensor | None = None) -> Tensor:
        for i, residual in enumerate(self.residual):
            x = residual(x, cond)
            if self.attention:
                x = self.attention[i](x)
            if self.cross:
                x = self.cross[i](x, context)
        return x


class DownSamplingBlock(nn.Module):
    """A stage, followed by a convolution that halves the resolution.

    x (B, in, H, W) gives (B, out, H/2, W/2) and the skip (B, in, H, W). Options: see Stage.

    Raises:
        ValueError: in a call, H or W is odd.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_dim: int,
        **stage: Unpack[StageOptions],
    ) -> None:
        super().__init__()
        self.stage = Stage(in_channels, in_channels, cond_dim, **stage)
        self.down = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(
        self,
        x: Tensor,
        cond: Tensor,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        if height % 2 or width % 2:
            even_size = f"{height + height % 2}x{width + width % 2}"
            advice = f"make both sides even, {even_size}, or halve less"
            raise ValueError(f"a map of {height}x{width} cannot be halved: {advice}")
        skip = self.stage(x, cond, context)
        return self.down(skip), skip


class BottleNeck(nn.Module):
    """The stage at the lowest resolution: (B, C, H, W) -> (B, C, H, W). Options: see Stage."""

    def __init__(self, channels: int, cond_dim: int, **stage: Unpack[StageOptions]) -> None:
        super().__init__()
        self.stage = Stage(channels, channels, cond_dim, **stage)

    def forward(self, x: Tensor, cond: Tensor, context: Tensor | None = None) -> Tensor:
        return self.stage(x, cond, context)


class UpSamplingBlock(nn.Module):
    """A transposed convolution that doubles the resolution, followed by a stage.

    x (B, in, H, W) and the skip (B, out, 2H, 2W) give (B, out, 2H, 2W). The stage gets both,
    concatenated along the channels. Options: see Stage.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_dim: int,
        **stage: Unpack[StageOptions],
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.stage = Stage(2 * out_channels, out_channels, cond_dim, **stage)

    def forward(
        self,
        x: Tensor,
        skip: Tensor,
        cond: Tensor,
        context: Tensor | None = None,
    ) -> Tensor:
        both = torch.cat([self.up(x), skip], 1)  # (B, 2 out, 2H, 2W)
        return self.stage(both, cond, context)


# ---------------------------------------------------------------- the whole


class UNet(nn.Module):
    """The network for images: x_t (B, C, H, W), t (B,) or (), label (B,) or None -> (B, C, H, W).

    `label=None` stands for the null label of classifier-free guidance (Ho and Salimans 2022,
    arXiv 2207.12598). In a batch of labels it is the number num_labels.

    Args:
        dims: (C, H, W).
        num_timesteps: T.
        num_labels: labels are 0 .. num_labels-1; 0 for an unconditional network.
        channels: at each resolution, from the highest to the lowest. Each resolution is half of the
            one before it.
        blocks: residual blocks at each resolution.
        patch: side in pixels of the squares that become channels.
        heads: attention heads.
        attention_size: the longest side in pixels of maps with attention.
        conditioning: "embedding" adds the label to the time embedding. With "cross_attention" the
            pixels attend to learned tokens of the label and one token of the time.

    Raises:
        ValueError: sides that cannot be halved so often, or channels that heads or groups do not
            divide. An unknown conditioning, or cross-attention where all maps are too large.
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
        _check_options(channels, conditioning)
        sides = _map_sides(dims, patch, len(channels))
        crossed = conditioning == "cross_attention" and num_labels > 0
        if crossed:
            _check_some_attention(sides, attention_size)
        self.patch = patch
        self.num_labels = num_labels
        self.crossed = crossed

        cond_dim = 2 * channels[0]
        tokens = LABEL_TOKENS if crossed else 1
        time_dim = channels[0] + channels[0] % 2  # even
        self.time = TimeEmbedding(time_dim, cond_dim, num_timesteps)
        self.label = nn.Embedding(num_labels + 1, tokens * cond_dim) if num_labels else None

        options: list[StageOptions] = []  # of the stage at each resolution
        for side in sides:
            options.append(
                {
                    "blocks": blocks,
                    "heads": heads,
                    "attention": side <= attention_size,
                    "context_dim": cond_dim if crossed else None,
                }
            )

        # The order of construction is that of the initial random weights.
        patch_channels = dims[0] * patch**2
        self.stem = nn.Conv2d(patch_channels, channels[0], 3, padding=1)
        self.down = _down_path(channels, cond_dim, options)
        self.bottleneck = BottleNeck(channels[-1], cond_dim, **options[-1])
        self.up = _up_path(channels, cond_dim, options)
        self.norm = group_norm(channels[0])
        self.head = _with_zero_weights(nn.Conv2d(channels[0], patch_channels, 3, padding=1))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the output (B, C, H, W)."""
        cond, context = self._condition(t.expand(len(x_t)), label)
        x = self.stem(F.pixel_unshuffle(x_t, self.patch))  # (B, channels[0], H/patch, W/patch)
        skips = []
        for block in self.down:
            x, skip = block(x, cond, context)
            skips.append(skip)
        x = self.bottleneck(x, cond, context)
        for block in self.up:
            x = block(x, skips.pop(), cond, context)
        x = self.head(F.silu(self.norm(x)))
        return F.pixel_shuffle(x, self.patch)

    def _condition(self, t: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the condition of every residual block, and the context of cross-attention.

        Their shapes are (B, cond_dim) and (B, LABEL_TOKENS + 1, cond_dim). Without cross-attention
        the context is None.
        """
        time = self.time(t)  # (B, cond_dim)
        label = label_or_null(label, self.num_labels, t)  # (B,)
        if self.label is None:
            return F.silu(time), None
        embedded = self.label(label)  # (B, tokens * cond_dim)
        if not self.crossed:
            return F.silu(time + embedded), None
        label_tokens = embedded.unflatten(1, (LABEL_TOKENS, -1))
        return F.silu(time), torch.cat([label_tokens, time[:, None]], 1)


def _down_path(
    channels: Sequence[int],
    cond_dim: int,
    options: Sequence[StageOptions],
) -> nn.ModuleList:
    """Return the blocks that lead from the highest resolution to the lowest."""
    path = nn.ModuleList()
    for i in range(len(channels) - 1):
        path.append(DownSamplingBlock(channels[i], channels[i + 1], cond_dim, **options[i]))
    return path


def _up_path(
    channels: Sequence[int],
    cond_dim: int,
    options: Sequence[StageOptions],
) -> nn.ModuleList:
    """Return the blocks that lead from the lowest resolution to the highest."""
    path = nn.ModuleList()
    for i in reversed(range(len(channels) - 1)):
        path.append(UpSamplingBlock(channels[i + 1], channels[i], cond_dim, **options[i]))
    return path


def _check_options(channels: Sequence[int], conditioning: str) -> None:
    if conditioning not in CONDITIONING:
        known = ", ".join(CONDITIONING)
        raise ValueError(f"conditioning must be one of {known}, not {conditioning!r}")
    if not channels or min(channels) < 1:
        rule = "a list of numbers above 0, such as [32,64]"
        raise ValueError(f"channels must be {rule}; got {list(channels)}")


def _check_some_attention(sides: Sequence[int], attention_size: int) -> None:
    """Raises ValueError where no map has attention, which cross-attention to the label needs."""
    if sides[-1] > attention_size:
        advice = f"raise attention_size to {sides[-1]} or more"
        raise ValueError(f"cross_attention needs attention: {advice}")


def _map_sides(dims: tuple[int, ...], patch: int, levels: int) -> list[int]:
    """Return the longer side of the map at each resolution; raises ValueError if not divisible."""
    _, height, width = dims
    divisor = patch * 2 ** (levels - 1)
    if height % divisor or width % divisor:
        next_height = math.ceil(height / divisor) * divisor
        next_width = math.ceil(width / divisor) * divisor
        raise ValueError(
            f"{height}x{width} cannot be divided into squares of {patch} and halved {levels - 1}"
            f" times: both sides must be divisible by {divisor}; use {next_height}x{next_width},"
            " fewer channels in model.channels or a smaller model.patch"
        )
    longest = max(height, width) // patch
    return [longest // 2**level for level in range(levels)]


def _with_zero_weights(layer: nn.Module) -> nn.Module:
    """Set all weights of a layer to zero and return it.

    A residual branch, or the whole network, then begins with the output 0.
    """
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
