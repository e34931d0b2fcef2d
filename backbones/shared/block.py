"""The attention blocks that every backbone shares: timm's, told positions at the sites inside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.layers import Attention
from timm.models import checkpoint
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.fx import Proxy

from visionpe.attention.dispatch import AttentionWeights
from visionpe.backbones.shared.encoded import attend_as, encoded_attention
from visionpe.backbones.shared.windows import Windows
from visionpe.composition import Composition
from visionpe.graphs import one_node
from visionpe.grid import Grid
from visionpe.one_block import is_compiled, only
from visionpe.opaque import opaque
from visionpe.tracing import map_size

Padding = Literal["mask", "tokens", "values"]


@opaque
@dataclass(frozen=True)
class Partition:
    """One way in which attention partitions the map, and what its tokens are told of their positions inside.

    Args:
        windows: How the map is cut.
        encoding: Its sites ``rotate``, ``bias`` and ``mix``; positions are those inside a window.
        grid: Those positions. The blocks of one pass share the object, by which an encoding knows what it has kept
            from the block before.
        mask: Of ``windows``, or None where all tokens of a window may see each other.
        layer: Index of the block among those that ``encoding`` serves.
        gather: Of ``windows``, where it may take the place of padding and rolling: with a mask, and unless the
            encoding reads neighbours.
    """

    windows: Windows
    encoding: Composition
    grid: Grid
    mask: Tensor | None = None
    layer: int = 0
    gather: tuple[Tensor, Tensor] | None = None

    def for_one_block(self, x: Tensor) -> Partition:
        """The same, for a block that is compiled by itself and given ``x``."""
        encoding = only(self.encoding, self.layer, x, self.grid)
        return Partition(self.windows, encoding, self.grid, self.mask, self.layer, self.gather)

    def split(self, x: Tensor) -> Tensor:
        """``(B, height, width, C)`` to ``(B * windows, tokens, C)``."""
        if self.gather is None:
            return self.windows.split(x)
        return x.flatten(1, 2).index_select(1, self.gather[0]).view(-1, self.windows.tokens, x.shape[-1])

    def join(self, x: Tensor, batch: int) -> Tensor:
        """``(B * windows, tokens, C)`` to ``(B, height, width, C)``."""
        if self.gather is None:
            return self.windows.join(x)
        x = x.reshape(batch, self.windows.number * self.windows.tokens, x.shape[-1]).index_select(1, self.gather[1])
        return x.unflatten(1, self.windows.size)


class EncodedAttention(Attention):
    """timm's self-attention, same parameters, with the encoding's ``rotate``, ``bias`` and ``mix`` sites."""

    def encoded(
        self, qkv: Tensor, encoding: Composition, grid: Grid, *, layer: int = 0, mask: Tensor | None = None
    ) -> Tensor:
        """Attention from projected tokens.

        Args:
            qkv: ``(B, N, 3, heads, head_dim)``; the heads may be some of the module's.
            encoding: What the tokens are told of their positions.
            grid: Where they stand.
            layer: Index of the block among those that the encoding serves.
            mask: Boolean (True takes part) or additive, broadcastable to ``(B, heads, N, N)``.

        Returns:
            ``(B, N, heads * head_dim)``.
        """
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, head_dim)
        q, k = self.q_norm(q), self.k_norm(k)
        attended = encoded_attention(q, k, v, encoding, grid, layer=layer, mask=mask, attended=self.attended)
        return attended.transpose(1, 2).flatten(2)

    def attended(self, v: Tensor, weights: AttentionWeights) -> tuple[Tensor, AttentionWeights]:
        """Values ``(B, heads, N, head_dim)`` by their weights, and the weights, for encodings that read them."""
        return attend_as(self, v, weights), weights

    def projected(self, attended: Tensor, gate: Tensor | None) -> Tensor:
        """What follows attention: norm, gate, projection, dropout."""
        x = self.norm(attended)
        return self.proj_drop(self.proj(x if gate is None else x * gate))

    def forward(
        self, x: Tensor, encoding: Composition, grid: Grid, *, layer: int = 0, attn_mask: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            x: Tokens ``(B, N, dim)``, prefix tokens first.
            encoding, grid, layer, attn_mask: See :meth:`encoded`.

        Returns:
            ``(B, N, dim)``.
        """
        gate = self.gate(x).sigmoid() if self.gate is not None else None
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        return self.projected(self.encoded(qkv, encoding, grid, layer=layer, mask=attn_mask), gate)


