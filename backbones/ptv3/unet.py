"""Point Transformer V3's encoder and decoder: class scores for every voxel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import calculate_drop_path_rates
from torch import nn

from visionpe.backbones.ptv3.layers import Up
from visionpe.backbones.ptv3.model import PointTransformerV3
from visionpe.backbones.shared.pyramid import init_linear
from visionpe.backbones.shared.voxel_backbone import VoxelUNet
from visionpe.backbones.shared.voxel_checks import check_levels, check_settings
from visionpe.sparse import Voxels


class PointTransformerV3UNet(VoxelUNet, PointTransformerV3):
    """Voxels to class scores ``(N, num_classes)``, one row a voxel, in the order of the input.

    Source: "Point Transformer V3: Simpler, Faster, Stronger", arXiv 2312.10035.

    Args:
        num_classes: Of the scores; 0 gives the features of the decoder ``(N, decoder_dims[0])``.
        decoder_dims, decoder_depths, decoder_heads: Of every level but the last, the finest first. Patches are as large
            as in the encoder.
        kwargs: Of :class:`~visionpe.backbones.ptv3.model.PointTransformerV3`.

    Raises:
        ValueError: As there, or if the settings of the decoder differ in number or are out of range.
    """

    family = "Point Transformer V3 U-Net"
    decoder_of = "decoder"

    def __init__(
        self,
        *,
        num_classes: int = 20,
        decoder_dims: Sequence[int] = (64, 64, 128, 256),
        decoder_depths: Sequence[int] = (2, 2, 2, 2),
        decoder_heads: Sequence[int] = (4, 4, 8, 16),
        **kwargs: Any,
    ) -> None:
        check_settings(num_classes=num_classes)
        super().__init__(**{**kwargs, "num_classes": 0})
        lists = {"embed_dims": decoder_dims, "depths": decoder_depths, "num_heads": decoder_heads}
        dims, depths, heads = check_levels(0, kwargs.get("mlp_ratio", 4.0), **lists)
        if len(dims) != len(self.embed_dims) - 1:
            raise ValueError(f"decoder_dims={dims}: allowed: one for each of {len(self.embed_dims) - 1} finer levels")
        self.num_features = self.head_hidden_size = self.embed_dim = dims[0]
        rates = calculate_drop_path_rates(kwargs.get("drop_path_rate", 0.0), sum(depths))
        wide = (*dims, self.embed_dims[-1])
        self.decoder = nn.ModuleList()  # the coarsest first
        for i in reversed(range(len(dims))):
            up = Up(wide[i + 1], self.embed_dims[i], dims[i], self.form, **self.factory)
            own = rates[sum(depths[:i]) : sum(depths[: i + 1])]
            self.decoder.append(self.stage_of(i, dims[i], heads[i], own[::-1], up))
        self.reset_classifier(num_classes)
        init_linear(self.decoder)

    def forward_features(self, x: Any) -> Voxels:
        """Voxels to the same with the features of the decoder."""
        levels = self.walk(x)
        y, coarse, _, _ = levels.pop()
        stages: list[Any] = list(self.decoder)
        for stage in stages:
            skip, level, turns, bits = levels.pop()
            up, skip = (t.to(y.dtype) for t in stage.change(y, coarse, skip, level))
            if self.form == "conv":  # the authors' first convolution of a level sees the encoder's features alone
                y = stage(skip, level, turns, bits, beside=up)
            else:
                y = stage(skip + up, level, turns, bits)
            coarse = level
        return coarse.holding(y)

    def new_classifier(self, dim: int, num_classes: int) -> nn.Module:
        return nn.Linear(dim, num_classes, **self.factory)
