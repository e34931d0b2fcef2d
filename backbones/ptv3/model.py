"""Point Transformer V3's encoder: attention in patches along space-filling curves, with any encoding of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from timm.layers import calculate_drop_path_rates
from torch import Tensor, nn

from visionpe.backbones.ptv3.layers import CurveStage, Down, Form, Stem
from visionpe.backbones.ptv3.patches import reach
from visionpe.backbones.ptv3.settings import check_orders, check_strides, voxels_of
from visionpe.backbones.ptv3.weights import published
from visionpe.backbones.shared.arguments import check_keywords, keywords_of
from visionpe.backbones.shared.images import take_indices
from visionpe.backbones.shared.voxel_backbone import VoxelBackbone
from visionpe.backbones.shared.voxel_checks import check_levels, check_settings, one_a_level
from visionpe.backbones.shared.voxel_level import Level, coarser
from visionpe.graphs import no_node
from visionpe.registry import Spec
from visionpe.sparse import Order
from visionpe.sparse.orders import ORDERS, bits_of
from visionpe.utils.weight_files import StateDict


class PointTransformerV3(VoxelBackbone):
    """Voxels to the features of every level, or to one vector (or class scores) for each cloud.

    Source: "Point Transformer V3: Simpler, Faster, Stronger", arXiv 2312.10035; with ``form="linear"`` as in Sonata,
    arXiv 2503.16429, Concerto and others. It takes :class:`~visionpe.sparse.Voxels`, or a tuple ``(features, coords)``
    or ``(features, coords, signals)``, of any number of clouds of any size, where coordinates are no less than 0, as
    grid sampling gives them: the curves start there. The Hilbert curve turns with the bits of the largest coordinate
    of the batch, as published.

    Args:
        in_chans: Features of a voxel, for the stem.
        num_classes: Of a linear head on the mean over each cloud; 0 for none.
        embed_dims, depths, num_heads, patch_size: Of every level; patches in voxels, one number for all or one each.
        strides: Cells of a level in one of the next, along each axis.
        orders: Curves, by which the blocks of a level take turns: ``z z-trans hilbert hilbert-trans``.
        shuffle_orders: In training, draw their turn anew for every level and pass. The published code does it in
            evaluation too, where its outputs are random.
        curve_margin: Cells beyond the largest coordinate for which the cube of the curves has room, 0 to 8: 1 as in
            Pointcept, 0 as in the authors' repository without it. A Hilbert curve turns where that takes another bit.
        equal_patches: All patches of a batch are as short as its smallest cloud, as in the published code without
            flash attention, so that the clouds of a batch matter to each other.
        form: ``conv`` (a convolution in the stem, batch norms between levels) or ``linear`` (a linear stem, layer
            norms).
        mlp_ratio, qkv_bias, attn_drop_rate, proj_drop_rate, init_values: Of the blocks; the last is LayerScale.
        drop_path_rate: Of the last block, 0 to 1; it grows linearly from 0 and draws one coin a voxel, as published.
        signals: What ``crse`` reads, if it is asked for: any of XYZ, RGB, NORM, joined by ``_``.
        pos_encoding: See :func:`visionpe.create_encoding`; any encoding that reads real coordinates. With the tables
            of the published code (``enable_rpe``) it is ``"xcpe+rpb_axes"``.
        cloud_size: Side of the clouds at training in finest voxels, from which absolute encodings measure.
        drop_rate: Dropout ahead of the head, 0 to 1.
        global_pool: ``avg``; empty leaves the voxels of the last level as they are.

    Raises:
        TypeError: If a keyword is unknown.
        ValueError: If the settings of the levels differ in number, a setting is out of range, or an encoding needs
            tokens on a full grid.
    """

    family = "Point Transformer V3"

    def __init__(
        self,
        *,
        in_chans: int = 6,
        num_classes: int = 0,
        embed_dims: Sequence[int] = (32, 64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 6, 2),
        num_heads: Sequence[int] = (2, 4, 8, 16, 32),
        patch_size: int | Sequence[int] = 1024,
        strides: Sequence[int] = (2, 2, 2, 2),
        orders: Sequence[Order] = ORDERS,  # type: ignore[assignment]
        shuffle_orders: bool = True,
        curve_margin: int = 1,
        equal_patches: bool = False,
        form: Form = "conv",
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        init_values: float | None = None,
        drop_path_rate: float = 0.0,
        signals: str = "XYZ",
        pos_encoding: Spec = "xcpe",
        cloud_size: int = 256,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        check_keywords(type(self).__name__, unknown, keywords_of(type(self), PointTransformerV3))
        rates = {"drop_path_rate": drop_path_rate, "drop_rate": drop_rate, "attn_drop_rate": attn_drop_rate}
        flags = {"qkv_bias": qkv_bias, "shuffle_orders": shuffle_orders, "equal_patches": equal_patches}
        others = {"mlp_ratio": mlp_ratio, "init_values": init_values, "form": form, "global_pool": global_pool}
        counted = {"in_chans": in_chans, "num_classes": num_classes, "cloud_size": cloud_size}
        counted["curve_margin"] = curve_margin
        check_settings(**rates, **flags, **others, **counted, proj_drop_rate=proj_drop_rate, device=device, dtype=dtype)
        lists = {"embed_dims": embed_dims, "depths": depths, "num_heads": num_heads}
        lists["patch_size"] = one_a_level(patch_size, depths)
        embed_dims, depths, num_heads, sizes = check_levels(0, mlp_ratio, **lists)
        strides, orders = check_strides(strides, len(depths)), check_orders(orders)
        drops = {"attn_drop": attn_drop_rate, "proj_drop": proj_drop_rate, "init_values": init_values}
        self.keep_settings(
            in_chans, global_pool, embed_dims, depths, num_heads, (1, *accumulate(strides, mul)),
            cloud_size=cloud_size, signals=signals, pos_encoding=pos_encoding,
            device=device, dtype=dtype, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, **drops,
        )  # fmt: skip
        self.form, self.patch_sizes, self.equal_patches = form, sizes, equal_patches
        self.orders, self.shuffle_orders, self.curve_margin = orders, shuffle_orders, curve_margin
        self.stem = Stem(in_chans, embed_dims[0], form, **self.factory)
        every = iter(calculate_drop_path_rates(drop_path_rate, sum(depths)))
        self.stages = nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(embed_dims, depths)):
            down = Down(embed_dims[i - 1], dim, strides[i - 1], form, **self.factory) if i else None
            self.stages.append(self.stage_of(i, dim, num_heads[i], [next(every) for _ in range(depth)], down))
        self.finish(self.stages, drop_rate, num_classes)

    def stage_of(
        self, level: int, dim: int, heads: int, rates: Sequence[float], change: nn.Module | None
    ) -> CurveStage:
        """Blocks of a level, one for each rate of drop path, with an encoding of their own."""
        size = self.patch_sizes[level]
        first = level == 0 and change is None
        blocks, encoding = self.encoded_blocks(level, dim, heads, reach(size) + 1, rates, first=first)
        return CurveStage(blocks, encoding, size, equal=self.equal_patches, change=change)

    def _turns(self) -> Sequence[Order]:
        """The curves in the order in which blocks of a level take them."""
        if not (self.training and self.shuffle_orders):
            return self.orders
        return [self.orders[i] for i in torch.randperm(len(self.orders)).tolist()]

    @no_node
    def walk(self, x: Any, stop: int | None = None) -> list[tuple[Tensor, Level, Sequence[Order], int]]:
        """Features ``(N, dim)`` of every level up to ``stop``, the level, its curves, and the bits of a coordinate."""
        voxels, largest = voxels_of(x, self.in_chans, self.signals)
        level, y = Level(voxels, self.cloud_size), voxels.features
        largest //= voxels.stride
        bits = bits_of(largest, self.curve_margin)
        out: list[tuple[Tensor, Level, Sequence[Order], int]] = []
        y = self.stem(y, level).to(y.dtype)
        stages: list[Any] = list(self.stages)
        for stage in stages[: None if stop is None else stop + 1]:
            if stage.change is not None:
                coarse = coarser(level, stage.change.stride)
                y, level = stage.change(y, level, coarse).to(y.dtype), coarse
                largest //= stage.change.stride
                if self.form == "linear":
                    bits = bits_of(largest, self.curve_margin)
                else:  # the authors' first code does not ask again
                    bits = max(bits - (stage.change.stride - 1).bit_length(), bits_of(largest))
            turns = self._turns()
            y = stage(y, level, turns, bits)
            out.append((y, level, turns, bits))
        return out

    def encode(self, x: Any, stop: int | None = None) -> list[tuple[Tensor, Level]]:
        return [(y, level) for y, level, _, _ in self.walk(x, stop)]

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the levels after the last one asked for, and the head."""
        wanted, last = take_indices(len(self.feature_info), indices)
        self.stages = self.stages[: last + 1]
        if prune_head:
            self.reset_classifier(0, "")
        return wanted

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions of a level belong to its beginning."""
        last: tuple[str, Any] = (r"^(?:decoder|classifier|head)", (99999,))
        if coarse:
            return {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), last]}
        blocks = [
            (r"^stages\.(\d+)\.(?:change|pos_encoding)", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            last,
        ]
        return {"stem": r"^stem", "blocks": blocks}

    def convert_state(self, state: StateDict) -> StateDict:
        return published(state, self)
