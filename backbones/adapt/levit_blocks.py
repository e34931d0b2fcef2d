"""Blocks and stages of timm's ``Levit`` on maps of any size, told positions by what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from timm.models.levit import (
    Attention,
    AttentionDownsample,
    ConvNorm,
    Downsample,
    LevitBlock,
    LevitDownsample,
    LevitStage,
    LinearNorm,
)
from torch import Tensor, nn

from visionpe.backbones.shared.block import run_block
from visionpe.backbones.shared.encoded import encoded_attention
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.windowed import EncodedHeads, MapBlock
from visionpe.backbones.shared.windows import Pair, WholeMap
from visionpe.grid import Grid
from visionpe.tracing import map_size


class MapLinearNorm(LinearNorm):
    """A linear layer and its norm on maps ``(B, height, width, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.bn(x.flatten(0, 2)).reshape_as(x)


class MapConvNorm(ConvNorm):
    """A convolution of single tokens and its norm on maps ``(B, height, width, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class MapDownsample(Downsample):
    """Every second token of a map ``(B, height, width, C)``, or the mean around it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is None:
            return x[:, :: self.stride, :: self.stride]
        return self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class MapPool(nn.AvgPool2d):
    """The same of models with convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class LevitHeads(EncodedHeads, nn.Module):
    """Mixin of their attentions, which have no dropout and no bias of their own."""

    attn_drop: ClassVar[nn.Module] = nn.Dropout(0.0)
    proj_drop: ClassVar[nn.Module] = nn.Identity()
    fused_attn: ClassVar[bool] = True
    # Of the module.
    qkv: Any
    kv: Any
    q: Any
    num_heads: Any
    key_dim: Any
    val_dim: Any

    def reset_parameters(self) -> None:
        """As timm draws weights anew it asks for it; nothing is left that is no layer."""

    def init_non_persistent_buffers(self) -> None:
        """Likewise of buffers."""

    def heads(self, projected: Tensor, widths: Sequence[int]) -> list[Tensor]:
        """``(B, height, width, heads * sum(widths))`` to one ``(B, heads, N, width)`` each."""
        batch, height, width = projected.shape[:3]
        split = projected.reshape(batch, height * width, self.num_heads, sum(widths)).transpose(1, 2)
        return list(split.split_with_sizes(list(widths), dim=-1))

    def onto_map(self, q: Tensor, k: Tensor, v: Tensor, size: Pair, cut: Partition) -> Tensor:
        """Attend, and project to the map of queries, ``(B, height, width, dim)``."""
        out = encoded_attention(q, k, v, cut.encoding, cut.grid, layer=cut.layer, attended=self.attended)
        on_map: Tensor = out.transpose(1, 2).reshape(out.shape[0], *size, self.num_heads * out.shape[-1])
        return self.projected(on_map, None)  # type: ignore[operator]


class AdaptedLevitAttention(LevitHeads, Attention):
    """Attention of all tokens to all, with values wider than keys."""

    def forward(self, x: Tensor, partitions: Sequence[Partition]) -> Tensor:
        """``(B, height, width, dim)`` to the same."""
        q, k, v = self.heads(self.qkv(x), (self.key_dim, self.key_dim, self.val_dim))
        return self.onto_map(q, k, v, map_size(x), partitions[0])


class AdaptedLevitAttentionDownsample(LevitHeads, AttentionDownsample):
    """Attention of every second token to all."""

    def forward(self, x: Tensor, partitions: Sequence[Partition]) -> Tensor:
        """``(B, height, width, dim)`` to ``(B, height / stride, width / stride, dim_out)``, rounded up."""
        k, v = self.heads(self.kv(x), (self.key_dim, self.val_dim))
        queries = self.q(x)
        (q,) = self.heads(queries, (self.key_dim,))
        return self.onto_map(q, k, v, map_size(queries), partitions[0])


class AdaptedLevitBlock(MapBlock, LevitBlock):
    """Its block, whose norms are inside the layers."""

    def told(self, x: Tensor) -> Tensor:
        return x

    def mlp_branch(self, x: Tensor) -> Tensor:
        return self.drop_path2(self.mlp(x))


class AdaptedLevitDownsample(LevitDownsample):
    """The block that shrinks the map; nothing of it goes past attention."""

    def forward(self, x: Tensor, encoding: Any, partitions: Sequence[Partition]) -> Tensor:
        """As blocks are called; of the encodings of the map none acts here."""
        x = self.attn_downsample(x, partitions)
        return x + self.drop_path(self.mlp(x))


class AdaptedLevitStage(LevitStage):
    """Its stage."""

    @property
    def shrinks(self) -> bool:
        """Whether it begins with the block that shrinks the map."""
        return isinstance(self.downsample, LevitDownsample)

    def attentions(self) -> dict[str, list[Any]]:
        """Those of every kind of window."""
        blocks = {"whole": [block.attn for block in self.blocks]}
        return {"entering": [self.downsample.attn_downsample], **blocks} if self.shrinks else blocks

    def forward(self, x: Tensor, encoding: Any, checkpointed: bool = False) -> Tensor:
        """Map to map, ``(B, height, width, dim)``, with the :class:`StageEncoding` of the stage."""
        if self.shrinks:
            size, stride = map_size(x), self.downsample.attn_downsample.stride
            grid = Grid(size=size, stride=(stride, stride))
            cut = Partition(WholeMap(size, size), encoding.inside["entering"], grid)
            x = run_block(self.downsample, 0, x, encoding.map, [cut], checkpointed=checkpointed)
        size = map_size(x)
        windows, grid = WholeMap(size, size), Grid(size=size)
        if encoding.map.acts("add"):
            x = encoding.map.add(x.flatten(1, 2), grid).unflatten(1, size)
        for block in self.blocks:
            cut = Partition(windows, encoding.inside["whole"], grid, layer=block.layer)
            x = run_block(block, block.layer, x, encoding.map, [cut], checkpointed=checkpointed)
        return x


ON_MAPS: dict[type, type] = {
    LinearNorm: MapLinearNorm,
    ConvNorm: MapConvNorm,
    Downsample: MapDownsample,
    nn.AvgPool2d: MapPool,
    Attention: AdaptedLevitAttention,
    AttentionDownsample: AdaptedLevitAttentionDownsample,
    LevitBlock: AdaptedLevitBlock,
    LevitDownsample: AdaptedLevitDownsample,
    LevitStage: AdaptedLevitStage,
}
