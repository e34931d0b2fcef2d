"""A feature pyramid from the one map of a plain vision transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from visionpe.checks import check_count, check_counts, check_number, shown
from visionpe.detection.models.features_weights import below, read_weights
from visionpe.detection.models.init_cfg import KeepsLoadedWeights
from visionpe.detection.models.pyramid_weights import levels_of
from visionpe.detection.running.checkpoint import load_weights
from visionpe.ranges import MAX_DIM
from visionpe.utils.weight_files import unwrapped

# Norm over the channels of a map, for the norm_cfg of heads: dict(type="LayerNorm2d", eps=1e-6).
MODELS.register_module(module=LayerNorm2d, force=True)


@MODELS.register_module()
class SimpleFeaturePyramid(KeepsLoadedWeights):
    """ViTDet's neck: every level is made from the last map of the backbone alone, without a top-down path.

    A level at twice the resolution is a transposed convolution that halves the channels; at four times, two of them
    with norm and GELU between; below one, max pooling. A 1 x 1 and a 3 x 3 convolution follow, each with a norm over
    the channels. Levels beyond ``scales`` are every second cell of the level before.

    Source: "Exploring Plain Vision Transformer Backbones for Object Detection", arXiv 2203.16527, section 3 and
    appendix A.2.

    Args:
        in_channels: Of the backbone's last map; a list counts by its last.
        out_channels: Of every level.
        scales: Resolution of the levels relative to the map, powers of two: 4, 2, 1, 0.5 make strides 4, 8, 16, 32 of
            stride 16.
        num_outs: Number of levels; default one for each scale.
        init_cfg: mmengine's initialisation. ``dict(type="Pretrained", checkpoint=..., prefix=...)`` takes weights of
            ours and those of detectron2 (``simfp_2`` ..., as published in ``.pkl`` files of whole detectors).

    Raises:
        ValueError: If a scale is no power of two or needs more halvings than ``in_channels`` allows, or ``num_outs``
            is smaller than the number of scales.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        num_outs: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if isinstance(in_channels, int):
            width = check_count("in_channels", in_channels, 1, MAX_DIM)
        else:
            width = check_counts("in_channels", in_channels, None, 1, MAX_DIM)[-1]
        check_count("out_channels", out_channels, 1, MAX_DIM)
        if isinstance(scales, str) or not isinstance(scales, Sequence):
            raise TypeError(f"scales={shown(scales)} is no sequence; allowed: powers of two, such as (4, 2, 1, 0.5)")
        if num_outs is not None:
            check_count("num_outs", num_outs, 1, 16)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_outs = len(scales) if num_outs is None else num_outs
        if not scales or self.num_outs < len(scales):
            raise ValueError(f"num_outs={num_outs} must be at least the number of scales={tuple(scales)}, at least 1")
        self.scales = tuple(scales)
        self.levels = nn.ModuleList(_level(width, out_channels, scale) for scale in scales)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps, of which the last ``(B, in_channels, height, width)`` counts, to ``num_outs`` levels, finest first.

        Returns:
            Levels ``(B, out_channels, scale * height, scale * width)``, rounded down below scale 1.
        """
        levels = [level(features[-1]) for level in self.levels]
        while len(levels) < self.num_outs:
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))  # (B, out, ceil(h / 2), ceil(w / 2))
        return tuple(levels)

    def load_weights(self, checkpoint: str, *, prefix: str = "") -> None:
        """Load a file of mmengine, or of detectron2; the levels must fit.

        Args:
            checkpoint: A file, or a URL that mmengine knows.
            prefix: Only what is below this name in the file, such as ``"neck."``.

        Raises:
            ValueError: If they do not fit; the first offending names are given.
        """
        source = f"checkpoint {checkpoint!r}"
        state = below(read_weights(checkpoint), prefix, source) if prefix else read_weights(checkpoint)
        load_weights(self, levels_of(state, self.levels, self.scales), source=source)
        print_log(f"Loaded the levels of {checkpoint}", logger="current")

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Weights under our names or detectron2's."""
        state = levels_of(unwrapped(state_dict), self.levels, self.scales)
        return super().load_state_dict(state, strict=strict, assign=assign)


def _level(width: int, out_channels: int, scale: float) -> nn.Sequential:
    """From the map of ``width`` channels to one level."""
    steps = math.log2(check_number("scales", scale, above=0, high=2**10))
    if steps != round(steps) or (steps > 0 and width % 2 ** round(steps)):
        raise ValueError(f"scales: {scale} must be a power of two by which in_channels={width} can be divided")
    layers: list[nn.Module] = []
    for step in range(round(steps)):
        if step:
            layers += [LayerNorm2d(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2))
        width //= 2
    layers += [nn.MaxPool2d(kernel_size=2, stride=2) for _ in range(-round(steps))]
    layers += [nn.Conv2d(width, out_channels, kernel_size=1, bias=False), LayerNorm2d(out_channels)]
    layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels)]
    return nn.Sequential(*layers)
