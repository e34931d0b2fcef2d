"""Swin3D's encoder and decoder: class scores for every voxel."""

from __future__ import annotations

from typing import Any

from torch import nn

from visionpe.backbones.shared.pyramid import init_linear
from visionpe.backbones.shared.voxel_backbone import VoxelUNet
from visionpe.backbones.shared.voxel_blocks import VoxelBatchNorm
from visionpe.backbones.shared.voxel_checks import check_settings
from visionpe.backbones.swin3d.layers import Upsample
from visionpe.backbones.swin3d.model import Swin3DTransformer
from visionpe.sparse import Voxels

# Of the decoder's blocks, whatever the encoder's is, as published.
DROP_PATH = 0.1


class Swin3DUNet(VoxelUNet, Swin3DTransformer):
    """Voxels to class scores ``(N, num_classes)``, one row a voxel, in the order of the input.

    Source: "Swin3D: A Pretrained Transformer Backbone for 3D Indoor Scene Understanding", arXiv 2304.06906.

    Args:
        num_classes: Of the scores; 0 gives the features of the decoder ``(N, embed_dims[0])``.
        up_k: Neighbours from which a level is interpolated.
        decoder_attn: A block of attention on each level of the decoder, as models for segmentation have it.
        kwargs: Of :class:`~visionpe.backbones.swin3d.model.Swin3DTransformer`.

    Raises:
        ValueError: As there, or if ``up_k`` is not positive.
    """

    family = "Swin3D U-Net"
    decoder_of = "upsamples"

    def __init__(self, *, num_classes: int = 20, up_k: int = 3, decoder_attn: bool = True, **kwargs: Any) -> None:
        check_settings(up_k=up_k, decoder_attn=decoder_attn, num_classes=num_classes)
        super().__init__(**{**kwargs, "num_classes": 0})
        dims = self.embed_dims
        self.num_features = self.head_hidden_size = self.embed_dim = dims[0]
        self.upsamples = nn.ModuleList()
        for i in reversed(range(len(dims) - 1)):
            attends = decoder_attn and self.windows[i] > 0 and i >= self.first
            blocks = self.blocks_of(i, [DROP_PATH]) if attends else None
            self.upsamples.append(Upsample(dims[i + 1], dims[i], up_k, blocks, **self.factory))
        self.reset_classifier(num_classes)
        init_linear(self.upsamples)

    def forward_features(self, x: Any) -> Voxels:
        """Voxels to the same with the features of the decoder."""
        levels = self.encode(x)
        y, coarse = levels.pop()
        for up in self.upsamples:
            skip, level = levels.pop()
            y, coarse = up(y, coarse, skip, level).to(y.dtype), level
        return coarse.holding(y)

    def new_classifier(self, dim: int, num_classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(dim, dim, **self.factory),
            VoxelBatchNorm(dim, **self.factory),
            nn.ReLU(),
            nn.Linear(dim, num_classes, **self.factory),
        )
