"""The registered Swin3Ds: ``swin3d_<size>`` and ``swin3d_<size>_unet``, with every encoding ahead of the name."""

from __future__ import annotations

from typing import Any

from visionpe.backbones.shared.registering import Family, base_cfg
from visionpe.backbones.swin3d.model import Swin3DTransformer
from visionpe.backbones.swin3d.unet import Swin3DUNet
from visionpe.base import PositionEncoding

__all__: list[str] = []

COMMON: dict[str, Any] = {"depths": (2, 4, 9, 4, 4), "window_size": (5, 7, 7, 7, 7)}
SIZES: dict[str, dict[str, Any]] = {
    "s": {"embed_dims": (48, 96, 192, 384, 384), "num_heads": (6, 6, 12, 24, 24), **COMMON},
    "l": {"embed_dims": (80, 160, 320, 640, 640), "num_heads": (10, 10, 20, 40, 40), **COMMON},
}

default_cfgs: dict[str, Any] = {}


def _irregular(encoding: type[PositionEncoding]) -> bool:
    return encoding.irregular


def _cfgs(classifier: str, classes: int) -> Any:
    # Voxels have no height and width, and published files no address that serves them without a log-in.
    cfg = base_cfg(input_size=None, num_classes=classes, first_conv="stem_layer.conv_layers.0", classifier=classifier)
    return lambda prefix, size: {"": cfg}


LEVELS = (0, 1, 2, 3, 4)
UNETS = {f"{size}_unet": settings for size, settings in SIZES.items()}
Family("swin3d", Swin3DTransformer, SIZES, "crse", __name__, _cfgs("head", 0), LEVELS, takes=_irregular).register_all()
Family(
    "swin3d", Swin3DUNet, UNETS, "crse", __name__, _cfgs("classifier.3", 20), LEVELS, takes=_irregular
).register_all()
