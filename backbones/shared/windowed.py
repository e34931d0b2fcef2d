"""Mixins of timm's modules: attention told positions, in a sequence or in windows of a map, and blocks on maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from visionpe.attention.dispatch import AttentionWeights
from visionpe.backbones.shared.encoded import attend_as, encoded_attention
from visionpe.backbones.shared.partition import Padding, Partition
from visionpe.composition import Composition
from visionpe.grid import Grid
from visionpe.memo import Carried
from visionpe.mixed import MixedGrid
from visionpe.tracing import map_size


class EncodedHeads:
    """Mixin of attentions: from tokens to heads, from these to what they attended to, and back to tokens.

    Attributes:
        logit_factor: What logits are multiplied by, where it is not ``head_dim ** -0.5``.
    """

    logit_factor: float | None = None
    # False where heads mix, or anything else than one kernel makes of queries, keys and values what they attend to.
    plain_heads: ClassVar[bool] = True
    # Of the module.
    num_heads: int
    qkv: Any
    proj: Any
    proj_drop: Any

    def projections(self, x: Tensor) -> Tensor:
        """Tokens ``(..., dim)`` to queries, keys and values, ``(..., 3, heads, head_dim)``."""
        return self.qkv(x).unflatten(-1, (3, self.num_heads, -1))

    def compared(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys ``(B, heads, N, head_dim)`` as they are compared: normed, if at all."""
        return q, k

    def encoded(
        self,
        qkv: Tensor,
        encoding: Composition,
        grid: Grid | MixedGrid,
        *,
        layer: int = 0,
        mask: Tensor | None = None,
        tokens: Tensor | None = None,
        carried: Carried | None = None,
    ) -> Tensor:
        """Attention from projected tokens.

        Args:
            qkv: ``(B, N, 3, heads, head_dim)``; the heads may be some of the module's.
            encoding: What the tokens are told of their positions.
            grid: Where they stand.
            layer: Index of the block among those that the encoding serves.
            mask: Boolean (True takes part) or additive, broadcastable to ``(B, heads, N, N)``.
            tokens: What was projected, ``(B, N, dim)``, for encodings that read it.
            carried: What goes from block to block beside it, for encodings that carry something.

        Returns:
            ``(B, N, heads * head_dim)``.
        """
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, head_dim)
        q, k = self.compared(q, k)
        attended = encoded_attention(
            q,
            k,
            v,
            encoding,
            grid,
            layer=layer,
            mask=mask,
            scale=self.logit_factor,
            attended=self.attended,
            plain=self if self.plain_heads else None,
            tokens=tokens,
            carried=carried,
        )
        return attended.transpose(1, 2).flatten(2)

    def attended(self, v: Tensor, weights: AttentionWeights) -> tuple[Tensor, AttentionWeights]:
        """Values ``(B, heads, N, head_dim)`` by their weights, and the weights, for encodings that read them."""
        return attend_as(self, v, weights), weights

    def gating(self, x: Tensor) -> Tensor | None:
        """What the attended values are multiplied by, from the tokens, if anything."""
        return None

    def projected(self, attended: Tensor, gate: Tensor | None) -> Tensor:
        """What follows attention: norm, gate, projection, dropout."""
        return self.proj_drop(self.proj(attended if gate is None else attended * gate))


