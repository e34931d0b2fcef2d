"""timm's own models taken over: their positions as encodings, one family a file."""

from visionpe.backbones.adapt import deit, entry, eva, maxxvit, swin, swin_v2, swin_v2_cr, vision_transformer
from visionpe.backbones.adapt.adapted import ADAPTED, Adapted
from visionpe.backbones.adapt.adapting import adapt

__all__ = [
    "ADAPTED",
    "Adapted",
    "adapt",
    "deit",
    "entry",
    "eva",
    "maxxvit",
    "swin",
    "swin_v2",
    "swin_v2_cr",
    "vision_transformer",
]
