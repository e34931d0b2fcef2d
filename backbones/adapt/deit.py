"""timm's ``VisionTransformerDistilled``: DeiT with a distillation token."""

from __future__ import annotations

from timm.models.deit import VisionTransformerDistilled
from torch import Tensor

from visionpe.backbones.adapt.adapted import adapts
from visionpe.backbones.adapt.vision_transformer import AdaptedVisionTransformer


@adapts(VisionTransformerDistilled)
class AdaptedVisionTransformerDistilled(AdaptedVisionTransformer, VisionTransformerDistilled):
    """As ViT, with a distillation token behind the class token."""

    def prefix_tokens(self) -> list[Tensor]:
        return [self.cls_token, self.dist_token]