class WindowHeads(EncodedHeads):
    """Mixin of attentions inside windows or stripes of a map.

    Attributes:
        padding: See :class:`~visionpe.backbones.shared.block.WindowAttention`.
    """

    padding: Padding = "mask"

    def forward(self, x: Tensor, partitions: Sequence[Partition]) -> Tensor:
        """Attend.

        Args:
            x: The map, ``(B, height, width, dim)``.
            partitions: The ways to cut it; the heads are shared out evenly among them, in order.

        Returns:
            ``(B, height, width, dim)``.
        """
        gate = self.gating(x)
        first = partitions[0]
        if len(partitions) == 1 and (first.gather or self.padding == "tokens" or not first.windows.pads):
            if not first.encoding.reads_tokens:  # their memory is free then
                return self.projected(self._inside(self.projections(first.split(x)), first, x.shape[0]), gate)
            inside = first.split(x)
            return self.projected(self._inside(self.projections(inside), first, x.shape[0], inside), gate)
        # Padded after the projection, its tokens are zero, so that a convolution of the values sees zeros there.
        qkv = self.projections(x)  # (B, height, width, 3, heads, head_dim)
        shares = qkv.chunk(len(partitions), dim=-2)
        maps = []
        for cut, share in zip(partitions, shares):
            told = cut.windows.split(x) if cut.encoding.reads_tokens else None
            maps.append(self._inside(cut.windows.split(share), cut, x.shape[0], told))
        return self.projected(maps[0] if len(maps) == 1 else torch.cat(maps, dim=-1), gate)

    def _inside(self, qkv: Tensor, cut: Partition, batch: int, tokens: Tensor | None = None) -> Tensor:
        """Windows ``(B * windows, tokens, 3, heads, head_dim)`` to the map of attended values."""
        mask = cut.mask if cut.mask is None or batch == 1 else cut.mask.repeat(batch, 1, 1, 1)
        return cut.join(self.encoded(qkv, cut.encoding, cut.grid, layer=cut.layer, mask=mask, tokens=tokens), batch)


class MapBlock:
    """Mixin of blocks on maps ``(B, height, width, dim)``: attention in windows, an MLP, encodings of the whole map.

    What stands around the two is timm's pre-norm block, unless a class overrides it.

    Attributes:
        layer: Index of the block in its stage.
    """

    layer: int
    # Of the module.
    attn: Any
    mlp: Any
    norm1: Any
    norm2: Any
    drop_path1: Any
    drop_path2: Any

    def told(self, x: Tensor) -> Tensor:
        """What attention gets of the map."""
        return self.norm1(x)

    def kept(self, x: Tensor, told: Tensor) -> Tensor:
        """What that is added to: the map, or where the block changes it, what becomes of it without attention.

        Args:
            x: The map.
            told: What :meth:`told` makes of it.
        """
        return x

    def attention_branch(self, attended: Tensor) -> Tensor:
        """What is added to the map of what attention gives."""
        return self.drop_path1(attended)

    def mlp_branch(self, x: Tensor) -> Tensor:
        """What is added to the map after that."""
        return self.drop_path2(self.mlp(self.norm2(x)))

    def finished(self, x: Tensor) -> Tensor:
        """What becomes of the map behind both, before encodings refine it."""
        return x

    def forward(self, x: Tensor, encoding: Composition, partitions: Sequence[Partition]) -> Tensor:
        """Map to map, ``(B, height, width, dim)``.

        Args:
            encoding: Its sites ``inject`` and ``refine``, on the whole map.
            partitions: See :meth:`WindowHeads.forward`.
        """
        x = self._attended(x, encoding, partitions)
        x = self.finished(x + self.mlp_branch(x))
        if encoding.acts("refine"):
            grid = Grid(size=map_size(x))  # which may be smaller now
            x = encoding.refine(x.flatten(1, 2), grid, layer=self.layer).unflatten(1, grid.size)
        return x

    def _attended(self, x: Tensor, encoding: Composition, partitions: Sequence[Partition]) -> Tensor:
        """The first half, in a function of its own, so that the MLP finds its memory free."""
        told = self.told(x)
        kept = self.kept(x, told)
        if encoding.acts("inject"):
            grid = Grid(size=map_size(told))
            told = encoding.inject(told.flatten(1, 2), grid, layer=self.layer).unflatten(1, grid.size)
        return kept + self.attention_branch(self.attn(told, partitions))


class ScaledMapBlock(MapBlock):
    """The same, with a scale for every channel of what is added."""

    ls1: Any
    ls2: Any

    def attention_branch(self, attended: Tensor) -> Tensor:
        return self.drop_path1(self.ls1(attended))

    def mlp_branch(self, x: Tensor) -> Tensor:
        return self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
