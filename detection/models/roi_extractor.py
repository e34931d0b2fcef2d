"""Features of regions whose gradient is scaled on its way back."""

from __future__ import annotations

from typing import Any

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.registry import MODELS
from torch import Tensor

from visionpe.checks import check_number


@MODELS.register_module()
class ScaledGradientRoIExtractor(SingleRoIExtractor):
    """mmdet's ``SingleRoIExtractor``; the backbone and neck get ``gradient_scale`` of the gradient of its features.

    In detectron2's cascades every stage trains its own head in full, and what is shared by their mean:
    ``gradient_scale=1 / 3`` for three stages of equal weight.

    Args:
        gradient_scale: Factor, 0 or more.
        args, kwargs: See mmdet's class.

    Raises:
        ValueError: If ``gradient_scale`` is negative or no number.
    """

    def __init__(self, *args: Any, gradient_scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gradient_scale = check_number("gradient_scale", gradient_scale, 0)

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Maps ``(B, C, height, width)`` and regions ``(N, 5)`` to features ``(N, C, side, side)``."""
        features = super().forward(feats, rois, roi_scale_factor)
        if features.requires_grad:
            features.register_hook(lambda gradient: gradient * self.gradient_scale)
        return features
