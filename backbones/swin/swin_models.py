"""The registered Swins: ``swin_<size>`` as published, and every encoding as ``<encoding>_swin_<size>``."""

from __future__ import annotations

from typing import Any

from timm.models import is_model_pretrained

from visionpe.backbones.shared.registering import Family, base_cfg, timm_cfg
from visionpe.backbones.swin.model import SwinTransformer

__all__: list[str] = []

SIZES: dict[str, dict[str, Any]] = {
    "t": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "s": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "b": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "l": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}
TIMM_SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large"}
TAGS = ("ms_in22k_ft_in1k", "ms_in1k", "ms_in22k")

# The angular base of RoPE-Swin differs from that of RoPE-ViT: a window holds fewer tokens than an image.
SPECS = {"rope_axial": {"name": "rope_axial", "theta": 50.0}}
# Our encoding: the authors' name of it. They test on the middle 224 of 256 pixels.
ROTARY = {"rope": "mixed", "rope_mixed": "mixed", "rope_axial": "axial"}

default_cfgs: dict[str, Any] = {}


def _cfgs(prefix: str, size: str) -> dict[str, dict[str, Any]]:
    """Weight sources and preprocessing as timm states them for the same files."""
    fixed = {
        "fixed_input_size": True,
        "pool_size": (7, 7),
    }  # so that img_size follows the weights; any size runs all the same
    if prefix in ROTARY and size != "l":
        source = f"naver-ai/swin_rope_{ROTARY[prefix]}_{TIMM_SIZES[size]}_patch4_window7_224"
        return {"naver_in1k": base_cfg(hf_hub_id=source, crop_pct=0.875, **fixed)}
    if prefix not in ("", "rpb"):
        return {"": base_cfg(**fixed)}
    # Of the tiny size, the weights from ImageNet-22k are the worse ones.
    tags = (TAGS[1], TAGS[0], TAGS[2]) if size == "t" else TAGS
    names = {tag: f"swin_{TIMM_SIZES[size]}_patch4_window7_224.{tag}" for tag in tags}
    return {tag: timm_cfg(name, **fixed) for tag, name in names.items() if is_model_pretrained(name)}


Family("swin", SwinTransformer, SIZES, "rpb", __name__, _cfgs, specs=SPECS).register_all()
