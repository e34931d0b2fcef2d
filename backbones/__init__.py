"""Backbones registered with timm. Importing this package registers them."""

from visionpe import encodings as _encodings  # noqa: F401  the names stand for these
from visionpe.backbones import vit_models
from visionpe.backbones.vit import VisionTransformer

__all__ = ["VisionTransformer", "vit_models"]
