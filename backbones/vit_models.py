"""The registered ViTs: every encoding in every size, ``<encoding>_vit_<size>``."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model_pretrained, register_model

from visionpe.backbones.vit import VisionTransformer
from visionpe.backbones.vit_weights import checkpoint_filter_fn
from visionpe.registry import on_register

__all__: list[str] = []

SIZES = {
    "ti": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "s": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "b": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "l": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}
TIMM_SIZES = {"ti": "tiny", "s": "small", "b": "base", "l": "large"}

# Model names shorter than their specification; of two rotary forms the paper's best has the plain name.
SHORT = {"rope_mixed": "rope"}
COMPOSED = {"rope_ape": "rope_mixed+ape", "rope_axial_ape": "rope_axial+ape"}

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
COPIED = ("hf_hub_id", "url", "input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std", "license")

default_cfgs: dict[str, Any] = {}


def _cfg(timm_name: str | None = None) -> dict[str, Any]:
    """Weight source and preprocessing as timm states them for the same file."""
    cfg: dict[str, Any] = {
        "input_size": (3, 224, 224),
        "num_classes": 1000,
        "fixed_input_size": True,  # so that img_size follows the weights; any size runs all the same
        "mean": timm.data.IMAGENET_DEFAULT_MEAN,
        "std": timm.data.IMAGENET_DEFAULT_STD,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    if timm_name:
        source = timm.get_pretrained_cfg(timm_name, allow_unregistered=False)
        cfg |= {key: getattr(source, key) for key in COPIED if getattr(source, key) is not None}
    return cfg


def _weights(encoding: str, size: str) -> dict[str, dict[str, Any]]:
    names = {tag: name.format(size=TIMM_SIZES[size]) for tag, name in WEIGHTS.get(encoding, {}).items()}
    return {tag: _cfg(name) for tag, name in names.items() if is_model_pretrained(name)} or {"": _cfg()}


def _create(
    variant: str, pretrained: bool = False, pretrained_strict: bool = True, out_indices: Any = 3, **kwargs: Any
) -> VisionTransformer:
    return build_model_with_cfg(
        VisionTransformer,
        variant,
        pretrained,
        pretrained_strict=pretrained_strict,
        pretrained_filter_fn=partial(checkpoint_filter_fn, strict=pretrained_strict),
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **kwargs,
    )


def _register(encoding: str, spec: str) -> None:
    """Register ``<encoding>_vit_<size>`` in all sizes."""
    for size, architecture in SIZES.items():
        variant = f"{encoding}_vit_{size}"
        cfgs = {f"{variant}.{tag}" if tag else variant: cfg for tag, cfg in _weights(encoding, size).items()}
        default_cfgs.update(generate_default_cfgs(cfgs))

        def entry(
            pretrained: bool = False,
            *,
            _variant: str = variant,
            _defaults: dict[str, Any] = architecture,
            **kwargs: Any,
        ) -> VisionTransformer:
            return _create(_variant, pretrained, **{"pos_encoding": spec, **_defaults, **kwargs})

        entry.__name__ = entry.__qualname__ = variant
        entry.__doc__ = f"ViT-{size.upper()} with patches of 16 and pos_encoding={spec!r}."
        globals()[variant] = register_model(entry)


on_register(lambda name: _register(SHORT.get(name, name), name))
for _name, _spec in COMPOSED.items():
    _register(_name, _spec)
