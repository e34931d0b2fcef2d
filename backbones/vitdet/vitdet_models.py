"""The registered windowed ViTs: ``vitdet_<size>`` as published, ``<encoding>_vitdet_<size>`` with any encoding."""

from __future__ import annotations

from typing import Any

from visionpe.backbones.shared.registering import Family, base_cfg
from visionpe.backbones.vit import vit_models
from visionpe.backbones.vitdet.model import WindowedVisionTransformer

__all__: list[str] = []

SIZES = {
    "b": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "l": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "h": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}

SITE = "https://dl.fbaipublicfiles.com"
# our tag: size -> file; the default first
WEIGHTS = {
    "mask_rcnn_coco": {  # detectron2, started from MAE
        "b": "detectron2/ViTDet/COCO/mask_rcnn_vitdet_b/f325346929/model_final_61ccd1.pkl",
        "l": "detectron2/ViTDet/COCO/mask_rcnn_vitdet_l/f325599698/model_final_6146ed.pkl",
        "h": "detectron2/ViTDet/COCO/mask_rcnn_vitdet_h/f329145471/model_final_7224f1.pkl",
    },
    "sa1b": {
        "b": "segment_anything/sam_vit_b_01ec64.pth",
        "l": "segment_anything/sam_vit_l_0b3195.pth",
        "h": "segment_anything/sam_vit_h_4b8939.pth",
    },
    "mae_in1k": {
        "b": "mae/pretrain/mae_pretrain_vit_base.pth",
        "l": "mae/pretrain/mae_pretrain_vit_large.pth",
        "h": "detectron2/ImageNetPretrained/MAE/mae_pretrain_vit_huge_p14to16.pth",
    },
}

# RoPE-ViT's plain ViTs start a detector as MAE does, and have init_values=1e-4: encodings, and our name of the weights.
PLAIN, PLAIN_TAG = ("rope", "rope_mixed", "rope_axial", "ape"), "naver_in1k"

default_cfgs: dict[str, Any] = {}


def _cfgs(prefix: str, size: str) -> dict[str, dict[str, Any]]:
    """Preprocessing, and where the weights are; the published ones have no classifier of a map."""
    shared = base_cfg(input_size=(3, 1024, 1024), crop_pct=1.0, classifier="head")
    if prefix in PLAIN and size in ("b", "l"):
        source = vit_models.default_cfgs[f"{prefix}_vit_{size}"].cfgs[PLAIN_TAG].hf_hub_id
        return {PLAIN_TAG: {**shared, "hf_hub_id": source, "num_classes": 0}}
    if prefix:
        return {"": shared}
    files = {tag: f"{SITE}/{files[size]}" for tag, files in WEIGHTS.items()}
    return {
        tag: {**shared, "url": url, "num_classes": 0, "custom_load": url.endswith(".pkl")} for tag, url in files.items()
    }


FAMILY = Family(
    name="vitdet",
    model=WindowedVisionTransformer,
    sizes=SIZES,
    default="decomposed+ape",
    module=__name__,
    cfgs=_cfgs,
    out_indices=3,
)
FAMILY.register_all()
