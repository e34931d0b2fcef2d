"""The registered ViTs: every encoding in every size, ``<encoding>_vit_<size>``."""

from __future__ import annotations

from typing import Any

from timm.models import is_model_pretrained

from visionpe.backbones.shared.registering import Family, base_cfg, timm_cfg
from visionpe.backbones.vit.model import VisionTransformer

__all__: list[str] = []

SIZES = {
    "ti": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "s": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "b": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "l": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}
TIMM_SIZES = {"ti": "tiny", "s": "small", "b": "base", "l": "large"}

COMPOSED = {"rope_ape": "rope_mixed+ape", "rope_mixed_ape": "rope_mixed+ape", "rope_axial_ape": "rope_axial+ape"}

# our encoding: {our tag: timm's name of the same weights}, the default first
WEIGHTS = {
    "rope": {"naver_in1k": "vit_{size}_patch16_rope_mixed_224.naver_in1k"},
    "rope_axial": {"naver_in1k": "vit_{size}_patch16_rope_224.naver_in1k"},
    "rope_ape": {"naver_in1k": "vit_{size}_patch16_rope_mixed_ape_224.naver_in1k"},
    "rope_axial_ape": {"naver_in1k": "vit_{size}_patch16_rope_ape_224.naver_in1k"},
    "ape": {
        "deit3_in1k": "deit3_{size}_patch16_224.fb_in1k",
        "deit3_in22k_ft_in1k": "deit3_{size}_patch16_224.fb_in22k_ft_in1k",
        "deit3_384_in1k": "deit3_{size}_patch16_384.fb_in1k",
        "deit3_384_in22k_ft_in1k": "deit3_{size}_patch16_384.fb_in22k_ft_in1k",
        "augreg_in21k_ft_in1k": "vit_{size}_patch16_224.augreg_in21k_ft_in1k",
        "augreg_384_in21k_ft_in1k": "vit_{size}_patch16_384.augreg_in21k_ft_in1k",
    },
}
WEIGHTS |= {"rope_mixed": WEIGHTS["rope"], "rope_mixed_ape": WEIGHTS["rope_ape"]}  # the same by their longer names
# The learned table that RoPE-ViT compares with, trained as its rotary models are.
COMPARED = {"s": "deit_small_patch16_LS", "b": "deit_base_patch16_LS", "l": "deit_large_patch16_LS"}
default_cfgs: dict[str, Any] = {}


def _cfgs(prefix: str, size: str) -> dict[str, dict[str, Any]]:
    """Weight sources and preprocessing as timm states them for the same files."""
    # So that img_size follows the weights; any size runs all the same.
    changes: dict[str, Any] = {"fixed_input_size": True, "classifier": "head"}
    names = {tag: name.format(size=TIMM_SIZES[size]) for tag, name in WEIGHTS.get(prefix, {}).items()}
    known = {tag: timm_cfg(name, **changes) for tag, name in names.items() if is_model_pretrained(name)}
    if prefix == "ape" and size in COMPARED:
        alike = timm_cfg(WEIGHTS["rope"]["naver_in1k"].format(size=TIMM_SIZES[size]), **changes)
        known["naver_in1k"] = alike | {"hf_hub_id": f"naver-ai/{COMPARED[size]}"}
    return known or {"": base_cfg(**changes)}


# No name without an encoding: the plain ViT is not one model but many.
FAMILY = Family("vit", VisionTransformer, SIZES, None, __name__, _cfgs, out_indices=3, carries=True)
FAMILY.register_encodings()
for _prefix, _spec in COMPOSED.items():
    FAMILY.register(_prefix, _spec)

# CPVT as in its paper (arXiv 2102.10882, section 4, tables 1 and 4): DeiT, a convolution after the first block in the
# place of its table; ``gap`` averages the tokens where there is no class token.
GAP = {"class_token": False, "global_pool": "avg", "fc_norm": False}
for _name, _options in (("cpvt", {}), ("cpvt_gap", GAP)):
    _sizes = {size: {**SIZES[size], "init_values": 0.0, **_options} for size in ("ti", "s", "b")}
    Family(_name, VisionTransformer, _sizes, None, __name__, _cfgs, out_indices=3).register("", "cpe")
