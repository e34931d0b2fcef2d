"""What one layer leaves for the next inside one forward pass."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from visionpe.grid import Grid
from visionpe.tracing import is_tracing


class LayerMemo:
    """One tensor that is made of parameters and positions alone, kept from layer to layer of one forward pass.

    A pass is known by its ``Grid`` object, and starts at layer 0, which never asks: so nothing outlives a change of
    the parameters. Only where no gradient is recorded: a gradient needs each layer's own graph, and recomputation
    under gradient checkpointing would find another tensor than the first run.
    """

    def __init__(self) -> None:
        self._kept: tuple[Grid, int, Hashable, Tensor] | None = None

    def get(self, grid: Grid, layer: int, key: Hashable = ()) -> Tensor | None:
        """What layer ``layer - 1`` left in this pass, or None."""
        kept = self._kept  # once: another thread may put its own
        if is_tracing() or torch.is_grad_enabled() or kept is None:
            return None
        kept_grid, kept_layer, kept_key, value = kept
        return value if kept_grid is grid and kept_layer == layer - 1 and kept_key == key else None

    def put(self, grid: Grid, layer: int, value: Tensor, key: Hashable = (), *, last: bool) -> None:
        """Leave ``value`` for the next layer, if there is one."""
        if is_tracing():
            return
        self._kept = None if last or torch.is_grad_enabled() else (grid, layer, key, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> LayerMemo:
        return LayerMemo()

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": None}  # nothing of it is pickled


class Carried:
    """What an encoding carries from block to block beside the tokens, while one block runs.

    The block makes it of the tensors that it is given, and gives back those that are in it then. So they are inputs and
    outputs of blocks like the tokens, and nothing has to be found again where a block is run once more, compiled, or
    run for several models in turn.

    Args:
        grids: Where the tokens stand; several where images of several sizes share a tensor.
        tensors: One for each of these, or none ahead of the first block.
    """

    def __init__(self, grids: Sequence[Grid], tensors: Sequence[Tensor] = ()) -> None:
        self.grids = list(grids)
        self._tensors: list[Tensor | None] = list(tensors) or [None] * len(self.grids)

    def _index(self, grid: Grid) -> int:
        if len(self.grids) == 1:
            return 0
        return [its is grid for its in self.grids].index(True)

    def get(self, grid: Grid) -> Tensor | None:
        """What is carried beside the tokens that stand on ``grid``, or None ahead of the first block."""
        return self._tensors[self._index(grid)]

    def put(self, grid: Grid, value: Tensor) -> None:
        """Carry ``value`` on."""
        self._tensors[self._index(grid)] = value

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """One for each grid."""
        return tuple(t for t in self._tensors if t is not None)
