"""CrossFormer and CrossFormer++: attention over short and long distances in turn, with any position encoding."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import nn

from visionpe.backbones.crossformer.layers import CooledBlock, CrossScaleEmbed, CrossScaleMerge, check_kernels
from visionpe.backbones.crossformer.stage import CrossFormerStage, GroupFit, GroupType, published_groups
from visionpe.backbones.crossformer.weights import convert
from visionpe.backbones.shared.arguments import (
    MAX_WINDOW,
    check_arguments,
    check_blocks,
    check_image_size,
    check_stages,
)
from visionpe.backbones.shared.block import WindowBlock
from visionpe.backbones.shared.loading import measure_from
from visionpe.backbones.shared.options import PyramidOptions
from visionpe.backbones.shared.pyramid import Pyramid
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.checks import check_choice, check_counts, check_flag, check_number, shown
from visionpe.registry import Spec, parse_spec
from visionpe.utils.weight_files import StateDict


class CrossFormer(Pyramid):
    """CrossFormer for classification and for dense prediction, with any position encoding, at any height and width.

    Tokens come from patches of several sizes. Even blocks attend among neighbours, odd ones among tokens that stand
    ``crs_interval`` apart. Encodings inside attention see places in a group, in steps of it: of both kinds they are
    whole numbers below ``group_size``, as published, so there is one of them for each kind. Features are those of the
    stages as they are, without norms. The keywords are those of the published configurations.

    Source: "CrossFormer: A Versatile Vision Transformer Hinging on Cross-scale Attention", arXiv 2108.00154, section 3;
    CrossFormer++, arXiv 2303.06908, for groups that differ from block to block and layers that cool down.

    Args:
        pos_encoding: See :func:`visionpe.create_encoding`. Here the network of ``dpb`` is a sixteenth of the width of
            its stage, however narrow, as published.
        img_size: Height and width in pixels at which the model is or was trained. Any other size runs too; policies
            measure from this one.
        patch_size: Sides of the patches, pixels; there is a token every ``patch_size[0]`` pixels.
        embed_dim: Width of the first stage, doubled from stage to stage.
        depths, num_heads: Of the stages.
        group_size: Side of the groups, tokens: a number, one for each stage, or in place of any of these one for each
            of its blocks.
        group_type: How groups grow from block to block, see
            :func:`~visionpe.backbones.crossformer.stage.published_groups`.
        crs_interval: Of the stages, tokens. Default: 1 in the last, and twice as much in the one before, each time.
        adaptive_interval: As many in place of it as let a group reach over the map.
        merge_size: Sides of what is merged ahead of every stage but the first, tokens; or a list of these.
        mlp_ratio: Width of the MLPs over that of the tokens; or one for each stage.
        use_acl: Cool down behind every third block of a stage, unless it is the last.
        pad_type: Where padding stands that lets groups divide the map: 0 for below and right, 1 for all around.
        no_mask: Let tokens attend to padding, whose keys and values are the biases of their projections.
        group_fit: Groups of a map whose shorter side is no longer than a group, all of neighbours then: ``per_axis``,
            as large as ever, masked beyond the map, or ``whole_map``, one group, as in the published backbone for
            dense prediction; of square maps they are the same. Default: the former until a file of that is loaded. It
            is no part of the state dict.
        patch_norm: A norm behind the patches.
        qk_scale: Factor of the logits; None for ``head_dim ** -0.5``.
        drop_path_rate: Stochastic depth at the last block, growing from 0 at the first.
        options: Further keywords: ``in_chans num_classes global_pool qkv_bias drop_rate proj_drop_rate attn_drop_rate
            norm_layer act_layer device dtype``, see :class:`~visionpe.backbones.shared.options.PyramidOptions`.

    Raises:
        ValueError: If lists differ in length, heads do not divide the width, patches have no common middle or do not
            share out the channels, a choice is unknown, or the encoding cannot work here.
    """

    family = "CrossFormer"

    def __init__(
        self,
        *,
        pos_encoding: Spec = "dpb",
        img_size: int | tuple[int, int] = 224,
        patch_size: int | Sequence[int] = (4, 8, 16, 32),
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        group_size: int | Sequence[int | Sequence[int]] = 7,
        group_type: GroupType = "constant",
        crs_interval: Sequence[int] | None = None,
        adaptive_interval: bool = False,
        merge_size: Sequence[int] | Sequence[Sequence[int]] = (2, 4),
        mlp_ratio: float | Sequence[float] = 4.0,
        use_acl: bool = False,
        pad_type: int = 0,
        no_mask: bool = False,
        group_fit: GroupFit | None = None,
        patch_norm: bool = True,
        qk_scale: float | None = None,
        drop_path_rate: float = 0.0,
        **options: Any,
    ) -> None:
        shared = PyramidOptions.read(type(self), options, without=("feature_norms",))
        check_arguments({"embed_dim": embed_dim, "drop_path_rate": drop_path_rate})
        depths, num_heads = check_stages(depths=depths, num_heads=num_heads)
        stages = len(depths)
        if crs_interval is None:
            crs_interval = [2 ** (stages - 1 - i) for i in range(stages)]
        intervals = check_counts("crs_interval", crs_interval, stages, 1, MAX_WINDOW)
        check_choice("group_type", group_type, GroupType)
        check_choice("pad_type", pad_type, (0, 1))
        check_choice("group_fit", group_fit or "per_axis", GroupFit)
        flags = {"adaptive_interval": adaptive_interval, "use_acl": use_acl, "no_mask": no_mask}
        for name, flag in {**flags, "patch_norm": patch_norm}.items():
            check_flag(name, flag)
        if qk_scale is not None:
            check_number("qk_scale", qk_scale, above=0)
        dims = [embed_dim * 2**i for i in range(stages)]
        patches = check_kernels("patch_size", patch_size, None, embed_dim)
        merges = _merges(merge_size, dims)
        image, _ = check_image_size(img_size, patches[0])
        ratios = (mlp_ratio,) * stages if isinstance(mlp_ratio, Real) else _listed("mlp_ratio", mlp_ratio, stages)
        for i, (dim, depth, heads, ratio) in enumerate(zip(dims, depths, num_heads, ratios)):
            check_blocks([dim], [depth], ratio)
            if dim % heads:
                raise ValueError(f"num_heads={heads} of stage {i} must divide its width, {dim}")

        norm = shared.norm_layer(embed_dim, **shared.factory) if patch_norm else nn.Identity()
        stem = CrossScaleEmbed(shared.in_chans, embed_dim, patches, norm, **shared.factory)
        sizes = _sizes(stem, image, stages)
        groups = _groups(group_size, group_type, depths, sizes[0][0])
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(list(depths))
        built, encodings = [], []
        for i, (dim, depth, heads, size) in enumerate(zip(dims, depths, num_heads, sizes)):
            blocks = [
                shared.block(
                    dim,
                    heads,
                    drop_path=float(rates[i][j]),
                    depth=j,
                    mlp_ratio=ratios[i],
                    padding="tokens" if no_mask else "mask",
                    block=CooledBlock if use_acl and j % 3 == 2 and j < depth - 1 else WindowBlock,
                )
                for j in range(depth)
            ]
            for block in blocks:
                attention: Any = block.attn
                attention.logit_factor = qk_scale
            stage = CrossFormerStage(
                CrossScaleMerge(dims[i - 1], dim, merges[i - 1], shared.norm_layer, **shared.factory)
                if i
                else nn.Identity(),
                blocks,
                groups=groups[i],
                interval=None if adaptive_interval else intervals[i],
                group_fit=group_fit or "per_axis",
                centred=pad_type == 1,
                masked=not no_mask,
            )
            windows = {kind: its.window for kind, its in stage.windows(size).items()}
            counts = {kind: sum(kind == other for other, _ in stage.places) for kind in windows}
            kinds = {kind: WindowKind(dim, heads, counts[kind], window) for kind, window in windows.items()}
            spec = [{"name": name, **_as_published(name, dim), **given} for name, given in parse_spec(pos_encoding)]
            context = {"dim": dim, "num_heads": heads, "depth": depth, "grid_size": size, "kinds": kinds}
            window = next(iter(windows.values()))
            encodings.append(
                partial(StageEncoding, spec, **context, first=i == 0, attention_window=window, **shared.factory)
            )
            built.append(stage)
        super().__init__(
            stem,
            built,
            encodings,
            dims=dims,
            depths=depths,
            reductions=[patches[0] * 2**i for i in range(stages)],
            options=shared,
        )
        self.group_fit_is_chosen = group_fit is not None
        super().set_trained_size(image, (patches[0], patches[0]))

    def set_group_fit(self, group_fit: GroupFit, *, chosen: bool = True) -> None:
        """Choose the groups of maps that are no larger than one; see the constructor.

        Args:
            group_fit: ``per_axis`` or ``whole_map``.
            chosen: It outlives the loading of published files.

        Raises:
            ValueError: If ``group_fit`` is unknown.
        """
        check_choice("group_fit", group_fit, GroupFit)
        stages: Any = self.stages
        for stage in stages:
            stage.group_fit = group_fit
        self.group_fit_is_chosen = self.group_fit_is_chosen or chosen

    def set_input_size(self, img_size: int | tuple[int, int] | None = None) -> None:
        """Change the nominal size, pixels; tables per position are resized, policies keep the trained size."""
        if img_size is None:
            return
        stem: Any = self.patch_embed
        image, _ = check_image_size(img_size, stem.patch_size)
        stages: Any = self.stages
        for stage, size in zip(stages, _sizes(stem, image, len(stages))):
            windows = {kind: its.window for kind, its in stage.windows(size).items()}
            stage.pos_encoding.set_input_grid(size, windows)
        self.record_size(image)

    def set_trained_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        """Let policies of encodings measure from another size, pixels."""
        stem: Any = self.patch_embed
        check_image_size(img_size, stem.patch_size, "trained_size")
        super().set_trained_size(img_size, (stem.patch_size, stem.patch_size))  # of the tokens, not of the kernels
        stages: Any = self.stages
        for stage, size in zip(stages, _sizes(stem, img_size, len(stages))):
            measure_from(stage.pos_encoding.map, size)
            for kind, windows in stage.windows(size).items():
                measure_from(stage.pos_encoding.inside[kind], windows.window)

    def saved_arguments(self) -> dict[str, Any]:
        stage: Any = self.stages[0]
        return super().saved_arguments() | ({} if stage.group_fit == "per_axis" else {"group_fit": stage.group_fit})

    def convert_state(self, state: StateDict) -> StateDict:
        return convert(state, self)


def _as_published(name: str, dim: int) -> dict[str, int]:
    """Options of an encoding in a stage of this width, unless others are given."""
    return {"hidden": max(1, dim // 4 // 4)} if name == "dpb" else {}


def _sizes(stem: CrossScaleEmbed, img_size: Sequence[int], stages: int) -> list[tuple[int, int]]:
    """Height and width of the maps of all stages, tokens."""
    height, width = stem.grid_size(img_size)
    return [(-(-height // 2**i), -(-width // 2**i)) for i in range(stages)]


def _listed(name: str, values: Any, number: int) -> list[Any]:
    """What there is of each stage, or between them."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or len(values) != number:
        raise ValueError(f"{name}={shown(values)} must be {number}, in a list; allowed: one for each, or one for all")
    return list(values)


