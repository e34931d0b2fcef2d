"""The attention blocks that every backbone shares: timm's, told positions at the sites inside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Attention
from timm.models import checkpoint
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.fx import Proxy

from visionpe.backbones.shared.mixed_attention import dropped
from visionpe.backbones.shared.partition import Padding, Partition
from visionpe.backbones.shared.windowed import EncodedHeads, ScaledMapBlock, WindowHeads
from visionpe.composition import Composition
from visionpe.graphs import one_node
from visionpe.grid import Grid
from visionpe.memo import Carried
from visionpe.mixed import MixedGrid
from visionpe.one_block import is_compiled, only
from visionpe.tracing import map_size


class EncodedAttention(EncodedHeads, Attention):
    """timm's self-attention, same parameters, with the encoding's sites inside it."""

    def projections(self, x: Tensor) -> Tensor:
        return self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))

    def compared(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_norm(q), self.k_norm(k)

    def gating(self, x: Tensor) -> Tensor | None:
        return None if self.gate is None else self.gate(x).sigmoid()

    def projected(self, attended: Tensor, gate: Tensor | None) -> Tensor:
        return super().projected(self.norm(attended), gate)

    def forward(
        self,
        x: Tensor,
        encoding: Composition,
        grid: Grid | MixedGrid,
        *,
        layer: int = 0,
        attn_mask: Tensor | None = None,
        carried: Carried | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: Tokens ``(B, N, dim)``, prefix tokens first.
            encoding, grid, layer, attn_mask, carried: See :meth:`encoded`.

        Returns:
            ``(B, N, dim)``.
        """
        gate = self.gating(x)
        told: dict[str, Any] = {"layer": layer, "mask": attn_mask, "tokens": x, "carried": carried}
        attended = self.encoded(self.projections(x), encoding, grid, **told)
        return self.projected(attended, gate)


class WindowAttention(WindowHeads, EncodedAttention):
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
    def forward(
        self,
        x: Tensor,
        encoding: Composition,
        grid: Grid | MixedGrid,
        attn_mask: Tensor | None = None,
        *tensors: Tensor,
    ) -> Any:
        """Tokens ``(B, N, dim)`` to tokens; with those the ``tensors`` that go beside them, if the encoding has any."""
        carried = encoding.carrying(grid, tensors)
        beside = {} if carried is None else {"carried": carried}
        normed = encoding.inject(self.norm1(x), grid, layer=self.layer)
        attended = self.attn(normed, encoding, grid, layer=self.layer, attn_mask=attn_mask, **beside)
        x = x + dropped(self.drop_path1, self.ls1(attended), grid)
        fed = self.mlp(self.norm2(x))
        x = x + dropped(self.drop_path2, self.ls2(fed), grid)
        if carried is None:
            return x
        encoding.carry(fed, grid, carried, layer=self.layer)
        return (x, *carried.tensors)


class WindowBlock(ScaledMapBlock, Block):
    """timm's pre-norm block around :class:`WindowAttention`, on maps ``(B, height, width, dim)``.

    Args:
        depth: Index of the block in its stage.
        padding: See :class:`WindowAttention`.
        attention: Its attention.
        args, kwargs: Of timm's block.
    """

    def __init__(
        self,
        *args: Any,
        depth: int = 0,
        padding: Padding = "mask",
        attention: type[WindowAttention] = WindowAttention,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{**kwargs, "attn_layer": attention}, depth=depth)
        self.layer = depth
        self.attn.padding = padding


def tokens_of(x: Any) -> Tensor:
    """The tokens that a block gives, of what it gives besides."""
    return x[0] if isinstance(x, tuple) else x


def run_block(
    block: nn.Module,
    index: int,
    x: Tensor,
    encoding: Composition,
    where: Grid | MixedGrid | Sequence[Partition],
    *rest: Any,
    checkpointed: bool,
) -> Any:
    """Block ``index`` on ``x``; where it is compiled by itself, with what it needs of the encodings alone."""
    if is_compiled(block) and not isinstance(x, Proxy) and not isinstance(where, MixedGrid):
        if isinstance(where, Grid):
            encoding = only(encoding, index, x, where)
        else:
            encoding = only(encoding, index, x, Grid(size=map_size(x)))
            where = [cut.for_one_block(x) for cut in where]
    if checkpointed and not torch.jit.is_scripting():
        return checkpoint(block, x, encoding, where, *rest)
    return block(x, encoding, where, *rest)
