"""CvT: a pyramid whose queries, keys and values come from convolutions."""

from visionpe.backbones.cvt import cvt_models
from visionpe.backbones.cvt.model import ConvolutionalTransformer

__all__ = ["ConvolutionalTransformer", "cvt_models"]
