"""CPVT v2, which is Twins-PCPVT: a pyramid with spatial reduction, told positions by convolutions."""

from visionpe.backbones.cpvt import cpvt_models
from visionpe.backbones.cpvt.model import PyramidCPVT

__all__ = ["PyramidCPVT", "cpvt_models"]
