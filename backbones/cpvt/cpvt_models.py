"""The registered CPVTs of version 2: ``cpvt_v2_<size>`` as published, and every encoding that can work in them."""

from __future__ import annotations

from typing import Any

from visionpe.backbones.cpvt.model import PyramidCPVT
from visionpe.backbones.shared.reduced import works_reduced
from visionpe.backbones.shared.registering import Family, base_cfg, timm_cfg

__all__: list[str] = []

COMMON: dict[str, Any] = {"embed_dim": (64, 128, 320, 512), "num_heads": (1, 2, 5, 8)}
SIZES: dict[str, dict[str, Any]] = {
    "s": COMMON | {"depths": (3, 4, 6, 3)},
    "b": COMMON | {"depths": (3, 4, 18, 3)},
    "l": COMMON | {"depths": (3, 8, 27, 3)},
}
# The same weights under the name that they have in Twins.
TIMM_SIZES = {"s": "small", "b": "base", "l": "large"}
default_cfgs: dict[str, Any] = {}


def _cfgs(prefix: str, size: str) -> dict[str, dict[str, Any]]:
    # The size is called fixed so that img_size follows the weights; any size runs.
    if prefix not in ("", "cpe"):
        return {"": base_cfg(fixed_input_size=True)}
    return {"in1k": timm_cfg(f"twins_pcpvt_{TIMM_SIZES[size]}.in1k", fixed_input_size=True)}


Family("cpvt_v2", PyramidCPVT, SIZES, "cpe", __name__, _cfgs, takes=works_reduced).register_all()
