"""Attention of all tokens of a map to fewer cells of it, which a convolution makes, and its blocks and stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import DropPath
from timm.models.twins import GlobalSubSampleAttn
from torch import Tensor, nn

from visionpe.backbones.shared.conv_embed import Slide
from visionpe.backbones.shared.encoded import encoded_attention
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.pyramid import Stage
from visionpe.backbones.shared.stage_encoding import built_by_default, works_pooled
from visionpe.backbones.shared.windowed import EncodedHeads, MapBlock
from visionpe.backbones.shared.windows import Pair, WholeMap
from visionpe.base import PositionEncoding
from visionpe.grid import Grid
from visionpe.tracing import map_size


def works_reduced(encoding: type[PositionEncoding]) -> bool:
    """Whether an encoding, as it is by default, can work where queries and keys are different tokens."""
    return works_pooled(built_by_default(encoding.name))


class ReducedAttention(EncodedHeads, GlobalSubSampleAttn):
    """Attention of all tokens to cells of them: PVT's spatial reduction. A convolution makes the cells, a norm follows.

    As published, what the cells leave over below and right is no key; a map smaller than a cell is one cell, padded
    with zeros.

    Source: "Pyramid Vision Transformer", arXiv 2102.12122, section 3.3.

    Args:
        dim, num_heads: Width of the tokens, and heads.
        sr_ratio: Side of a cell, tokens; 1 for all tokens.
        qkv_bias: In the projections to queries, keys and values.
        kwargs: Of timm's attention.
    """

    def __init__(self, dim: int, num_heads: int, *, sr_ratio: int = 1, qkv_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(dim, num_heads, sr_ratio=sr_ratio, **kwargs)
        if not qkv_bias:
            self.q.bias = self.kv.bias = None

    @property
    def slide(self) -> Slide:
        """How the convolution slides over the map."""
        return Slide(self.sr_ratio, self.sr_ratio)

    def grid(self, size: Pair) -> Grid:
        """Where queries and keys stand, of a map of this size."""
        return Grid(self.slide.size(size), queries=size) if self.sr_ratio > 1 else Grid(size)

    def forward(self, x: Tensor, partitions: Sequence[Partition]) -> Tensor:
        """``(B, height, width, dim)`` to the same."""
        (cut,) = partitions
        size, heads, tokens = map_size(x), self.num_heads, x.flatten(1, 2)
        q = self.q(tokens).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, N, head_dim)
        kv = self.kv(self._cells(x)).unflatten(-1, (2, heads, -1))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, cells, head_dim)
        attended = encoded_attention(
            q,
            k,
            v,
            cut.encoding,
            cut.grid,
            layer=cut.layer,
            attended=self.attended,
            tokens=tokens if cut.encoding.reads_tokens else None,
        )
        return self.projected(attended.transpose(1, 2).flatten(2), None).unflatten(1, size)

    def _cells(self, x: Tensor) -> Tensor:
        """The cells, ``(B, cells, dim)``."""
        if self.sr is None:
            return x.flatten(1, 2)
        cells = self.sr(self.slide.padded(x.permute(0, 3, 1, 2)))
        return self.norm(cells.flatten(2).transpose(1, 2))


class ReducedBlock(MapBlock, nn.Module):
    """A pre-norm block on maps ``(B, height, width, dim)``.

    Args:
        dim: Width of the tokens.
        attn, mlp: Its two parts.
        drop_path: Stochastic depth, 0 to 1.
        depth: Index of the block in its stage.
        norm_layer: Of both norms.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp: nn.Module,
        *,
        drop_path: float,
        depth: int,
        norm_layer: Any,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm1, self.attn = norm_layer(dim, **factory), attn
        self.norm2, self.mlp = norm_layer(dim, **factory), mlp
        self.drop_path1, self.drop_path2 = (DropPath(drop_path) if drop_path else nn.Identity() for _ in range(2))
        self.layer = depth


class ReducedStage(Stage):
    """Blocks whose attention is over the whole map, or cells of it."""

    @property
    def windows_grow(self) -> bool:
        return False

    def partitions(self, size: Pair, device: torch.device) -> list[list[Partition]]:
        attention: Any = self.blocks[0].attn
        grid, windows = attention.grid(size), WholeMap(size, size)
        inside: Any = self.pos_encoding.inside["whole"]
        return [[Partition(windows, inside, grid, layer=layer)] for layer in range(len(self.blocks))]
