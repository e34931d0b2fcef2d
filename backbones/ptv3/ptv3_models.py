"""The registered Point Transformers V3: ``ptv3_<size>`` and ``ptv3_<size>_unet``, also with an encoding ahead.

Size b is the paper's, l the wider one of Sonata and Concerto, which has a linear stem.
"""

from __future__ import annotations

from typing import Any

from visionpe.backbones.ptv3.model import PointTransformerV3
from visionpe.backbones.ptv3.unet import PointTransformerV3UNet
from visionpe.backbones.shared.registering import Family, base_cfg
from visionpe.base import PositionEncoding

__all__: list[str] = []

SIZES: dict[str, dict[str, Any]] = {
    "b": {},
    "l": {
        "embed_dims": (48, 96, 192, 384, 512),
        "depths": (3, 3, 3, 12, 3),
        "num_heads": (3, 6, 12, 24, 32),
        "form": "linear",
    },
}
DECODERS: dict[str, dict[str, Any]] = {
    "b": {},
    "l": {"decoder_dims": (96, 96, 192, 384), "decoder_depths": (3, 3, 3, 3), "decoder_heads": (6, 6, 12, 32)},
}

default_cfgs: dict[str, Any] = {}


def _irregular(encoding: type[PositionEncoding]) -> bool:
    return encoding.irregular


def _cfgs(classifier: str, classes: int) -> Any:
    # Voxels have no height and width, and published files no address that serves them without a log-in.
    cfg = base_cfg(input_size=None, num_classes=classes, first_conv="stem.proj", classifier=classifier)
    return lambda prefix, size: {"": cfg}


LEVELS = (0, 1, 2, 3, 4)
UNETS = {f"{size}_unet": {**settings, **DECODERS[size]} for size, settings in SIZES.items()}
Family("ptv3", PointTransformerV3, SIZES, "xcpe", __name__, _cfgs("head", 0), LEVELS, takes=_irregular).register_all()
Family(
    "ptv3", PointTransformerV3UNet, UNETS, "xcpe", __name__, _cfgs("classifier", 20), LEVELS, takes=_irregular
).register_all()
