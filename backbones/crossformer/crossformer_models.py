"""The registered CrossFormers: ``crossformer_<size>`` and ``crossformer_pp_<size>`` (CrossFormer++) as published.

Every encoding as ``<encoding>_crossformer_<size>`` and ``<encoding>_crossformer_pp_<size>``.
"""

from __future__ import annotations

from typing import Any

from visionpe.backbones.crossformer.model import CrossFormer
from visionpe.backbones.shared.registering import Family, base_cfg

__all__: list[str] = []

SIZES: dict[str, dict[str, Any]] = {
    "t": {"embed_dim": 64, "depths": (1, 1, 8, 6), "num_heads": (2, 4, 8, 16), "drop_path_rate": 0.1},
    "s": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.2},
    "b": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24), "drop_path_rate": 0.3},
    "l": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path_rate": 0.5},
}
PLUS: dict[str, Any] = {"group_size": (4, 4, 14, 7), "crs_interval": (4, 2, 1, 1), "use_acl": True}
PLUS_SIZES: dict[str, dict[str, Any]] = {
    "s": {"embed_dim": 64, "depths": (2, 2, 18, 2), "num_heads": (2, 4, 8, 16), "drop_path_rate": 0.2, **PLUS},
    "b": {**SIZES["b"], **PLUS},
    "l": {**SIZES["l"], **PLUS},
    "h": {**SIZES["l"], "depths": (6, 6, 18, 2), **PLUS},
}

default_cfgs: dict[str, Any] = {}


def _cfgs(prefix: str, size: str) -> dict[str, dict[str, Any]]:
    """Without sources: the published files lie where no program can fetch them. The middle 224 of 256 pixels."""
    stems = tuple(f"patch_embed.projs.{i}" for i in range(4))
    return {"": base_cfg(fixed_input_size=True, pool_size=(7, 7), crop_pct=0.875, first_conv=stems)}


for _name, _sizes in (("crossformer", SIZES), ("crossformer_pp", PLUS_SIZES)):
    Family(_name, CrossFormer, _sizes, "dpb", __name__, _cfgs).register_all()
