"""Point Transformer V3: patches of voxels along space-filling curves."""

from visionpe.backbones.ptv3 import ptv3_models
from visionpe.backbones.ptv3.model import PointTransformerV3
from visionpe.backbones.ptv3.unet import PointTransformerV3UNet

__all__ = ["PointTransformerV3", "PointTransformerV3UNet", "ptv3_models"]
