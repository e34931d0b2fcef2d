"""A backbone that learns to give the features of another: how positions of trained weights are exchanged."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor

TEACHER = "teacher."


def unexplained(found: Tensor, wanted: Tensor) -> Tensor:
    """Share of the variance of features that others leave unexplained: 0 where they are equal, 1 for their mean.

    Args:
        found, wanted: Maps ``(B, C, height, width)``; the mean is that of each channel of ``wanted`` in the batch.
    """
    spread = (wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    return (found - wanted).square().mean() / spread.clamp(min=torch.finfo(spread.dtype).tiny)


@MODELS.register_module()
class FeatureDistiller(BaseModel):
    """Trains a backbone on the features that another gives of the same images, without labels.

    With ``pos_encoding`` in ``backbone`` and the weights of the teacher in both, what is learned is another position
    encoding for weights that had one. Checkpoints hold the backbone alone (``backbone.``), and load wherever one of
    mmdet or mmseg does.

    Args:
        backbone: Config of the one that is trained, such as ``TimmFeatures``.
        teacher: Config of the other, which stays as it is.
        data_preprocessor: As for any model of mmengine.

    Raises:
        ValueError: If the two give other numbers of maps, or maps of other shapes.
    """

    def __init__(
        self, backbone: dict[str, Any], teacher: dict[str, Any], data_preprocessor: dict[str, Any] | None = None
    ) -> None:
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.teacher = MODELS.build(teacher).requires_grad_(False)
        self._register_state_dict_hook(_without_teacher)

    def train(self, mode: bool = True) -> FeatureDistiller:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        """Images ``(B, C, H, W)``: the maps of the backbone, or with ``mode="loss"`` what they lack, map by map."""
        found = self.backbone(inputs)
        if mode != "loss":
            return found
        with torch.no_grad():
            wanted = self.teacher(inputs)
        shapes = [[tuple(t.shape) for t in maps] for maps in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"backbone gives maps {shapes[0]}, teacher {shapes[1]}; allowed: the same shapes")
        return {
            f"loss_{i}": unexplained(own.float(), other.float()) for i, (own, other) in enumerate(zip(found, wanted))
        }


def _without_teacher(model: FeatureDistiller, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for key in [key for key in state if key.startswith(prefix + TEACHER)]:
        del state[key]
