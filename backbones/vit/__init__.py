"""The plain ViT."""

from visionpe.backbones.vit import vit_models
from visionpe.backbones.vit.model import VisionTransformer

__all__ = ["VisionTransformer", "vit_models"]
