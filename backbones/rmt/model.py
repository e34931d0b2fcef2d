"""RMT: retentive attention, along rows and columns first and in the whole map later, with any position encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import ClassifierHead
from torch import nn

from visionpe.backbones.rmt.layers import ConvMlp, ConvStem, Merge, ProjectedHead
from visionpe.backbones.rmt.stage import LinesAttention, RMTStage, of_stage
from visionpe.backbones.rmt.weights import convert
from visionpe.backbones.shared.arguments import (
    MAX_DIM,
    check_arguments,
    check_blocks,
    check_image_size,
    check_stages,
)
from visionpe.backbones.shared.loading import measure_from
from visionpe.backbones.shared.options import PyramidOptions
from visionpe.backbones.shared.pyramid import Pyramid
from visionpe.backbones.shared.stage_encoding import StageEncoding
from visionpe.checks import check_count, check_flag, check_number, shown
from visionpe.registry import Spec
from visionpe.utils.weight_files import StateDict

# As published: the decays of the stages join it, see `of_stage`.
OWN_ENCODING = [
    {"name": "cpe", "layers": "all", "ahead": True},
    {"name": "rope_raster"},
    {"name": "manhattan"},
    {"name": "lepe", "kernel_size": 5},
]


class RMT(Pyramid):
    """RMT for classification and for dense prediction, with any position encoding, at any height and width.

    Early stages are decomposed: tokens attend inside their row and then, on that result, inside their column. Late
    ones attend in the whole map. That is the body, whatever the encoding: encodings that act on each token (rotary,
    LePE) see the whole map, those that act on pairs of tokens (biases) are built once for rows and once for columns.

    Positions are what the paper calls explicit spatial prior (the Manhattan decay), rotary turns by the number of the
    token, the local enhancement of the values (LePE, 5 x 5) and CPE, a 3 x 3 convolution ahead of every block, which
    the paper counts as position encoding: ``pos_encoding`` replaces all four. The convolutions of the stem, between
    the stages and inside the MLPs stay.

    The published files load: classifiers, with ``token_label`` those trained with token labels too, and backbones of
    detectors and segmentors, which have a norm for each feature (``feature_norms``). Their decays are read from the
    file. A classification file in a model with feature norms leaves these at identity.

    Source: "RMT: Retentive Networks Meet Vision Transformers", arXiv 2309.11523, sections 3.2 to 3.4, and its code.

    Args:
        pos_encoding: See :func:`visionpe.create_encoding`. ``manhattan`` has the decays of the stages, where it does
            not state ``init_value`` or ``decay_range`` itself.
        img_size: Height and width in pixels at which the model is or was trained. Any other size runs too; policies
            measure from this one.
        embed_dim, depths, num_heads: Of the stages.
        mlp_ratio: Width of the MLPs over that of the tokens; one number, or one for each stage.
        decomposed: Whether a stage attends along rows and columns, one answer, or one for each; by default all but the
            last two.
        decay_init, decay_range: Of the Manhattan decay, see :class:`~visionpe.encodings.bias.manhattan.ManhattanDecay`;
            one number, or one for each stage.
        init_values: Of LayerScale, None for none; one, or one for each stage.
        projection: Width between the last map and the classifier.
        token_label: A second classifier, for every token, whose largest logits are added by half, as published for
            models trained with token labels (there it is left alone in training, for a loss of its own).
        drop_path_rate: Stochastic depth at the last block, growing from 0 at the first.
        options: Further keywords: ``in_chans num_classes global_pool qkv_bias drop_rate proj_drop_rate attn_drop_rate
            feature_norms norm_layer act_layer device dtype``, see
            :class:`~visionpe.backbones.shared.options.PyramidOptions`. Norms of blocks have eps 1e-6, those of
            features 1e-5, unless ``norm_layer`` is given.

    Raises:
        ValueError: If the lists differ in length, heads do not divide the width, a number is out of range, or the
            encoding cannot work here.
        TypeError: If an option is unknown.
    """

    family = "RMT"
    has_final_norm = False

    def __init__(
        self,
        pos_encoding: Spec = OWN_ENCODING,  # type: ignore[assignment]
        *,
        img_size: int | tuple[int, int] = 224,
        embed_dim: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 8, 2),
        num_heads: Sequence[int] = (4, 4, 8, 16),
        mlp_ratio: float | Sequence[float] = 3.0,
        decomposed: bool | Sequence[bool] | None = None,
        decay_init: float | Sequence[float] = 2.0,
        decay_range: float | Sequence[float] = (4.0, 4.0, 6.0, 6.0),
        init_values: float | Sequence[float | None] | None = None,
        projection: int = 1024,
        token_label: bool = False,
        drop_path_rate: float = 0.0,
        **options: Any,
    ) -> None:
        shared = PyramidOptions.read(type(self), options)
        check_arguments({"drop_path_rate": drop_path_rate})
        depths, dims, num_heads = check_stages(depths=depths, embed_dim=embed_dim, num_heads=num_heads)
        stages = len(depths)
        ratio = partial(check_number, above=0, high=100)
        ratios = _each("mlp_ratio", mlp_ratio, stages, ratio)
        self.decay_init = _each("decay_init", decay_init, stages, partial(check_number, low=1e-3, high=50))
        self.decay_range = _each("decay_range", decay_range, stages, partial(check_number, low=0, high=50))
        scales = _each("init_values", init_values, stages, partial(check_number, low=0, high=100), optional=True)
        split = [i < stages - 2 for i in range(stages)] if decomposed is None else decomposed
        split = _each("decomposed", split, stages, check_flag)
        self.projection = check_count("projection", projection, 1, MAX_DIM)
        self.token_label = check_flag("token_label", token_label)
        if dims[0] < 2:
            raise ValueError(f"embed_dim={shown(dims)}: half of the first is that of the stem; allowed: 2 or more")
        for i, (dim, heads) in enumerate(zip(dims, num_heads)):
            check_blocks(dims[i : i + 1], depths[i : i + 1], ratios[i])
            if dim % heads:
                raise ValueError(f"num_heads={heads} of stage {i} must divide its width, {dim}; allowed: {dim} / n")
        image, _ = check_image_size(img_size, ConvStem.patch_size)

        factory = shared.factory
        stem = ConvStem(shared.in_chans, dims[0], **factory)
        sizes = list(_halved(stem.grid_size(image), stages))
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(list(depths))
        norm_layer = options.get("norm_layer") or partial(nn.LayerNorm, eps=1e-6)
        built, encodings = [], []
        for i, (dim, heads) in enumerate(zip(dims, num_heads)):
            own = {"mlp_layer": ConvMlp, "attention": LinesAttention, "norm_layer": norm_layer}
            own |= {"mlp_ratio": ratios[i], "init_values": scales[i]}
            stage = RMTStage(
                Merge(dims[i - 1], dim, **factory) if i else nn.Identity(),
                [shared.block(dim, heads, drop_path=float(rate), depth=j, **own) for j, rate in enumerate(rates[i])],
                nn.Identity(),
                grid_size=sizes[i],
                decomposed=split[i],
            )
            built.append(stage)
            context = {"dim": dim, "num_heads": heads, "depth": depths[i], "grid_size": sizes[i]}
            context |= {"kinds": stage.kinds(dim, heads), "first": i == 0, **factory}
            encodings.append(
                partial(StageEncoding, of_stage(pos_encoding, self.decay_init[i], self.decay_range[i]), **context)
            )
        super().__init__(
            stem,
            built,
            encodings,
            dims=dims,
            depths=depths,
            reductions=[ConvStem.patch_size * 2**i for i in range(stages)],
            options=shared,
        )
        self.set_trained_size(image, (ConvStem.patch_size,) * 2)
        for stage in built:
            if stage.decomposed:  # what concerns all logits is up to the lines, unless nothing acts there
                whole, rows, _ = stage.pos_encoding.inside.values()
                whole.modifiers = () if rows.parts else ("temperature",)

    def _build_head(self, dim: int, **options: Any) -> ClassifierHead:
        return ProjectedHead(dim, self.projection, token_label=self.token_label, **options)

    def _stages_at(self, img_size: Sequence[int]) -> Iterator[tuple[Any, tuple[int, int]]]:
        """Every stage, and height and width of its map at a size in pixels, tokens."""
        stem: Any = self.patch_embed
        return zip(self.stages, _halved(stem.grid_size(img_size), len(self.stages)))

    def set_input_size(self, img_size: int | tuple[int, int] | None = None) -> None:
        """Change the nominal size, pixels; tables per position are resized, policies keep the trained size."""
        if img_size is None:
            return
        image, _ = check_image_size(img_size, ConvStem.patch_size)
        for stage, size in self._stages_at(image):
            stage.pos_encoding.set_input_grid(size, stage.windows(size))
        self.record_size(image)

    def set_trained_size(self, img_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
        """Let policies of encodings measure from another size, pixels."""
        check_image_size(img_size, ConvStem.patch_size, "trained_size")
        super().set_trained_size(img_size, (ConvStem.patch_size,) * 2)  # kernels are smaller than a token
        for stage, size in self._stages_at(img_size):
            measure_from(stage.pos_encoding.map, size)
            for kind, window in stage.windows(size).items():
                measure_from(stage.pos_encoding.inside[kind], window)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one asked for, norms of the others, and with the head its projection."""
        wanted = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head:
            self.head.proj, self.head.norm = nn.Identity(), nn.Identity()
        return wanted

    def saved_arguments(self) -> dict[str, Any]:
        return super().saved_arguments() | {"decay_init": self.decay_init, "decay_range": self.decay_range}

    def convert_state(self, state: StateDict) -> StateDict:
        return convert(state, self)


def _halved(size: tuple[int, int], stages: int) -> Iterator[tuple[int, int]]:
    """Height and width of the maps of the stages, tokens, each half of the one before, rounded up."""
    for _ in range(stages):
        yield size
        size = (-(-size[0] // 2), -(-size[1] // 2))


def _each(
    name: str, value: Any, stages: int, check: Callable[[str, Any], Any], optional: bool = False
) -> tuple[Any, ...]:
    """One value for each stage, from one for all or one for each."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    values = tuple(value) if listed else (value,) * stages
    if len(values) != stages:
        raise ValueError(f"{name}={shown(value)} are {len(values)}; allowed: {stages}, one for each stage of depths")
    for each in values:
        if not (optional and each is None):
            check(name, each)
    return values
