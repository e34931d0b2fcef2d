"""CPVT v2: PVT's pyramid with average pooling, and any position encoding in the place of its convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from visionpe.backbones.cpvt.weights import convert
from visionpe.backbones.shared.arguments import MAX_PATCH, check_stages
from visionpe.backbones.shared.conv_embed import draw_convolutions
from visionpe.backbones.shared.options import PyramidOptions
from visionpe.backbones.shared.reduced_pyramid import (
    ReducedPyramid,
    growing,
    reduced_block,
    stage_shapes,
)
from visionpe.checks import check_count
from visionpe.registry import Spec
from visionpe.utils.weight_files import StateDict


class PyramidCPVT(ReducedPyramid):
    """CPVT v2, also called Twins-PCPVT, with any position encoding, at any height and width.

    Every token attends to all cells of the map, ``sr_ratios`` tokens wide. As published, what patches and cells leave
    over below and right is cut off, but for the first one. Its own encoding is a convolution after the first block of
    every stage (``cpe``); there is no class token.

    Source: "Conditional Positional Encodings for Vision Transformers", arXiv 2102.10882; "Twins", arXiv 2104.13840,
    section 3.1 and table 11; norms of blocks and the final one add 1e-6, those behind convolutions 1e-5.

    Args:
        pos_encoding: See :func:`visionpe.create_encoding`. What acts in attention must be able to work where queries
            and keys are different tokens.
        img_size: Height and width in pixels at which the model is or was trained. Any other size runs too; policies
            measure from this one.
        patch_size: Pixels per token.
        embed_dim: Width of the first stage, doubled from stage to stage; or the widths of all.
        depths, num_heads: Of the stages.
        mlp_ratios: Width of the MLPs of each stage over that of its tokens. Default: ``mlp_ratio`` in all
            if that is given, else 8, but 4 in the last two.
        sr_ratios: Side of the cells of each stage, tokens. Default: 1 in the last, twice as many in the one before, ...
        drop_path_rate: Stochastic depth at the last block, growing from 0 at the first.
        options: Further keywords: ``in_chans num_classes global_pool mlp_ratio qkv_bias drop_rate proj_drop_rate
            attn_drop_rate feature_norms norm_layer act_layer device dtype``, see
            :class:`~visionpe.backbones.shared.options.PyramidOptions`.

    Raises:
        ValueError: If the lists differ in length, heads do not divide the width, a number is out of range, or the
            encoding cannot work here.
    """

    family = "CPVT"

    def __init__(
        self,
        *,
        pos_encoding: Spec = "cpe",
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        embed_dim: int | Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] | None = None,
        sr_ratios: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        **options: Any,
    ) -> None:
        shared = PyramidOptions.read(type(self), {"norm_layer": partial(nn.LayerNorm, eps=1e-6), **options})
        (depths,) = check_stages(depths=depths)
        if mlp_ratios is None and "mlp_ratio" not in options:
            mlp_ratios = ([8] * len(depths) + [4, 4])[-len(depths) :]
        patches = [check_count("patch_size", patch_size, 1, MAX_PATCH), *[2] * (len(depths) - 1)]
        shapes = stage_shapes(
            shared,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
            patch_sizes=patches,
            strides=patches,
            reductions=("sr_ratios", sr_ratios),
            paddings=[0] * len(depths),
        )
        super().__init__(
            shapes,
            partial(reduced_block, shared),
            pos_encoding=pos_encoding,
            img_size=img_size,
            rates=growing(drop_path_rate, shapes),
            shared=shared,
            draw=draw_convolutions,
        )

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """As in Twins, everything that tells positions."""
        return {name for name, _ in self.named_parameters() if ".pos_encoding." in name}

    def convert_state(self, state: StateDict) -> StateDict:
        return convert(state, self)
