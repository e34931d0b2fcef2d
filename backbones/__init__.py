"""Backbones registered with timm. Importing this package registers them."""

from typing import TYPE_CHECKING

from visionpe import encodings as _encodings  # noqa: F401  the names stand for these
from visionpe._renamed import old_modules
from visionpe.backbones import adapt as _adapt  # noqa: F401  what timm is to build again must be registered
from visionpe.backbones.cpvt import PyramidCPVT, cpvt_models
from visionpe.backbones.crossformer import CrossFormer, crossformer_models
from visionpe.backbones.cswin import CSWinTransformer, cswin_models
from visionpe.backbones.cvt import ConvolutionalTransformer, cvt_models
from visionpe.backbones.mit import MixTransformer, mit_models
from visionpe.backbones.ptv3 import PointTransformerV3, PointTransformerV3UNet, ptv3_models
from visionpe.backbones.rmt import RMT, rmt_models
from visionpe.backbones.swin import SwinTransformer, swin_models
from visionpe.backbones.swin3d import Swin3DTransformer, Swin3DUNet, swin3d_models
from visionpe.backbones.vit import VisionTransformer, vit_models
from visionpe.backbones.vitdet import WindowedVisionTransformer, vitdet_models
from visionpe.utils import timm_reading as _timm_reading

__all__ = [
    "RMT",
    "CSWinTransformer",
    "ConvolutionalTransformer",
    "CrossFormer",
    "MixTransformer",
    "PointTransformerV3",
    "PointTransformerV3UNet",
    "PyramidCPVT",
    "Swin3DTransformer",
    "Swin3DUNet",
    "SwinTransformer",
    "VisionTransformer",
    "WindowedVisionTransformer",
    "cpvt_models",
    "crossformer_models",
    "cswin_models",
    "cvt_models",
    "mit_models",
    "ptv3_models",
    "rmt_models",
    "swin3d_models",
    "swin_models",
    "vit_models",
    "vitdet_models",
]

_timm_reading.install()

if not TYPE_CHECKING:
    __getattr__ = old_modules(__name__)
