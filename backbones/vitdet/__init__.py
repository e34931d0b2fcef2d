"""ViT with attention in windows and a few global blocks: ViTDet, SAM's image encoder."""

from visionpe.backbones.vitdet import vitdet_models
from visionpe.backbones.vitdet.model import WindowedVisionTransformer

__all__ = ["WindowedVisionTransformer", "vitdet_models"]
