"""What one layer leaves for the next inside one forward pass."""

from __future__ import annotations

from collections.abc import Hashable
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
