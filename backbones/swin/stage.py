"""The parts of Swin: patches, merging, and stages whose windows move from block to block."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.backbones.shared.block import WindowBlock
from visionpe.backbones.shared.images import check_images
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.patches import AdaptivePatchEmbed
from visionpe.backbones.shared.pyramid import Stage
from visionpe.backbones.shared.windows import Pair, Windows, grown_window
from visionpe.graphs import one_node
from visionpe.grid import Grid
from visionpe.tracing import is_exporting, larger, number, smaller

WindowPolicy = Literal["keep", "grow"]
WindowFit = Literal["per_axis", "shorter_side"]


class Patches(AdaptivePatchEmbed):
    """timm's patch embedding for images of any size: what is missing from the last patches is zero."""

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, height, width, dim)``, rounded up."""
        if self.grows:
            return super().forward(x)
        x = self.at_trained_size(x)
        check_images(x, self.proj.in_channels, self.proj)
        (height, width), (down, right) = map(number, x.shape[2:]), self.patch_size
        # An exported graph serves every size, so it cannot branch on one. The convolution leaves out what is too much.
        if is_exporting() or height % down or width % right:
            x = F.pad(x, (0, right - 1, 0, down - 1))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Halves the map: 2 x 2 tokens side by side, a norm, and a projection without bias.

    Args:
        dim, dim_out: Width before and after.
        norm_layer: Of the four tokens together.
    """

    def __init__(self, dim: int, dim_out: int, norm_layer: Any, **factory: Any) -> None:
        super().__init__()
        self.norm = norm_layer(4 * dim, **factory)
        self.reduction = nn.Linear(4 * dim, dim_out, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, height, width, dim)`` to ``(B, height / 2, width / 2, dim_out)``, rounded up."""
        return self.reduction(self.norm(self.gathered(x)))

    def gathered(self, x: Tensor) -> Tensor:
        """``(B, height, width, dim)`` to ``(B, height / 2, width / 2, 4 dim)``, rounded up."""
        batch, height, width, dim = x.shape
        rows, columns = (height + 1) // 2, (width + 1) // 2
        # An exported graph serves every size, so it cannot branch on one.
        if is_exporting() or height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))
        x = x.reshape(batch, rows, 2, columns, 2, dim)
        return x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # rows of a column side by side


class SwinStage(Stage):
    """Blocks that attend in windows, every other one in windows moved by half of their size.

    Args:
        downsample, blocks, encoding: See :class:`~visionpe.backbones.shared.pyramid.Stage`.
        grid_size: Height and width of the map at the trained size, tokens.
        window_size: Of the windows there, tokens.
        window_policy: See :class:`SwinTransformer`.
        window_fit: Likewise.
    """

    def __init__(
        self,
        downsample: nn.Module,
        blocks: Sequence[WindowBlock],
        encoding: Any,
        *,
        grid_size: Pair,
        window_size: Pair,
        window_policy: WindowPolicy,
        window_fit: WindowFit,
    ) -> None:
        super().__init__(downsample, blocks, encoding)
        self.grid_size, self.window_size = grid_size, window_size
        self.window_policy, self.window_fit = window_policy, window_fit

    @property
    def windows_grow(self) -> bool:
        return self.window_policy == "grow"

    def window(self, size: Pair) -> Pair:
        """Height and width of the windows on a map of this size, tokens, by the policy alone."""
        if not self.windows_grow:
            return self.window_size
        height, width = (grown_window(*each) for each in zip(self.window_size, size, self.grid_size))
        return height, width

    def shift(self, size: Pair, window: Pair) -> list[int]:
        """How far the windows of odd blocks move on a map of this size, tokens."""
        # Arithmetic instead of branches: in an exported graph sizes are symbols.
        return [_positive(n - w) * (w // 2) for n, w in zip(size, window)]

    def windows(self, size: Pair) -> tuple[Windows, Windows]:
        """How even and odd blocks cut a map of this size, tokens."""
        window = self.window(size)
        shift = self.shift(size, window)
        if self.window_fit == "shorter_side":
            shorter = smaller(*size)
            square = 1 - _positive(larger(*window) - smaller(*window))
            whole = square * (1 - _positive(shorter - window[0]))  # 1 where the shorter side is one window
            window = (window[0] - whole * (window[0] - shorter), window[1] - whole * (window[1] - shorter))
            shift = [(1 - whole) * s for s in shift]
        cut = partial(Windows, size, window, rolled=not self.pos_encoding.reads_neighbours)
        return cut(), cut(shift=(shift[0], shift[1]))

    def partitions(self, size: Pair, device: torch.device) -> list[list[Partition]]:
        inside: Any = self.pos_encoding.inside["window"]
        both = self.windows(size)[: len(self.blocks)]
        ways = [(windows, self.mask(windows, device), self.gather(windows, device)) for windows in both]
        partitions, grid = [], Grid(size=both[0].window)  # the same for both
        for layer in range(len(self.blocks)):
            windows, mask, gather = ways[layer % 2]
            partitions.append([Partition(windows, inside, grid, mask, layer, gather)])
        return partitions


def _positive(n: Any) -> Any:
    """1 where a whole number is positive, else 0; it may be a symbol."""
    return smaller(larger(n, 0), 1)
