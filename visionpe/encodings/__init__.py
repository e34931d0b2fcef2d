"""The encodings, one a file. Importing this package registers them."""

from visionpe.encodings import (
    alibi,
    ape,
    attention_bias,
    cpb,
    cpe,
    dpb,
    fire,
    kerple,
    none,
    rope_axial,
    rope_mixed,
    rpb,
    sincos,
)

__all__ = [
    "alibi",
    "ape",
    "attention_bias",
    "cpb",
    "cpe",
    "dpb",
    "fire",
    "kerple",
    "none",
    "rope_axial",
    "rope_mixed",
    "rpb",
    "sincos",
]
