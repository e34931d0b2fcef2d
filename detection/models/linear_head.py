"""A linear classifier of every position of a map."""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """Batch norm and a linear layer, as DINOv2 measures frozen features (arXiv 2304.07193, section 7.4).

    Args:
        in_channels: Of the map; of all maps together with ``input_transform="resize_concat"``, where it is a list.
        kwargs: Of mmseg's ``BaseDecodeHead``; ``norm_cfg`` is the norm.
    """

    def __init__(self, in_channels: int | list[int], **kwargs: Any) -> None:
        total = in_channels if isinstance(in_channels, int) else sum(in_channels)
        super().__init__(in_channels, channels=total, **{"norm_cfg": {"type": "SyncBN"}, **kwargs})
        _, self.bn = build_norm_layer(self.norm_cfg, total)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Maps ``(B, C, height, width)`` to scores ``(B, classes, height, width)``."""
        return self.cls_seg(self.bn(self._transform_inputs(inputs)))
