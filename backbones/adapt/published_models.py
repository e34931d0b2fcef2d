"""Names of our own for the pretrained backbones that people ask for most: models of timm's, adapted.

Each is ``<weights>_vit_<size>``, with sizes ``ti s sp b l hp so400m g 7b``; weights come from where timm hosts them,
under its licences and with its preprocessing.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

import timm
from timm.models import PretrainedCfg, generate_default_cfgs, register_model

from visionpe.backbones.adapt.entry import adapted, as_features, check_feature_class
from visionpe.checks import shown

# Name and tag here: name and tag in timm. The first tag of a name is the default.
NAMES = {
    "dinov3_vit_s.lvd1689m": "vit_small_patch16_dinov3.lvd1689m",
    "dinov3_vit_sp.lvd1689m": "vit_small_plus_patch16_dinov3.lvd1689m",
    "dinov3_vit_b.lvd1689m": "vit_base_patch16_dinov3.lvd1689m",
    "dinov3_vit_l.lvd1689m": "vit_large_patch16_dinov3.lvd1689m",
    "dinov3_vit_l.sat493m": "vit_large_patch16_dinov3.sat493m",
    "dinov3_vit_hp.lvd1689m": "vit_huge_plus_patch16_dinov3.lvd1689m",
    "dinov3_vit_7b.lvd1689m": "vit_7b_patch16_dinov3.lvd1689m",
    "dinov3_vit_7b.sat493m": "vit_7b_patch16_dinov3.sat493m",
    "dinov2_vit_s.lvd142m": "vit_small_patch14_dinov2.lvd142m",
    "dinov2_vit_b.lvd142m": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_vit_l.lvd142m": "vit_large_patch14_dinov2.lvd142m",
    "dinov2_vit_g.lvd142m": "vit_giant_patch14_dinov2.lvd142m",
    "dinov2_reg_vit_s.lvd142m": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov2_reg_vit_b.lvd142m": "vit_base_patch14_reg4_dinov2.lvd142m",
    "dinov2_reg_vit_l.lvd142m": "vit_large_patch14_reg4_dinov2.lvd142m",
    "dinov2_reg_vit_g.lvd142m": "vit_giant_patch14_reg4_dinov2.lvd142m",
    "siglip2_vit_b.patch16_224": "vit_base_patch16_siglip_224.v2_webli",
    "siglip2_vit_b.patch16_256": "vit_base_patch16_siglip_256.v2_webli",
    "siglip2_vit_b.patch16_384": "vit_base_patch16_siglip_384.v2_webli",
    "siglip2_vit_b.patch16_512": "vit_base_patch16_siglip_512.v2_webli",
    "siglip2_vit_b.patch32_256": "vit_base_patch32_siglip_256.v2_webli",
    "siglip2_vit_l.patch16_256": "vit_large_patch16_siglip_256.v2_webli",
    "siglip2_vit_l.patch16_384": "vit_large_patch16_siglip_384.v2_webli",
    "siglip2_vit_l.patch16_512": "vit_large_patch16_siglip_512.v2_webli",
    "siglip2_vit_so400m.patch14_224": "vit_so400m_patch14_siglip_224.v2_webli",
    "siglip2_vit_so400m.patch14_378": "vit_so400m_patch14_siglip_378.v2_webli",
    "siglip2_vit_so400m.patch16_256": "vit_so400m_patch16_siglip_256.v2_webli",
    "siglip2_vit_so400m.patch16_384": "vit_so400m_patch16_siglip_384.v2_webli",
    "siglip2_vit_so400m.patch16_512": "vit_so400m_patch16_siglip_512.v2_webli",
    "siglip2_vit_g.patch16_256": "vit_giantopt_patch16_siglip_256.v2_webli",
    "siglip2_vit_g.patch16_384": "vit_giantopt_patch16_siglip_384.v2_webli",
    "pe_core_vit_ti.fb": "vit_pe_core_tiny_patch16_384.fb",
    "pe_core_vit_s.fb": "vit_pe_core_small_patch16_384.fb",
    "pe_core_vit_b.fb": "vit_pe_core_base_patch16_224.fb",
    "pe_core_vit_l.fb": "vit_pe_core_large_patch14_336.fb",
    "pe_core_vit_g.fb": "vit_pe_core_gigantic_patch14_448.fb",
    "pe_lang_vit_l.fb": "vit_pe_lang_large_patch14_448.fb",
    "pe_lang_vit_l.fb_tiling": "vit_pe_lang_large_patch14_448.fb_tiling",
    "pe_lang_vit_g.fb": "vit_pe_lang_gigantic_patch14_448.fb",
    "pe_lang_vit_g.fb_tiling": "vit_pe_lang_gigantic_patch14_448.fb_tiling",
    "pe_spatial_vit_ti.fb": "vit_pe_spatial_tiny_patch16_512.fb",
    "pe_spatial_vit_s.fb": "vit_pe_spatial_small_patch16_512.fb",
    "pe_spatial_vit_b.fb": "vit_pe_spatial_base_patch16_512.fb",
    "pe_spatial_vit_l.fb": "vit_pe_spatial_large_patch14_448.fb",
    "pe_spatial_vit_g.fb": "vit_pe_spatial_gigantic_patch14_448.fb",
    "eva02_vit_ti.mim_in22k_ft_in1k": "eva02_tiny_patch14_336.mim_in22k_ft_in1k",
    "eva02_vit_ti.mim_in22k": "eva02_tiny_patch14_224.mim_in22k",
    "eva02_vit_s.mim_in22k_ft_in1k": "eva02_small_patch14_336.mim_in22k_ft_in1k",
    "eva02_vit_s.mim_in22k": "eva02_small_patch14_224.mim_in22k",
    "eva02_vit_b.mim_in22k_ft_in22k_in1k": "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k",
    "eva02_vit_b.mim_in22k_ft_in22k": "eva02_base_patch14_448.mim_in22k_ft_in22k",
    "eva02_vit_b.mim_in22k_ft_in1k": "eva02_base_patch14_448.mim_in22k_ft_in1k",
    "eva02_vit_b.mim_in22k": "eva02_base_patch14_224.mim_in22k",
    "eva02_vit_l.mim_m38m_ft_in22k_in1k": "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k",
    "eva02_vit_l.mim_m38m_ft_in22k": "eva02_large_patch14_448.mim_m38m_ft_in22k",
    "eva02_vit_l.mim_m38m_ft_in1k": "eva02_large_patch14_448.mim_m38m_ft_in1k",
    "eva02_vit_l.mim_m38m": "eva02_large_patch14_224.mim_m38m",
    "eva02_vit_l.mim_in22k_ft_in22k_in1k": "eva02_large_patch14_448.mim_in22k_ft_in22k_in1k",
    "eva02_vit_l.mim_in22k_ft_in22k": "eva02_large_patch14_448.mim_in22k_ft_in22k",
    "eva02_vit_l.mim_in22k_ft_in1k": "eva02_large_patch14_448.mim_in22k_ft_in1k",
    "eva02_vit_l.mim_in22k": "eva02_large_patch14_224.mim_in22k",
}  # fmt: skip


def quarters(depth: int) -> tuple[int, ...]:
    """Blocks whose features dense heads take, as DINOv2 and DINOv3 have it: the last of each quarter of the depth."""
    if depth == 24:
        return (4, 11, 17, 23)  # of the first quarter the one before
    return tuple(sorted({ceil(depth * part / 4) - 1 for part in (1, 2, 3, 4)}))


def create(
    variant: str,
    originals: Mapping[str, str],
    pretrained: bool = False,
    *,
    pretrained_cfg: Any = None,
    features_only: bool = False,
    out_indices: Any = None,
    feature_cls: Any = None,
    **kwargs: Any,
) -> Any:
    """Build a model, as timm's entry points do.

    Args:
        variant: Name of the model.
        originals: Tag to name and tag in timm; the first is the default.
        pretrained: Load the weights, from where timm hosts them.
        pretrained_cfg: A tag, or a configuration of other weights of the default one's architecture.
        features_only: Give features ``(B, dim, height, width)`` between the blocks.
        out_indices: Of blocks; by default the last of each quarter of the depth.
        feature_cls: None or ``getter``, the same.
        kwargs: ``pos_encoding`` and ``policy``, see :func:`visionpe.adapt`, and keywords of timm's model.

    Raises:
        ValueError: If there is no such tag.
    """
    check_feature_class(feature_cls)
    tag = pretrained_cfg if isinstance(pretrained_cfg, str) and pretrained_cfg else next(iter(originals))
    if tag not in originals:
        raise ValueError(f"{variant}.{tag}: tag {shown(tag)} is unknown; allowed: {', '.join(originals)}")
    cfg = {} if pretrained_cfg is None or isinstance(pretrained_cfg, str) else {"pretrained_cfg": pretrained_cfg}
    model = adapted(pretrained, original=originals[tag], **cfg, **kwargs)
    if not features_only:
        return model
    return as_features(model, quarters(len(model.blocks)) if out_indices is None else out_indices)


def _cfg(original: str) -> PretrainedCfg:
    """What timm states of weights: source, preprocessing, licence. Adapted models take any size."""
    cfg = timm.get_pretrained_cfg(original, allow_unregistered=False)
    assert cfg is not None
    return replace(cfg, architecture=None, tag=None, fixed_input_size=False)


default_cfgs = generate_default_cfgs({name: _cfg(original) for name, original in NAMES.items()})


def _register_all() -> None:
    by_name: dict[str, dict[str, str]] = defaultdict(dict)
    for full, original in NAMES.items():
        variant, tag = full.split(".")
        by_name[variant][tag] = original
    for variant, originals in by_name.items():

        def entry(
            pretrained: bool = False,
            *,
            _variant: str = variant,
            _originals: Mapping[str, str] = originals,
            **kwargs: Any,
        ) -> Any:
            return create(_variant, _originals, pretrained, **kwargs)

        entry.__name__ = entry.__qualname__ = variant
        entry.__module__ = __name__
        entry.__doc__ = f"timm's {' or '.join(dict.fromkeys(n.split('.')[0] for n in originals.values()))}, adapted."
        setattr(sys.modules[__name__], variant, register_model(entry))


_register_all()
