"""The blocks of timm's ``MaxxVit`` with encodings: attention in windows, in grids, and of whole maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.maxxvit import (
    Attention2d,
    AttentionCl,
    Downsample2d,
    MaxxVitBlock,
    ParallelMaxxVitBlock,
    ParallelPartitionAttention,
    PartitionAttention2d,
    PartitionAttentionCl,
    TransformerBlock2d,
)
from torch import Tensor, nn

from visionpe.backbones.adapt.wrapped import is_bare, weight_of
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.windowed import ScaledMapBlock, WindowHeads
from visionpe.composition import Composition
from visionpe.grid import Grid
from visionpe.tracing import is_exporting, map_size, number


def channels_first(x: Tensor) -> Tensor:
    """``(B, height, width, C)`` to ``(B, C, height, width)``."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """And back."""
    return x.permute(0, 2, 3, 1)


def added(encoding: Composition, x: Tensor) -> Tensor:
    """What ``encoding`` adds to the tokens of a map ``(B, height, width, C)``, added."""
    grid = Grid(size=map_size(x))
    return encoding.add(x.flatten(1, 2), grid).unflatten(1, grid.size)


class RoundedUp(Downsample2d):
    """Pooling by two, of maps of odd sides too: the last row and column are pooled with themselves."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, height, width)`` to ``(B, C', height / 2, width / 2)``, rounded up."""
        for axis in (2, 3):
            n = number(x.shape[axis])
            # An exported graph serves every size, so it cannot branch on one.
            if is_exporting() or n % 2:
                places = torch.arange(2 * ((n - 1) // 2 + 1), device=x.device)
                x = x.index_select(axis, places.clamp(max=n - 1))
        return super().forward(x)


class MaxxVitHeads(WindowHeads):
    """Mixin of attentions.

    Attributes:
        dim_head: Width of a head.
        head_first: Whether channels are ordered by head, then by query, key and value; else the other way round.
    """

    dim_head: int
    head_first: bool

    def projections(self, x: Tensor) -> Tensor:
        qkv = _linear(self.qkv, x)
        if self.head_first:
            return qkv.unflatten(-1, (self.num_heads, 3, self.dim_head)).transpose(-3, -2)
        return qkv.unflatten(-1, (3, self.num_heads, self.dim_head))

    def projected(self, attended: Tensor, gate: Tensor | None) -> Tensor:
        return self.proj_drop(_linear(self.proj, attended))


def _linear(layer: Any, x: Tensor) -> Tensor:
    """A linear layer, or a convolution of one pixel with its channels last."""
    if is_bare(layer, nn.Conv2d):
        return F.linear(x, layer.weight.flatten(1), layer.bias)
    if isinstance(layer, nn.Linear) or weight_of(layer).ndim < 4:
        return layer(x)
    pixels = x.flatten(1, -2).transpose(1, 2).unsqueeze(-1)  # (B, C, tokens, 1)
    return layer(pixels).flatten(2).transpose(1, 2).unflatten(1, x.shape[1:-1])


class AdaptedAttention2d(MaxxVitHeads, Attention2d):
    """Attention whose projections are convolutions."""


class AdaptedAttentionCl(MaxxVitHeads, AttentionCl):
    """Attention whose projections are linear."""


class ConvMapBlock(ScaledMapBlock):
    """Mixin of blocks whose norms and MLP want channels first."""

    def told(self, x: Tensor) -> Tensor:
        return channels_last(self.norm1(channels_first(x)))

    def attention_branch(self, attended: Tensor) -> Tensor:
        return channels_last(super().attention_branch(channels_first(attended)))

    def mlp_branch(self, x: Tensor) -> Tensor:
        return channels_last(super().mlp_branch(channels_first(x)))


class AdaptedPartition2d(ConvMapBlock, PartitionAttention2d):
    """Attention in windows or grids, and an MLP."""


class AdaptedPartitionCl(ScaledMapBlock, PartitionAttentionCl):
    """The same of channels last."""


class AdaptedParallelPartition(ScaledMapBlock, ParallelPartitionAttention):
    """Attention in windows beside attention in grids, and an MLP."""

    def attn(self, x: Tensor, partitions: Sequence[Partition]) -> Tensor:
        """Map to map, both ``(B, height, width, dim)``."""
        return torch.cat([self.attn_block(x, partitions[:1]), self.attn_grid(x, partitions[1:])], dim=-1)


class AdaptedTransformer(ConvMapBlock, TransformerBlock2d):
    """Attention of the whole map, which may be half of what comes in.

    Attributes:
        adds: Positions are added to what comes in.
    """

    adds: bool

    def kept(self, x: Tensor, told: Tensor) -> Tensor:
        return channels_last(self.shortcut(channels_first(x)))

    def forward(self, x: Tensor, encoding: Composition, partitions: Sequence[Partition]) -> Tensor:
        """``(B, C, height, width)`` to ``(B, C', height', width')``."""
        x = channels_last(x)
        x = added(encoding, x) if self.adds else x
        return channels_first(super().forward(x, encoding, partitions))


class AdaptedMaxxVitBlock(MaxxVitBlock):
    """Convolutions, attention in windows if any, attention in grids.

    Attributes:
        adds: Positions are added behind the convolutions.
    """

    adds: bool

    def forward(self, x: Tensor, encoding: Composition, partitions: Sequence[Partition]) -> Tensor:
        """``(B, C, height, width)`` to ``(B, C', height', width')``."""
        x = channels_last(self.conv(x))
        x = added(encoding, x) if self.adds else x
        if self.attn_block is not None:
            x = self.attn_block(x, encoding, partitions[:1])
        return channels_first(self.attn_grid(x, encoding, partitions[-1:]))


class AdaptedParallelBlock(ParallelMaxxVitBlock):
    """Convolutions, and both kinds of attention side by side.

    Attributes:
        adds: Positions are added behind the convolutions.
    """

    adds: bool

    def forward(self, x: Tensor, encoding: Composition, partitions: Sequence[Partition]) -> Tensor:
        """``(B, C, height, width)`` to ``(B, C', height', width')``."""
        x = channels_last(self.conv(x))
        x = added(encoding, x) if self.adds else x
        return channels_first(self.attn(x, encoding, partitions))


ADAPTED: dict[type, type] = {
    Attention2d: AdaptedAttention2d,
    AttentionCl: AdaptedAttentionCl,
    MaxxVitBlock: AdaptedMaxxVitBlock,
    ParallelMaxxVitBlock: AdaptedParallelBlock,
    ParallelPartitionAttention: AdaptedParallelPartition,
    PartitionAttention2d: AdaptedPartition2d,
    PartitionAttentionCl: AdaptedPartitionCl,
    TransformerBlock2d: AdaptedTransformer,
}


def units(block: Any) -> list[tuple[Any, list[tuple[str, Any]]]]:
    """What of a block has attention and an MLP, in order, each with its attentions and their kinds; none of others."""
    if isinstance(block, TransformerBlock2d):
        return [(block, [("full", block.attn)])]
    if isinstance(block, ParallelMaxxVitBlock):
        return [(block.attn, [("window", block.attn.attn_block), ("grid", block.attn.attn_grid)])]
    if isinstance(block, MaxxVitBlock):
        both = (("window", block.attn_block), ("grid", block.attn_grid))
        return [(unit, [(kind, unit.attn)]) for kind, unit in both if unit is not None]
    return []
