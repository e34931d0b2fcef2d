"""One way in which attention partitions a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from visionpe.backbones.shared.windows import Windows
from visionpe.composition import Composition
from visionpe.grid import Grid
from visionpe.one_block import only
from visionpe.opaque import opaque

Padding = Literal["mask", "tokens", "values"]


@opaque
@dataclass(frozen=True)
class Partition:
    """One way in which attention partitions the map, and what its tokens are told of their positions inside.

    Args:
        windows: How the map is cut.
        encoding: Its sites inside attention; positions are those inside a window.
        grid: Those positions. The blocks of one pass share the object, by which an encoding knows what it has kept
            from the block before.
        mask: Of ``windows``, or None where all tokens of a window may see each other.
        layer: Index of the block among those that ``encoding`` serves.
        gather: Of ``windows``, where it may take the place of padding and rolling: with a mask, and unless the
            encoding reads neighbours.
        queries: How the map of queries is cut where they are pooled, see :meth:`Windows.pooled`; ``windows`` and
            ``gather`` are then of keys, ``mask`` is of both, and ``grid`` tells both. None where queries are keys.
    """

    windows: Windows
    encoding: Composition
    grid: Grid
    mask: Tensor | None = None
    layer: int = 0
    gather: tuple[Tensor, Tensor] | None = None
    queries: Windows | None = None

    def for_one_block(self, x: Tensor) -> Partition:
        """The same, for a block that is compiled by itself and given ``x``."""
        encoding = only(self.encoding, self.layer, x, self.grid)
        return Partition(self.windows, encoding, self.grid, self.mask, self.layer, self.gather, self.queries)

    def split(self, x: Tensor) -> Tensor:
        """``(B, height, width, C)`` to ``(B * windows, tokens, C)``."""
        if self.gather is None:
            return self.windows.split(x)
        return x.flatten(1, 2).index_select(1, self.gather[0]).view(-1, self.windows.tokens, x.shape[-1])

    def join(self, x: Tensor, batch: int) -> Tensor:
        """``(B * windows, tokens, C)`` to ``(B, height, width, C)``."""
        if self.gather is None:
            return self.windows.join(x)
        x = x.reshape(batch, self.windows.number * self.windows.tokens, x.shape[-1]).index_select(1, self.gather[1])
        return x.unflatten(1, self.windows.size)
