"""What pyramids share whose attention is over the whole map, with keys that are fewer than queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.layers import Mlp
from torch import nn

from visionpe.backbones.shared.arguments import (
    MAX_PATCH,
    check_arguments,
    check_blocks,
    check_image_size,
    check_stages,
)
from visionpe.backbones.shared.conv_embed import ConvEmbed, ImageEmbed, Slide
from visionpe.backbones.shared.loading import measure_from
from visionpe.backbones.shared.options import PyramidOptions
from visionpe.backbones.shared.pyramid import Pyramid
from visionpe.backbones.shared.reduced import ReducedAttention, ReducedBlock, ReducedStage
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.backbones.shared.windows import Pair
from visionpe.checks import check_count, check_counts, check_numbers, shown
from visionpe.registry import Spec


@dataclass(frozen=True)
class StageShape:
    """A stage as it is built.

    Args:
        dim, depth, num_heads: Width of the tokens, blocks, heads.
        mlp_ratio: Width of the MLPs over that of the tokens.
        slide: How the convolution slides that makes its tokens.
        reduction: By how many tokens keys are fewer along each axis; 1 for none.
        prefix: Tokens ahead of the map.
    """

    dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    slide: Slide
    reduction: int = 1
    prefix: int = 0


def stage_shapes(
    shared: PyramidOptions,
    *,
    embed_dim: int | Sequence[int],
    depths: Sequence[int],
    num_heads: Sequence[int],
    mlp_ratios: Sequence[float] | None,
    patch_sizes: Sequence[int],
    strides: Sequence[int],
    reductions: tuple[str, Sequence[int] | None],
    paddings: Sequence[int] | None,
    prefix: int = 0,
) -> list[StageShape]:
    """The stages, from what a constructor was given.

    Args:
        shared: What all pyramids take.
        embed_dim, depths, num_heads, mlp_ratios, patch_sizes, strides: See the constructors.
        paddings: Around the map that patches are cut from; None for half of their sides.
        reductions: Name and values of the keyword; None for halves of the one before, down to 1.
        prefix: Tokens ahead of the map in the last stage.

    Raises:
        TypeError, ValueError: Names the keyword that is out of range.
    """
    stages = len(depths)
    if not isinstance(embed_dim, Sequence):
        first = check_count("embed_dim", embed_dim)
        embed_dim = [first * 2**i for i in range(stages)]
    name, given = reductions
    given = [2 ** (stages - 1 - i) for i in range(stages)] if given is None else given
    lists = {"depths": depths, "embed_dim": embed_dim, "num_heads": num_heads, name: given}
    _, dims, num_heads, given = check_stages(**lists)
    if mlp_ratios is not None:
        check_numbers("mlp_ratios", mlp_ratios, stages, 0, 100)
        if any(int(dim * ratio) < 1 for dim, ratio in zip(dims, mlp_ratios)):
            raise ValueError(f"mlp_ratios={shown(mlp_ratios)} leave no channels; allowed: 1 / embed_dim or more")
    ratios = [shared.mlp_ratio] * stages if mlp_ratios is None else list(mlp_ratios)
    check_blocks(dims, depths, max(ratios))
    patch_sizes, strides = (
        check_counts(key, values, stages, 1, MAX_PATCH)
        for key, values in (("patch_sizes", patch_sizes), ("strides", strides))
    )
    paddings = [side // 2 for side in patch_sizes] if paddings is None else paddings
    slides = map(Slide, patch_sizes, strides, check_counts("paddings", paddings, stages, 0, MAX_PATCH))
    for i, (dim, heads) in enumerate(zip(dims, num_heads)):
        if dim % heads:
            raise ValueError(f"num_heads={heads} of stage {i} must divide its width, {dim}")
    return [
        StageShape(*each) for each in zip(dims, depths, num_heads, ratios, slides, given, [*[0] * (stages - 1), prefix])
    ]


# Block ``j`` of a stage, with its stochastic depth.
BuildBlock = Callable[[StageShape, int, float], nn.Module]


class ReducedPyramid(Pyramid):
    """A pyramid whose attention is over the whole map, with keys that may be fewer than queries.

    Args:
        shapes: The stages.
        block: What builds their blocks.
        pos_encoding: See :func:`visionpe.create_encoding`.
        img_size: At which the model is or was trained, pixels.
        rates: Stochastic depth of the blocks of each stage.
        shared: What all pyramids take.
        stage: What builds a stage of its shape and the arguments of :class:`ReducedStage`.
        embed_norm: Of the tokens that a convolution makes, given their width.
        draw: What draws the weights of convolutions in a module anew.
    """

    def __init__(
        self,
        shapes: Sequence[StageShape],
        block: BuildBlock,
        *,
        pos_encoding: Spec,
        img_size: Any,
        rates: Sequence[Sequence[float]],
        shared: PyramidOptions,
        embed_norm: Callable[..., nn.Module] = nn.LayerNorm,
        stage: Callable[..., ReducedStage] = lambda shape, *parts: ReducedStage(*parts),
        draw: Callable[[nn.Module], None] = lambda module: None,
    ) -> None:
        image, _ = check_image_size(img_size, shapes[0].slide.stride)
        factory, built, encodings, size = shared.factory, [], [], image
        embeds: list[Any] = []
        for i, (shape, drop) in enumerate(zip(shapes, rates)):
            width = shapes[i - 1].dim if i else shared.in_chans
            embed = ConvEmbed if i else ImageEmbed
            embeds.append(embed(width, shape.dim, shape.slide, embed_norm(shape.dim, **factory), **factory))
            size = shape.slide.size(size)
            heads = {"dim": shape.dim, "num_heads": shape.num_heads, "depth": shape.depth, "grid_size": size}
            kinds = {"whole": WindowKind(**heads, pools=shape.reduction > 1, prefix=shape.prefix)}
            encodings.append(partial(StageEncoding, pos_encoding, **heads, kinds=kinds, first=i == 0, **factory))
            blocks = [block(shape, j, drop[j]) for j in range(shape.depth)]
            built.append(stage(shape, embeds[i] if i else nn.Identity(), blocks, nn.Identity()))
        for module in (embeds[0], *built):
            draw(module)
        reductions = [shapes[0].slide.stride]
        for shape in shapes[1:]:
            reductions.append(reductions[-1] * shape.slide.stride)
        super().__init__(
            embeds[0],
            built,
            encodings,
            dims=[shape.dim for shape in shapes],
            depths=[shape.depth for shape in shapes],
            reductions=reductions,
            options=shared,
        )
        self.set_trained_size(image, (1, 1))

    def set_input_size(self, img_size: int | Pair | None = None) -> None:
        """Change the nominal size, pixels; tables per position are resized, policies keep the trained size."""
        if img_size is None:
            return
        image, _ = check_image_size(img_size, self._stride)
        for stage, size in self._maps(image):
            stage.pos_encoding.set_input_grid(size, {"whole": size})
        self.record_size(image)

    def set_trained_size(self, img_size: Pair, patch_size: Pair) -> None:
        """Let policies of encodings measure from another size, pixels; patches stay as they were built."""
        check_image_size(img_size, self._stride, "trained_size")
        super().set_trained_size(img_size, (self._stride,) * 2)  # kernels may be larger than a token
        for stage, size in self._maps(img_size):
            for group in (stage.pos_encoding.map, *stage.pos_encoding.inside.values()):
                measure_from(group, size)

    @property
    def _stride(self) -> int:
        """Pixels per token in the first stage."""
        stem: Any = self.patch_embed
        return stem.slide.stride

    def _maps(self, size: Pair) -> Iterator[tuple[Any, Pair]]:
        """Every stage, and height and width of its map, tokens, of images of a size in pixels."""
        for i, stage in enumerate(self.stages):
            embed: Any = stage.downsample if i else self.patch_embed
            size = embed.slide.size(size)
            yield stage, size


def growing(drop_path_rate: float, shapes: Sequence[StageShape]) -> list[list[float]]:
    """Stochastic depth of every block, growing evenly from 0 at the first of all."""
    check_arguments({"drop_path_rate": drop_path_rate})
    depths = [shape.depth for shape in shapes]
    return [each.tolist() for each in torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(depths)]


def reduced_block(
    shared: PyramidOptions, shape: StageShape, depth: int, drop_path: float, *, mlp: Callable[..., nn.Module] = Mlp
) -> ReducedBlock:
    """A block with spatial reduction.

    Args:
        shared: What all pyramids take.
        shape: The stage.
        depth: Index of the block in it.
        drop_path: Stochastic depth, 0 to 1.
        mlp: Class of the MLP, called as timm's.
    """
    drop, factory = shared.proj_drop_rate, shared.factory
    attention = ReducedAttention(
        shape.dim,
        shape.num_heads,
        sr_ratio=shape.reduction,
        qkv_bias=shared.qkv_bias,
        attn_drop=shared.attn_drop_rate,
        proj_drop=drop,
        **factory,
    )
    hidden = int(shape.dim * shape.mlp_ratio)
    wide = mlp(shape.dim, hidden, act_layer=shared.act_layer, drop=drop, **factory)
    return ReducedBlock(
        shape.dim, attention, wide, drop_path=drop_path, depth=depth, norm_layer=shared.norm_layer, **factory
    )
