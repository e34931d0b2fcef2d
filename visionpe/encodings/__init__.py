"""The encodings, one a file. Importing this package registers them."""

from visionpe.encodings import alibi, ape, cpe, none, rope_axial, rope_mixed, sincos

__all__ = ["alibi", "ape", "cpe", "none", "rope_axial", "rope_mixed", "sincos"]
