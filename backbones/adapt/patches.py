"""timm's patch embeddings at any height and width."""

from __future__ import annotations

from typing import Any

from timm.layers import HybridEmbed, PatchEmbed
from timm.layers.format import Format
from torch import nn

from visionpe.backbones.shared.patches import AdaptivePatchEmbed


def any_size(embed: Any, kind: type[AdaptivePatchEmbed] = AdaptivePatchEmbed) -> None:
    """Let a patch embedding, changed in place, give maps ``(B, height, width, dim)`` of images of any size.

    Args:
        embed: timm's.
        kind: What a plain one becomes.

    Raises:
        TypeError: If its class is not known.
    """
    if type(embed) is PatchEmbed:
        embed.__class__ = kind
        embed.measure()
    elif type(embed) is not HybridEmbed:
        given: type[nn.Module] = type(embed)
        raise TypeError(
            f"model: patch embedding {given.__module__}.{given.__qualname__} is not known; allowed: PatchEmbed, "
            "HybridEmbed"
        )
    embed.strict_img_size, embed.flatten, embed.output_fmt = False, False, Format.NHWC
