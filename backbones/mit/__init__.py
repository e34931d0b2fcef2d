"""MiT, SegFormer's encoder: a pyramid with spatial reduction and convolutions inside its MLPs."""

from visionpe.backbones.mit import mit_models
from visionpe.backbones.mit.model import MixTransformer

__all__ = ["MixTransformer", "mit_models"]
