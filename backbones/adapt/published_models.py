"""Names of our own for the pretrained backbones that people ask for most: models of timm's, adapted.

Each is ``<weights>_vit_<size>``, with sizes ``ti s sp b l hp so400m g 7b``; weights come from where timm hosts them,
under its licences and with its preprocessing.
"""

from __future__ import annotations

from collections import defaultdict
from math import ceil
from typing import Any

from visionpe.backbones.adapt.naming import register

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


def _blocks(model: Any) -> tuple[int, ...]:
    return quarters(len(model.blocks))


default_cfgs: dict[str, Any] = {}


def _register_all() -> None:
    by_name: dict[str, dict[str, str]] = defaultdict(dict)
    for full, original in NAMES.items():
        variant, tag = full.split(".")
        by_name[variant][tag] = original
    for variant, originals in by_name.items():
        register(__name__, variant, originals, _blocks)


_register_all()
