"""Swin: attention in windows that move from block to block."""

from visionpe.backbones.swin import swin_models
from visionpe.backbones.swin.model import SwinTransformer

__all__ = ["SwinTransformer", "swin_models"]
