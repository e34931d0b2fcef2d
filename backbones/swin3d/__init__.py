"""Swin3D: attention in windows of sparse voxels."""

from visionpe.backbones.swin3d import swin3d_models
from visionpe.backbones.swin3d.model import Swin3DTransformer
from visionpe.backbones.swin3d.unet import Swin3DUNet

__all__ = ["Swin3DTransformer", "Swin3DUNet", "swin3d_models"]
