"""A stage of CrossFormer: blocks that attend in groups of neighbours, and of tokens that stand apart, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, Literal

import torch
from torch import nn

from visionpe.backbones.shared.block import WindowBlock
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.pyramid import Stage
from visionpe.backbones.shared.windows import Dilated, Pair, Windows
from visionpe.grid import Grid
from visionpe.tracing import is_exporting, larger, smaller

GroupType = Literal["constant", "linear", "linear_div", "alter", "7_14"]
GroupFit = Literal["per_axis", "whole_map"]


def published_groups(
    group_type: GroupType, group_size: Sequence[int], depths: Sequence[int], side: int
) -> list[tuple[int, ...]]:
    """Sides of the groups of every block, tokens, as CrossFormer++ lets them grow.

    Source: CrossFormer++, section on progressive group sizes, and the ``GROUP_TYPE`` of its configurations.

    Args:
        group_type: ``constant`` in a stage. ``linear``: from 4 tokens to the whole map, the same share of the map more
            in every block. ``linear_div`` and ``alter``: what is more than half of the map becomes all of it, but in
            the third stage half or all, by which is nearer or in turn. ``7_14``: half in the first four blocks of the
            third stage.
        group_size: Of the stages, for ``constant`` and ``7_14``.
        depths: Blocks of the stages.
        side: Of the trained map of the first stage, tokens.
    """
    first = 4 / side
    step = (first + (1 - first) / sum(depths)) - first  # rounded as numpy's arange does, since the next is rounded up
    groups, block = [], 0
    for i, depth in enumerate(depths):
        length, sizes = side // 2**i, []
        for j in range(depth):
            size = length * (first + block * step)
            if group_type in ("linear_div", "alter") and size > length // 2:
                halves = i == 2 and (size <= length * 3 / 4 if group_type == "linear_div" else block % 2 == 0)
                size = length // 2 if halves else length
            fixed = group_size[i] // 2 if group_type == "7_14" and i == 2 and j < 4 else group_size[i]
            sizes.append(max(1, fixed) if group_type in ("constant", "7_14") else max(4, ceil(size)))
            block += 1
        groups.append(tuple(sizes))
    return groups


def _is_small(size: Pair, group: int) -> Any:
    """1 where the shorter side of a map is no longer than a group, else 0."""
    return 1 - smaller(larger(smaller(*size) - group, 0), 1)  # arithmetic: in an exported graph sizes are symbols


class LongGroups(Dilated):
    """Groups of tokens ``interval`` apart; but side by side on a map whose shorter side is no longer than a group."""

    @property
    def apart(self) -> Pair:
        assert self.interval is not None
        small = _is_small(self.size, self.window[0])
        down, right = (apart - small * (apart - 1) for apart in self.interval)
        return down, right


class CrossFormerStage(Stage):
    """Blocks that attend in short-distance groups (even ones) and long-distance groups (odd ones).

    Args:
        downsample, blocks: See :class:`~visionpe.backbones.shared.pyramid.Stage`.
        groups: Side of the groups of every block, tokens.
        interval: Rows and columns from one token of a long-distance group to the next; None for as many as let a group
            reach over the map.
        group_fit: See :class:`CrossFormer`.
        centred: Padding stands on all sides of the map.
        masked: Padding is not attended to.

    Attributes:
        places: For every block, the kind of its groups and its index among those that have it.
    """

    def __init__(
        self,
        downsample: nn.Module,
        blocks: Sequence[WindowBlock],
        *,
        groups: Sequence[int],
        interval: int | None,
        group_fit: GroupFit,
        centred: bool,
        masked: bool,
    ) -> None:
        encoding: Any = nn.Identity()  # which is built last
        super().__init__(downsample, blocks, encoding)
        self.interval, self.group_fit, self.centred, self.masked = interval, group_fit, centred, masked
        self.groups: dict[str, int] = {}
        self.places: list[tuple[str, int]] = []
        for i, group in enumerate(groups):
            kind = ("short", "long")[i % 2] + (f"_{group}" if len(set(groups)) > 1 else "")
            self.groups[kind] = group
            self.places.append((kind, sum(kind == other for other, _ in self.places)))

    @property
    def windows_grow(self) -> bool:
        return False

    def windows(self, size: Pair) -> dict[str, Windows]:
        """How every kind of groups cuts a map of this size, tokens."""
        return {kind: self._windows(size, group, kind.startswith("long")) for kind, group in self.groups.items()}

    def _windows(self, size: Pair, group: int, apart: bool) -> Windows:
        small, window = _is_small(size, group), (group, group)
        symbolic = is_exporting() and not isinstance(small, int)
        if self.group_fit == "whole_map":
            if symbolic:
                raise ValueError(
                    "group_fit='whole_map' has no graph that serves every size; allowed: 'per_axis', by "
                    "model.set_group_fit"
                )
            window = size if small else window
        elif not self.masked:
            window = (smaller(group, size[0]), smaller(group, size[1]))
        if not apart or (not symbolic and small):
            return Windows(size, window, centred=self.centred)
        interval = -(-larger(*size) // group) if self.interval is None else self.interval
        return LongGroups(size, window, centred=self.centred, interval=(interval, interval))

    def partitions(self, size: Pair, device: torch.device) -> list[list[Partition]]:
        ways = {}
        for kind, windows in self.windows(size).items():
            mask = (self.mask(windows, device), self.gather(windows, device)) if self.masked else (None, None)
            ways[kind] = (windows, self.pos_encoding.inside[kind], Grid(size=windows.window), *mask)
        out = []
        for kind, layer in self.places:
            windows, encoding, grid, mask, gather = ways[kind]
            out.append([Partition(windows, encoding, grid, mask, layer, gather)])
        return out
