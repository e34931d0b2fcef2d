"""MiT: SegFormer's encoder, which needs no position encoding, with any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from visionpe.backbones.mit.layers import MixMlp, MixStage
from visionpe.backbones.mit.weights import convert
from visionpe.backbones.shared.arguments import check_arguments, check_stages
from visionpe.backbones.shared.conv_embed import draw_convolutions
from visionpe.backbones.shared.options import PyramidOptions
from visionpe.backbones.shared.reduced_pyramid import ReducedPyramid, growing, reduced_block, stage_shapes
from visionpe.registry import Spec
from visionpe.utils.weight_files import StateDict

# Of the norms behind convolutions in the authors' code, where all others add 1e-6; mmseg's has 1e-6 everywhere.
EMBED_NORM_EPS = 1e-5


class MixTransformer(ReducedPyramid):
    """MiT for classification and for dense prediction, with any position encoding, at any height and width.

    Every token attends to all cells of the map, ``sr_ratios`` tokens wide; patches overlap; a norm ends every stage,
    and the next one gets what it gives. The zero padding of its convolutions, of patches and in MLPs, is all that it
    is told of positions as published. What cells leave over below and right is no key, as published.

    Source: "SegFormer", arXiv 2105.15203, sections 3.1 and A (table 6); NVlabs/SegFormer,
    mmseg/models/backbones/mix_transformer.py.

    Args:
        pos_encoding: See :func:`visionpe.create_encoding`. What acts in attention must be able to work where queries
            and keys are different tokens.
        img_size: Height and width in pixels at which the model is or was trained. Any other size runs too; policies
            measure from this one.
        embed_dim: Width of the first stage, doubled from stage to stage; or the widths of all.
        depths, num_heads: Of the stages.
        mlp_ratios: Width of the MLPs of each stage over that of its tokens. Default: ``mlp_ratio`` in all.
        sr_ratios: Side of the cells of each stage, tokens. Default: 1 in the last, twice as many in the one before, ...
        patch_sizes, strides: Sides of the patches of each stage and how far they are apart: pixels in the first stage,
            tokens of the one before in the others. Default: 7 every 4, then 3 every 2.
        embed_norm_eps: What the norms of patches and cells add to variances. Default: 1e-5, as in the authors' code,
            until a file of mmseg's is loaded, whose code has 1e-6. It is no part of the state dict.
        drop_path_rate: Stochastic depth at the last block, growing from 0 at the first.
        options: Further keywords: ``in_chans num_classes global_pool mlp_ratio qkv_bias drop_rate proj_drop_rate
            attn_drop_rate norm_layer act_layer device dtype``, see
            :class:`~visionpe.backbones.shared.options.PyramidOptions`.

    Raises:
        TypeError: If a keyword is unknown, as ``feature_norms`` is here.
        ValueError: If the lists differ in length, heads do not divide the width, a number is out of range, or the
            encoding cannot work here.
    """

    family = "MiT"

    def __init__(
        self,
        *,
        pos_encoding: Spec = "none",
        img_size: int | tuple[int, int] = 224,
        embed_dim: int | Sequence[int] = (32, 64, 160, 256),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] | None = None,
        sr_ratios: Sequence[int] | None = None,
        patch_sizes: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        embed_norm_eps: float | None = None,
        drop_path_rate: float = 0.0,
        **options: Any,
    ) -> None:
        if "feature_norms" in options:
            raise TypeError("MixTransformer takes no keyword 'feature_norms': every stage ends in a norm")
        shared = PyramidOptions.read(type(self), {"norm_layer": partial(nn.LayerNorm, eps=1e-6), **options})
        check_arguments({"embed_norm_eps": embed_norm_eps})
        (depths,) = check_stages(depths=depths)
        patch_sizes = [7, *[3] * (len(depths) - 1)] if patch_sizes is None else patch_sizes
        shapes = stage_shapes(
            shared,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
            patch_sizes=patch_sizes,
            strides=[4, *[2] * (len(depths) - 1)] if strides is None else strides,
            reductions=("sr_ratios", sr_ratios),
            paddings=None,
        )
        super().__init__(
            shapes,
            partial(reduced_block, shared, mlp=MixMlp),
            pos_encoding=pos_encoding,
            img_size=img_size,
            rates=growing(drop_path_rate, shapes),
            shared=shared,
            stage=lambda shape, *parts: MixStage(*parts, norm=shared.norm_layer(shape.dim, **shared.factory)),
            draw=draw_convolutions,
        )
        self.norm = nn.Identity()  # that of the last stage
        self.embed_norm_eps_is_chosen = embed_norm_eps is not None
        self.set_embed_norm_eps(EMBED_NORM_EPS if embed_norm_eps is None else embed_norm_eps)

    def set_embed_norm_eps(self, eps: float) -> None:
        """Choose what the norms of patches and cells add to variances."""
        self.embed_norm_eps = eps
        for norm in self._embed_norms():
            norm.eps = eps

    def _embed_norms(self) -> Iterator[nn.LayerNorm]:
        """The norms behind convolutions."""
        stages: Any = self.stages
        for embed in (self.patch_embed, *(stage.downsample for stage in stages[1:])):
            yield embed.norm
        for stage in stages:
            yield from (block.attn.norm for block in stage.blocks if block.attn.norm is not None)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; the norm of a stage belongs to its last block."""
        groups = super().group_matcher(coarse)
        ends = [(rf"^stages\.({i})\.norm\.", (depth - 1,)) for i, depth in enumerate(self.depths)]
        return groups if coarse else groups | {"blocks": [*groups["blocks"], *ends]}

    def saved_arguments(self) -> dict[str, Any]:
        changed = {} if self.embed_norm_eps == EMBED_NORM_EPS else {"embed_norm_eps": self.embed_norm_eps}
        return super().saved_arguments() | changed

    def convert_state(self, state: StateDict) -> StateDict:
        return convert(state, self)
