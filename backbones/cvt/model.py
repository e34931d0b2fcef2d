"""CvT: convolutional embeddings and projections, a class token in the last stage, and any position encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Mlp, QuickGELU
from torch import Tensor

from visionpe.backbones.cvt.layers import ConvAttention, ConvBlock, ConvStage
from visionpe.backbones.cvt.weights import convert
from visionpe.backbones.shared.arguments import check_arguments, check_stages
from visionpe.backbones.shared.options import PyramidOptions
from visionpe.backbones.shared.reduced_pyramid import ReducedPyramid, StageShape, stage_shapes
from visionpe.checks import check_count
from visionpe.registry import Spec
from visionpe.utils.weight_files import StateDict


class ConvolutionalTransformer(ReducedPyramid):
    """CvT for classification and for dense prediction, with any position encoding, at any height and width.

    Tokens are made by overlapping convolutions, queries, keys and values by depthwise ones with batch norms; keys and
    values are fewer. Zero padding is all that it is told of positions as published. In the last stage a class token
    joins, which the classifier reads; encodings leave it alone, as it stands nowhere.

    Source: "CvT", arXiv 2103.15808, section 3 and table 2; microsoft/CvT, lib/models/cls_cvt.py: norms add 1e-5, MLPs
    have the quick GELU, logits are divided by the root of the width of all heads together.

    Args:
        pos_encoding: See :func:`visionpe.create_encoding`. What acts in attention must be able to work where queries
            and keys are different tokens.
        img_size: Height and width in pixels at which the model is or was trained. Any other size runs too; policies
            measure from this one.
        embed_dim: Width of the first stage, doubled from stage to stage; or the widths of all.
        depths, num_heads: Of the stages.
        mlp_ratios: Width of the MLPs of each stage over that of its tokens. Default: ``mlp_ratio`` in all.
        patch_sizes, strides, paddings: Sides of the patches of each stage, how far they are apart, and zeros around
            what they are cut from: pixels in the first stage, tokens of the one before in the others. Default: 7 every
            4 with 2, then 3 every 2 with 1.
        qkv_kernel: Side of the kernels of queries, keys and values, tokens, odd.
        stride_kv: Of keys and values, tokens; one number, or one for each stage.
        class_token: Whether there is one; without, the classifier gets what ``global_pool`` makes of the map.
        drop_path_rate: Stochastic depth at the last block, growing from 0 at the first of the last stage, the only one
            that has it.
        options: Further keywords: ``in_chans num_classes global_pool mlp_ratio qkv_bias drop_rate proj_drop_rate
            attn_drop_rate feature_norms norm_layer act_layer device dtype``, see
            :class:`~visionpe.backbones.shared.options.PyramidOptions`.

    Raises:
        ValueError: If the lists differ in length, heads do not divide the width, a number is out of range, or the
            encoding cannot work here.
    """

    family = "CvT"

    def __init__(
        self,
        *,
        pos_encoding: Spec = "none",
        img_size: int | tuple[int, int] = 224,
        embed_dim: int | Sequence[int] = (64, 192, 384),
        depths: Sequence[int] = (1, 2, 10),
        num_heads: Sequence[int] = (1, 3, 6),
        mlp_ratios: Sequence[float] | None = None,
        patch_sizes: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        paddings: Sequence[int] | None = None,
        qkv_kernel: int = 3,
        stride_kv: int | Sequence[int] = 2,
        class_token: bool = True,
        drop_path_rate: float = 0.0,
        **options: Any,
    ) -> None:
        shared = PyramidOptions.read(type(self), {"act_layer": QuickGELU, **options})
        check_arguments({"drop_path_rate": drop_path_rate, "class_token": class_token})
        if check_count("qkv_kernel", qkv_kernel, 1, 127) % 2 == 0:
            raise ValueError(f"qkv_kernel={qkv_kernel} must be odd; allowed: 1, 3, 5, ... 127")
        (depths,) = check_stages(depths=depths)
        others = len(depths) - 1
        if not isinstance(stride_kv, Sequence):
            stride_kv = [check_count("stride_kv", stride_kv)] * len(depths)
        shapes = stage_shapes(
            shared,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            mlp_ratios=mlp_ratios,
            patch_sizes=[7, *[3] * others] if patch_sizes is None else patch_sizes,
            strides=[4, *[2] * others] if strides is None else strides,
            paddings=[2, *[1] * others] if paddings is None and patch_sizes is None else paddings,
            reductions=("stride_kv", stride_kv),
            prefix=int(class_token),
        )

        def block(shape: StageShape, depth: int, drop_path: float) -> ConvBlock:
            drop, factory = shared.proj_drop_rate, shared.factory
            attention = ConvAttention(
                shape.dim,
                shape.num_heads,
                kernel=qkv_kernel,
                stride=shape.reduction,
                prefix=shape.prefix,
                qkv_bias=shared.qkv_bias,
                attn_drop=shared.attn_drop_rate,
                proj_drop=drop,
                **factory,
            )
            hidden = int(shape.dim * shape.mlp_ratio)
            mlp = Mlp(shape.dim, hidden, act_layer=shared.act_layer, drop=drop, **factory)
            settings: dict[str, Any] = {"drop_path": drop_path, "depth": depth, "norm_layer": shared.norm_layer}
            return ConvBlock(shape.dim, attention, mlp, **settings, **factory)

        def stage(shape: StageShape, *parts: Any) -> ConvStage:
            return ConvStage(*parts, token_dim=shape.dim * shape.prefix, **shared.factory)

        growing = torch.linspace(0, drop_path_rate, depths[-1], device="cpu").tolist()
        super().__init__(
            shapes,
            block,
            pos_encoding=pos_encoding,
            img_size=img_size,
            rates=[*([0.0] * depth for depth in depths[:-1]), growing],
            shared=shared,
            embed_norm=shared.norm_layer,
            stage=stage,
        )
        if class_token:
            self.output_fmt = "NLC"

    def _has_token(self, index: int = -1) -> bool:
        """Whether a stage gives a class token besides its map."""
        stage: Any = self.stages[index]
        return stage.cls_token is not None

    def _normed(self, x: Any, index: int) -> Tensor:
        return super()._normed(x[0] if self._has_token(index) else x, index)

    def _final(self, x: Any) -> Tensor:
        """The normed map, or with a class token the normed tokens ``(B, 1 + height * width, dim)``."""
        if not self._has_token():
            return super()._final(x)
        tokens = torch.cat((x[1], x[0].flatten(1, 2)), dim=1)
        return self.norm(super()._normed(tokens, -1))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What ``forward_features`` gives to logits ``(B, num_classes)``, or to pooled features."""
        # The token stands for the map.
        return super().forward_head(x[:, :1, None] if self._has_token() else x, pre_logits)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay should leave alone."""
        tokens = {f"stages.{i}.cls_token" for i, _ in enumerate(self.stages) if self._has_token(i)}
        return super().no_weight_decay() | tokens

    def convert_state(self, state: StateDict) -> StateDict:
        return convert(state, self)