def _merges(given: Any, dims: Sequence[int]) -> list[tuple[int, ...]]:
    """Sides of what is merged ahead of every stage but the first, tokens."""
    flat = not isinstance(given, Sequence) or all(isinstance(each, Real) for each in given)
    kernels = [given] * len(dims[1:]) if flat else _listed("merge_size", given, len(dims) - 1)
    return [check_kernels("merge_size", each, 2, dim) for each, dim in zip(kernels, dims[1:])]


def _groups(given: Any, group_type: GroupType, depths: Sequence[int], side: int) -> list[tuple[int, ...]]:
    """Sides of the groups of every block, tokens."""
    sizes = [given] * len(depths) if isinstance(given, Real) else _listed("group_size", given, len(depths))
    several = [not isinstance(each, Real) for each in sizes]
    firsts = [1 if many else each for many, each in zip(several, sizes)]
    check_counts("group_size", firsts, None, 1, MAX_WINDOW)
    if any(several) and group_type != "constant":
        raise ValueError(f"group_type={group_type!r} chooses the group of every block itself; allowed: constant")
    groups = published_groups(group_type, firsts, depths, side)
    return [
        check_counts("group_size", each, depth, 1, MAX_WINDOW) if many else of_type
        for many, each, depth, of_type in zip(several, sizes, depths, groups)
    ]
