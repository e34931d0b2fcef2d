"""RMT: attention along rows, then columns, that fades with the distance."""

from visionpe.backbones.rmt import rmt_models
from visionpe.backbones.rmt.model import RMT

__all__ = ["RMT", "rmt_models"]
