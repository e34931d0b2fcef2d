"""timm's ``VisionTransformer``: ViT, DeiT, CLIP, SigLIP, DINOv2, registers, hybrids, and whatever its blocks are."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import VisionTransformer

from visionpe.backbones.adapt.adapted import adapts
from visionpe.backbones.adapt.plain import AdaptedPlain


@adapts(VisionTransformer)
class AdaptedVisionTransformer(AdaptedPlain, VisionTransformer):
    """A learned table of absolute positions, resized as timm does with ``dynamic_img_size``, or none."""

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        return [] if model.pos_embed is None else [{"name": "ape"}]
