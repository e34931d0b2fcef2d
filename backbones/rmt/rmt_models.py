"""The registered RMTs: ``rmt_<size>`` as published, and every encoding as ``<encoding>_rmt_<size>``."""

from __future__ import annotations

from typing import Any

from visionpe.backbones.rmt.model import OWN_ENCODING, RMT
from visionpe.backbones.shared.registering import Family, base_cfg

__all__: list[str] = []

FIRST_THREE = {"decomposed": (True, True, True, False), "mlp_ratio": (4.0, 4.0, 3.0, 3.0)}
# As the authors' code names them: RMT_T3, RMT_S, RMT_M2 (B in the paper) and RMT_L6.
SIZES: dict[str, dict[str, Any]] = {
    "t": {
        "embed_dim": (64, 128, 256, 512),
        "depths": (2, 2, 8, 2),
        "num_heads": (4, 4, 8, 16),
        "mlp_ratio": (3.0, 3.0, 3.0, 3.0),
        "decomposed": (True, True, False, False),
        "decay_range": (4.0, 4.0, 6.0, 6.0),
    },
    "s": {
        "embed_dim": (64, 128, 256, 512),
        "depths": (3, 4, 18, 4),
        "num_heads": (4, 4, 8, 16),
        "decay_range": (4.0, 4.0, 6.0, 6.0),
        **FIRST_THREE,
    },
    "b": {
        "embed_dim": (80, 160, 320, 512),
        "depths": (4, 8, 25, 8),
        "num_heads": (5, 5, 10, 16),
        "decay_range": (5.0, 5.0, 6.0, 6.0),
        "init_values": (None, None, 1e-6, 1e-6),
        **FIRST_THREE,
    },
    "l": {
        "embed_dim": (112, 224, 448, 640),
        "depths": (4, 8, 25, 8),
        "num_heads": (7, 7, 14, 20),
        "decay_range": (6.0, 6.0, 6.0, 6.0),
        "init_values": (None, None, 1e-6, 1e-6),
        **FIRST_THREE,
    },
}

default_cfgs: dict[str, Any] = {}


def _cfgs(prefix: str, size: str) -> dict[str, dict[str, Any]]:
    # The size is called fixed so that img_size follows the weights; any size runs. The files have no address that a
    # program could load from.
    return {"": base_cfg(fixed_input_size=True, pool_size=(7, 7), crop_pct=0.875, first_conv="patch_embed.layers.0")}


Family("rmt", RMT, SIZES, OWN_ENCODING, __name__, _cfgs, of_features={"feature_norms": True}).register_all()
