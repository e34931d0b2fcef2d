"""Norms of the features, for models that have none of their own: what detectors on MViTv2 have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

# What timm's models say where they are asked for norms of their features.
UNKNOWN = "unexpected keyword argument 'feature_norms'"
EPS = 1e-6


class FeatureNorms(nn.ModuleList):
    """A LayerNorm for each map, at the place of its stage, so that weights fit whatever features are asked for.

    They start at the identity, with epsilon 1e-6 as in detectron2's MViT.

    Args:
        channels: Of the maps.
        indices: Of their stages.
    """

    def __init__(self, channels: Sequence[int], indices: Sequence[int]) -> None:
        widths = dict(zip(indices, channels))
        super().__init__(
            nn.LayerNorm(widths[i], eps=EPS) if i in widths else nn.Identity() for i in range(max(indices) + 1)
        )

    def forward(self, maps: Sequence[Tensor], indices: Sequence[int]) -> list[Tensor]:
        """Maps ``(B, C, height, width)`` of these stages, normed over their channels."""
        # (B, height, width, C) inside
        return [self[i](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for i, x in zip(indices, maps)]


def added_norms(network: Any) -> FeatureNorms | None:
    """The norms that were added to a network, if any."""
    norms = getattr(network, "norms", None)
    return norms if isinstance(norms, FeatureNorms) else None
