"""Swin3D's encoder: attention in windows of sparse voxels, with any encoding that reads real coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import calculate_drop_path_rates
from torch import Tensor, nn

from visionpe.backbones.shared.arguments import check_keywords, keywords_of
from visionpe.backbones.shared.images import take_indices
from visionpe.backbones.shared.voxel_backbone import VoxelBackbone
from visionpe.backbones.shared.voxel_checks import check_levels, check_settings, check_voxels, one_a_level
from visionpe.backbones.shared.voxel_level import Level, coarser
from visionpe.backbones.swin3d.layers import (
    ConvStem,
    GridDown,
    KnnDown,
    ResidualConvs,
    SparseBlocks,
)
from visionpe.backbones.swin3d.weights import Filtered, load_filtered, published, to_module_keys, to_published_keys
from visionpe.graphs import no_node
from visionpe.registry import Spec
from visionpe.utils.weight_files import StateDict


class Swin3DTransformer(VoxelBackbone):
    """Voxels to the features of every level, or to one vector (or class scores) for each cloud.

    Source: "Swin3D: A Pretrained Transformer Backbone for 3D Indoor Scene Understanding", arXiv 2304.06906. It takes
    :class:`~visionpe.sparse.Voxels`, or a tuple ``(features, coords, signals)``, of any number of clouds of any size.
    State dicts have the keys of the published files.

    Args:
        in_chans: Features of a voxel, for the stem.
        num_classes: Of a linear head on the mean over each cloud; 0 for none.
        embed_dims, depths, num_heads, window_size: Of every level; windows in cells, one number for all or one each.
        signals: What cRSE reads: any of XYZ, RGB, NORM, joined by ``_``.
        quant_size: Rows of cRSE's tables for a step of one cell.
        first_down_stride: Finest voxels in a cell of the second level, along each axis; 2 at the levels after it.
        mlp_ratio, qkv_bias: Of the blocks.
        drop_path_rate: Of the last block, 0 to 1; it grows linearly from 0 and draws one coin a voxel, as published.
        knn_down: Neighbours decide the features of a coarser cell, as published; else its own voxels do.
        down_k: How many neighbours.
        stem_transformer: The first level has attention; else two more convolutions and no window.
        pos_encoding: See :func:`visionpe.create_encoding`; any encoding that reads real coordinates.
        cloud_size: Side of the clouds at training in finest voxels, from which absolute encodings measure.
        drop_rate: Dropout ahead of the head, 0 to 1.
        global_pool: ``avg``; empty leaves the voxels of the last level as they are.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If the settings of the levels differ in number, a setting is out of range, or an encoding needs
            tokens on a full grid.
    """

    family = "Swin3D"

    def __init__(
        self,
        *,
        in_chans: int = 6,
        num_classes: int = 0,
        embed_dims: Sequence[int] = (48, 96, 192, 384, 384),
        depths: Sequence[int] = (2, 4, 9, 4, 4),
        num_heads: Sequence[int] = (6, 6, 12, 24, 24),
        window_size: int | Sequence[int] = (5, 7, 7, 7, 7),
        signals: str = "XYZ_RGB",
        quant_size: int = 4,
        first_down_stride: int = 3,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        knn_down: bool = True,
        down_k: int = 16,
        stem_transformer: bool = True,
        pos_encoding: Spec = "crse",
        cloud_size: int = 256,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        check_keywords(type(self).__name__, unknown, keywords_of(type(self), Swin3DTransformer))
        settings: dict[str, Any] = {
            "in_chans": in_chans,
            "num_classes": num_classes,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
        }
        settings |= {"first_down_stride": first_down_stride, "down_k": down_k, "cloud_size": cloud_size}
        settings |= {"knn_down": knn_down, "stem_transformer": stem_transformer, "global_pool": global_pool}
        settings |= {"drop_path_rate": drop_path_rate, "drop_rate": drop_rate, "device": device, "dtype": dtype}
        check_settings(**settings)
        self.first = int(not stem_transformer)
        lists = {"embed_dims": embed_dims, "depths": depths, "num_heads": num_heads}
        lists["window_size"] = one_a_level(window_size, depths)
        embed_dims, depths, num_heads, windows = check_levels(self.first, mlp_ratio, **lists)
        levels = len(depths)
        self.keep_settings(
            in_chans, global_pool, embed_dims, depths, num_heads,
            [1, *(first_down_stride * 2**i for i in range(levels - 1))],
            cloud_size=cloud_size, signals=signals, pos_encoding=pos_encoding,
            device=device, dtype=dtype, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias,
        )  # fmt: skip
        self.windows, self.quant_size = windows, quant_size
        for i, info in enumerate(self.feature_info):
            info["module"] = f"layers.{max(i - self.first, 0)}"
        down = partial(KnnDown, k=down_k, **self.factory) if knn_down else partial(GridDown, **self.factory)
        stem = ConvStem(in_chans, embed_dims[0], **self.factory)
        self.stem_layer: nn.Module = stem
        if self.first:
            self.stem_layer = nn.ModuleList([stem, ResidualConvs(embed_dims[0], **self.factory)])
            self.downsample = down(embed_dims[0], embed_dims[1], first_down_stride)
        rates = iter(calculate_drop_path_rates(drop_path_rate, sum(depths[self.first :])))
        self.layers = nn.ModuleList()
        for i in range(self.first, levels):
            step = first_down_stride if i == 0 else 2
            next_ = down(embed_dims[i], embed_dims[i + 1], step) if i + 1 < levels else None
            blocks = self.blocks_of(i, [next(rates) for _ in range(depths[i])], next_, first=i == self.first)
            self.layers.append(blocks)
        self.finish(self.layers, drop_rate, num_classes)
        self._register_state_dict_hook(to_published_keys)

    def blocks_of(
        self, level: int, rates: Sequence[float], downsample: nn.Module | None = None, *, first: bool = False
    ) -> SparseBlocks:
        """Blocks of a level, one for each rate of drop path, with an encoding of their own."""
        dim, heads, side = self.embed_dims[level], self.num_heads[level], self.windows[level]
        blocks, encoding = self.encoded_blocks(level, dim, heads, side, rates, first=first, quant_size=self.quant_size)
        return SparseBlocks(blocks, encoding, side, downsample)

    @no_node
    def encode(self, x: Any, stop: int | None = None) -> list[tuple[Tensor, Level]]:
        """Features ``(N, dim)`` of every level up to ``stop``, the finest first, and the level."""
        voxels = check_voxels(x, self.in_chans, self.signals)
        level, y, out = Level(voxels, self.cloud_size), voxels.features, []
        stem: Any = self.stem_layer
        if self.first:
            y = stem[1](stem[0](y, level.around), level.around).to(y.dtype)
            out.append((y, level))
            y, level = self._down(self.downsample, y, level)
        else:
            y = stem(y, level.around).to(y.dtype)
        layers: list[Any] = list(self.layers)
        for layer in layers:
            y = layer(y, level)
            out.append((y, level))
            if layer.downsample is None or (stop is not None and len(out) > stop):
                break
            y, level = self._down(layer.downsample, y, level)
        return out

    @staticmethod
    def _down(downsample: Any, x: Tensor, level: Level) -> tuple[Tensor, Level]:
        coarse = coarser(level, downsample.stride)
        return downsample(x, level, coarse).to(x.dtype), coarse

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the levels after the last one asked for, and the head."""
        wanted, last = take_indices(len(self.feature_info), indices)
        self.layers = self.layers[: max(last + 1 - self.first, 1)]
        last_layer: Any = self.layers[-1]
        last_layer.downsample = None
        if prune_head:
            self.reset_classifier(0, "")
        return wanted

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions of a level belong to its beginning."""
        last: tuple[str, Any] = (r"^(?:upsamples|classifier|head)", (99999,))
        if coarse:
            return {"stem": r"^(?:stem_layer|downsample)", "blocks": [(r"^layers\.(\d+)", None), last]}
        blocks = [
            (r"^layers\.(\d+)\.pos_encoding", (0,)),
            (r"^layers\.(\d+)\.blocks\.(\d+)", None),
            (r"^layers\.(\d+)\.downsample", (99998,)),
            last,
        ]
        return {"stem": r"^(?:stem_layer|downsample)", "blocks": blocks}

    def convert_state(self, state: StateDict) -> StateDict:
        return published(state, self)

    def to_modules(self, state: StateDict) -> StateDict:
        return to_module_keys(state, self)

    def load_filtered(self, checkpoint: Any, *, skip_first_conv: bool = True) -> Filtered:
        """Load what fits of pre-trained weights, as the authors do to fine-tune: see :func:`load_filtered`."""
        return load_filtered(self, checkpoint, skip_first_conv=skip_first_conv)
