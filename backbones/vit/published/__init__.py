"""Files of the authors of single encodings, each in a module: to the layout of DeiT, with our names of the encoding."""

from __future__ import annotations

from typing import Any

from visionpe.backbones.vit.published import comrope, croma, every_block, irpe, lape, minivit, seqpe
from visionpe.utils.weight_files import Weights

__all__ = ["in_layout_of_deit"]

# MiniViT's is over iRPE's.
LAYOUTS = (lape, every_block, minivit, irpe, seqpe, croma, comrope)


def in_layout_of_deit(state: Weights, model: Any) -> Weights:
    """A file of one of these layouts in that of DeiT; any other file as it is.

    Raises:
        RuntimeError: If a table has no shape that the model's tokens could have.
    """
    for layout in LAYOUTS:
        if layout.matches(state):
            state = layout.convert(state, model)
    return state
