"""Plain ViTs whose tokens stay a map: most blocks attend in windows of it, a few to all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.backbones.shared.block import run_block
from visionpe.backbones.shared.partition import Padding, Partition
from visionpe.backbones.shared.stage_encoding import StageEncoding
from visionpe.backbones.shared.windows import WholeMap, Windows
from visionpe.cache import TableCache
from visionpe.grid import Grid


def places_of(global_blocks: Iterable[int], depth: int) -> dict[int, tuple[str, int]]:
    """Of each block, whether it sees the ``whole`` map or a ``window``, and its index among those that do."""
    whole = sorted(global_blocks)
    windowed = [i for i in range(depth) if i not in whole]
    places = {i: ("whole", n) for n, i in enumerate(whole)}
    return places | {i: ("window", n) for n, i in enumerate(windowed)}


class WindowedMaps(nn.Module):
    """Mixin of such ViTs."""

    # Of the model.
    blocks: Any
    places: dict[int, tuple[str, int]]
    window_size: tuple[int, int]
    padding: Padding
    pos_encoding: StageEncoding
    cache: TableCache
    grad_checkpointing: bool
    _final: Any

    def windows(self, size: tuple[int, int]) -> Windows:
        """How blocks with windows cut a map of this size."""
        return Windows(size, self.window_size)

    def _partitions(self, size: tuple[int, int], device: torch.device) -> list[list[Partition]]:
        """How each block partitions a map of this size."""
        ways: dict[str, tuple[Windows, Grid, Tensor | None]] = {"whole": (WholeMap(size, size), Grid(size=size), None)}
        if "window" in self.pos_encoding.inside:
            windows, mask = self.windows(size), None
            if windows.masks and self.padding == "mask":
                mask = self.cache.get((windows, device), lambda: windows.additive(device))
            ways["window"] = (windows, Grid(size=windows.window), mask)
        partitions = []
        for index in range(len(self.blocks)):
            kind, layer = self.places[index]
            windows, grid, mask = ways[kind]
            partitions.append([Partition(windows, self.pos_encoding.inside[kind], grid, mask, layer)])
        return partitions

    def _block(self, index: int, x: Tensor, partitions: list[list[Partition]], attn_mask: Tensor | None) -> Tensor:
        if attn_mask is not None:
            raise ValueError("attn_mask is of all pairs, which windows do not have; allowed: None")
        arguments = (x, self.pos_encoding.map, partitions[index])
        return run_block(self.blocks[index], index, *arguments, checkpointed=self.grad_checkpointing)

    def _feature(self, x: Tensor, grid: Any, *, norm: bool, as_map: bool) -> tuple[Tensor, None]:
        """The map after a block; ``norm`` applies what follows the last block, the neck included."""
        feature = self._final(x) if norm else x.permute(0, 3, 1, 2)  # (B, channels, height, width)
        return (feature.contiguous() if as_map else feature.flatten(2).transpose(1, 2)), None

    def _keep_encodings(self, count: int) -> None:
        self.pos_encoding.keep_blocks(count, Counter(self.places[i][0] for i in range(count)))
