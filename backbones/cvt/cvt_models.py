"""The registered CvTs: ``cvt_13``, ``cvt_21``, ``cvt_w24`` as published, and every encoding that can work in them."""

from __future__ import annotations

from typing import Any

from visionpe.backbones.cvt.model import ConvolutionalTransformer
from visionpe.backbones.shared.reduced import works_reduced
from visionpe.backbones.shared.registering import Family, base_cfg

__all__: list[str] = []

SIZES: dict[str, dict[str, Any]] = {
    "13": {"embed_dim": (64, 192, 384), "depths": (1, 2, 10), "num_heads": (1, 3, 6)},
    "21": {"embed_dim": (64, 192, 384), "depths": (1, 4, 16), "num_heads": (1, 3, 6)},
    "w24": {"embed_dim": (192, 768, 1024), "depths": (2, 2, 20), "num_heads": (3, 12, 16)},
}
default_cfgs: dict[str, Any] = {}


def _cfgs(prefix: str, size: str) -> dict[str, dict[str, Any]]:
    """No source of weights: the authors' files lie behind a page that programs cannot read; W24's are of 384 pixels."""
    side = 384 if size == "w24" else 224
    return {"": base_cfg(fixed_input_size=True, input_size=(3, side, side), crop_pct=224 / 256)}


Family(
    "cvt", ConvolutionalTransformer, SIZES, "none", __name__, _cfgs, out_indices=(0, 1, 2), takes=works_reduced
).register_all()