class WindowAttention(EncodedAttention):
    """Self-attention inside windows or stripes of a map.

    Args:
        padding: What the padding of a window holds. ``mask``: nothing, no token sees it. ``tokens``: zero tokens,
            whose keys and values are the biases of the projection, unmasked (ViTDet, SAM). ``values``: zero queries,
            keys and values, unmasked (CSWin for dense prediction). The latter two are for published weights.
        args, kwargs: Of timm's attention.
    """

    def __init__(self, *args: Any, padding: Padding = "mask", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.padding = padding

    def forward(self, x: Tensor, partitions: Sequence[Partition]) -> Tensor:  # type: ignore[override]
        """Attend.

        Args:
            x: The map, ``(B, height, width, dim)``.
            partitions: The ways to cut it; the heads are shared out evenly among them, in order.

        Returns:
            ``(B, height, width, dim)``.
        """
        gate = self.gate(x).sigmoid() if self.gate is not None else None
        first = partitions[0]
        if len(partitions) == 1 and (first.gather or self.padding == "tokens" or not first.windows.pads):
            qkv = self.qkv(first.split(x)).unflatten(-1, (3, self.num_heads, self.head_dim))
            return self.projected(self._inside(qkv, first, x.shape[0]), gate)
        # Padded after the projection, its tokens are zero, so that a convolution of the values sees zeros there.
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))  # (B, height, width, 3, heads, head_dim)
        shares = qkv.chunk(len(partitions), dim=-2)
        maps = [self._inside(cut.windows.split(share), cut, x.shape[0]) for cut, share in zip(partitions, shares)]
        return self.projected(maps[0] if len(maps) == 1 else torch.cat(maps, dim=-1), gate)

    def _inside(self, qkv: Tensor, cut: Partition, batch: int) -> Tensor:
        """Windows ``(B * windows, tokens, 3, heads, head_dim)`` to the map of attended values."""
        mask = cut.mask if cut.mask is None or batch == 1 else cut.mask.repeat(batch, 1, 1, 1)
        return cut.join(self.encoded(qkv, cut.encoding, cut.grid, layer=cut.layer, mask=mask), batch)


class EncodedBlock(Block):
    """timm's pre-norm block around :class:`EncodedAttention`, or another attention of ours.

    Args:
        depth: Index of the block.
        attention: Its attention.
        args, kwargs: Of timm's block.
    """

    def __init__(
        self, *args: Any, depth: int = 0, attention: type[EncodedAttention] = EncodedAttention, **kwargs: Any
    ) -> None:
        super().__init__(*args, **{**kwargs, "attn_layer": attention}, depth=depth)
        self.layer = depth

    @one_node
    def forward(self, x: Tensor, encoding: Composition, grid: Grid, attn_mask: Tensor | None = None) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        normed = encoding.inject(self.norm1(x), grid, layer=self.layer)
        attended = self.attn(normed, encoding, grid, layer=self.layer, attn_mask=attn_mask)
        x = x + self.drop_path1(self.ls1(attended))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class WindowBlock(Block):
    """timm's pre-norm block around :class:`WindowAttention`, on maps ``(B, height, width, dim)``.

    Args:
        depth: Index of the block in its stage.
        padding: See :class:`WindowAttention`.
        args, kwargs: Of timm's block.
    """

    def __init__(self, *args: Any, depth: int = 0, padding: Padding = "mask", **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "attn_layer": WindowAttention}, depth=depth)
        self.layer = depth
        self.attn.padding = padding

    def forward(self, x: Tensor, encoding: Composition, partitions: Sequence[Partition]) -> Tensor:
        """Map to map, both ``(B, height, width, dim)``.

        Args:
            encoding: Its sites ``inject`` and ``refine``, on the whole map.
            partitions: See :meth:`WindowAttention.forward`.
        """
        grid = Grid(size=map_size(x))
        normed = self.norm1(x)
        if encoding.at("add"):
            normed = encoding.inject(normed.flatten(1, 2), grid, layer=self.layer).unflatten(1, grid.size)
        x = x + self.drop_path1(self.ls1(self.attn(normed, partitions)))
        x = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        if encoding.at("refine"):
            x = encoding.refine(x.flatten(1, 2), grid, layer=self.layer).unflatten(1, grid.size)
        return x


def run_block(
    block: nn.Module,
    index: int,
    x: Tensor,
    encoding: Composition,
    where: Grid | Sequence[Partition],
    *rest: Any,
    checkpointed: bool,
) -> Tensor:
    """Block ``index`` on ``x``; where it is compiled by itself, with what it needs of the encodings alone."""
    if is_compiled(block) and not isinstance(x, Proxy):
        if isinstance(where, Grid):
            encoding = only(encoding, index, x, where)
        else:
            encoding = only(encoding, index, x, Grid(size=map_size(x)))
            where = [cut.for_one_block(x) for cut in where]
    if checkpointed and not torch.jit.is_scripting():
        return checkpoint(block, x, encoding, where, *rest)
    return block(x, encoding, where, *rest)
