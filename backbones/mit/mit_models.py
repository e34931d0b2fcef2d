"""The registered MiTs: ``mit_b0`` to ``mit_b5`` as published, and every encoding that can work in them."""

from __future__ import annotations

from typing import Any

from visionpe.backbones.mit.model import MixTransformer
from visionpe.backbones.shared.reduced import works_reduced
from visionpe.backbones.shared.registering import Family, base_cfg

__all__: list[str] = []

NARROW: dict[str, Any] = {"embed_dim": (32, 64, 160, 256), "num_heads": (1, 2, 5, 8)}
WIDE: dict[str, Any] = {"embed_dim": (64, 128, 320, 512), "num_heads": (1, 2, 5, 8)}
SIZES: dict[str, dict[str, Any]] = {
    "b0": NARROW | {"depths": (2, 2, 2, 2)},
    "b1": WIDE | {"depths": (2, 2, 2, 2)},
    "b2": WIDE | {"depths": (3, 4, 6, 3)},
    "b3": WIDE | {"depths": (3, 4, 18, 3)},
    "b4": WIDE | {"depths": (3, 8, 27, 3)},
    "b5": WIDE | {"depths": (3, 6, 40, 3)},
}
default_cfgs: dict[str, Any] = {}


def _cfgs(prefix: str, size: str) -> dict[str, dict[str, Any]]:
    """No source of weights: the authors' files lie behind a page that programs cannot read."""
    return {"": base_cfg(fixed_input_size=True)}


Family("mit", MixTransformer, SIZES, "none", __name__, _cfgs, takes=works_reduced).register_all()
