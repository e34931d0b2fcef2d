"""visionpe: any position encoding, in any vision transformer, at any resolution.

Importing it registers the backbones with timm::

    import timm, visionpe
    model = timm.create_model("rope_vit_b")
"""

from pathlib import Path

from visionpe.attention import attend
from visionpe.base import Composition, PositionEncoding
from visionpe.bias import Bias, DenseBias, LowRankBias, OffsetBias
from visionpe.buckets import BucketBias
from visionpe.grid import Grid
from visionpe.policy import policies, set_policy
from visionpe.registry import (
    create_encoding,
    get_encoding,
    list_encodings,
    list_wrappers,
    register_encoding,
    register_wrapper,
)
from visionpe.wrapper import PositionWrapper

__version__ = "0.1.0"

# In a checkout, backbones/ and detection/ stand beside this folder. A wheel has them inside, and what stands beside
# it in site-packages under those names belongs to somebody else.
_root = Path(__file__).parent.parent
if not (Path(__file__).parent / "backbones").exists() and (_root / "backbones" / "vit.py").exists():
    __path__.append(str(_root))

import visionpe.backbones as backbones  # noqa: E402
from visionpe import encodings, wrappers  # noqa: E402

__all__ = [
    "Bias",
    "BucketBias",
    "Composition",
    "DenseBias",
    "Grid",
    "LowRankBias",
    "OffsetBias",
    "PositionEncoding",
    "PositionWrapper",
    "__version__",
    "attend",
    "backbones",
    "create_encoding",
    "encodings",
    "get_encoding",
    "list_encodings",
    "list_wrappers",
    "policies",
    "register_encoding",
    "register_wrapper",
    "set_policy",
    "wrappers",
]
