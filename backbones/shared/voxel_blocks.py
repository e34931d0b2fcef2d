"""Blocks of transformers on sparse voxels: attention inside the parts of a partition."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import Block
from torch import Tensor, nn

from visionpe.backbones.shared.block import EncodedAttention
from visionpe.backbones.shared.stage_encoding import StageEncoding
from visionpe.backbones.shared.voxel_level import Level, Parts
from visionpe.composition import Composition


class VoxelBatchNorm(nn.BatchNorm1d):
    """Batch norm over all voxels of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            raise ValueError("features: 1 voxel in the whole batch; batch norm needs 2 or more in training")
        return super().forward(x)


class SparseAttention(EncodedAttention):
    """Self-attention among the voxels of each part."""

    def forward(self, x: Tensor, encoding: Composition, cut: Parts, layer: int) -> Tensor:
        """Attend.

        Args:
            x: ``(N, dim)``.
            encoding: What voxels are told of their positions in a part.
            cut: The parts, such as windows.
            layer: Index of the block among those that the encoding serves.

        Returns:
            ``(N, dim)``.
        """
        gate = self.gate(x).sigmoid() if self.gate is not None else None
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        parts = [
            self.encoded(part, encoding, pack.grid, layer=layer, mask=pack.mask)  # (parts, length, dim)
            for part, pack in zip(cut.split(qkv), cut.packs)
        ]
        return self.projected(cut.join(parts), gate)


class SparseBlock(Block):
    """timm's pre-norm block around :class:`SparseAttention`; drop path draws one coin a voxel, as published.

    Args:
        depth: Index of the block in its stage.
        args, kwargs: Of timm's block.
    """

    def __init__(self, *args: Any, depth: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "attn_layer": SparseAttention}, depth=depth)
        self.layer = depth

    def forward(self, x: Tensor, encoding: StageEncoding, level: Level, cut: Parts) -> Tensor:
        """``(N, dim)`` to ``(N, dim)``."""
        inside: Any = encoding.inside["window"]
        normed = self.norm1(x)
        if encoding.map.acts("inject"):
            normed = encoding.map.inject(normed[None], level.places, layer=self.layer)[0]
        x = x + self.drop_path1(self.ls1(self.attn(normed, inside, cut, self.layer)))
        x = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        if encoding.map.acts("refine"):
            x = encoding.map.refine(x[None], level.cells, layer=self.layer)[0]
        return x
