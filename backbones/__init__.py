"""Backbones registered with timm. Importing this package registers them."""

from visionpe import encodings as _encodings  # noqa: F401  the names stand for these
from visionpe.backbones import cswin_models, swin3d_models, swin_models, vit_models, vitdet_models
from visionpe.backbones.cswin import CSWinTransformer
from visionpe.backbones.swin import SwinTransformer
from visionpe.backbones.swin3d import Swin3DTransformer
from visionpe.backbones.swin3d_unet import Swin3DUNet
from visionpe.backbones.vit import VisionTransformer
from visionpe.backbones.vitdet import WindowedVisionTransformer

__all__ = [
    "CSWinTransformer",
    "Swin3DTransformer",
    "Swin3DUNet",
    "SwinTransformer",
    "VisionTransformer",
    "WindowedVisionTransformer",
    "cswin_models",
    "swin3d_models",
    "swin_models",
    "vit_models",
    "vitdet_models",
]
