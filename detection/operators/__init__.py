"""``mmcv.ops`` without compiling: a stand-in for the extension, on torchvision and PyTorch."""

from visionpe.detection.operators.extension import install

__all__ = ["install"]
