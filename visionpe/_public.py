"""What ``import visionpe`` offers; importing it registers the backbones with timm."""

import visionpe.backbones as backbones
from visionpe import encodings
from visionpe.attention.bias import Bias, DenseBias, LowRankBias, OffsetBias
from visionpe.attention.buckets import BucketBias
from visionpe.attention.dispatch import attend
from visionpe.backbones.adapt.adapting import adapt
from visionpe.base import PositionEncoding
from visionpe.cameras import Cameras
from visionpe.composition import Composition
from visionpe.encodings import wrappers
from visionpe.encodings.wrappers.base import PositionWrapper
from visionpe.grid import Grid
from visionpe.policy.apply import policies, set_policy
from visionpe.policy.choose import choose_policy
from visionpe.policy.selection import PolicyChoice
from visionpe.policy.table import PolicyTable
from visionpe.registry import (
    create_encoding,
    get_encoding,
    list_encodings,
    list_wrappers,
    register_encoding,
    register_wrapper,
)

__all__ = [
    "Bias",
    "BucketBias",
    "Cameras",
    "Composition",
    "DenseBias",
    "Grid",
    "LowRankBias",
    "OffsetBias",
    "PolicyChoice",
    "PolicyTable",
    "PositionEncoding",
    "PositionWrapper",
    "adapt",
    "attend",
    "backbones",
    "choose_policy",
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
