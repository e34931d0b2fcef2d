"""What is done to all attention logits of a model at a size that was not trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.grid import Grid
from visionpe.policy.functions.logits import decayed

# Of a matrix over all pairs that may stay for the rest of a forward pass.
KEPT_ENTRIES = 2**22


@dataclass(frozen=True)
class Decay:
    """Keys outside of the trained window around a query count less.

    Args:
        grid: Where the tokens stand.
        reach: Farthest offset that lies inside, one an axis in tokens; None where the axis has no outside.
        factor: Of positive logits outside, 0 to 1.
    """

    grid: Grid
    reach: Sequence[float | None]
    factor: float

    def outside(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Which keys lie outside for queries ``start`` to ``stop``: ``(rows, N)`` or ``(B, 1, rows, N)``.

        Prefix tokens stand nowhere, so they never do.
        """
        first, last = (max(t - self.grid.prefix, 0) for t in (start, stop))
        queries, keys = (p.unbind(-1) for p in self.grid.query_and_key_positions(device=device))
        total = torch.zeros((), device=device, dtype=torch.bool)
        for p, r, reach in zip(queries, keys, self.reach):
            if reach is not None:
                total = total | ((p[..., first:last, None] - r[..., None, :]).abs() > reach)
        total = F.pad(total, (self.grid.prefix, 0, (stop - start) - (last - first), 0))
        return total[:, None] if total.ndim == 3 else total

    def rows(self, logits: Tensor, start: int, stop: int) -> Tensor:
        """Logits of queries ``start`` to ``stop``, ``(B, heads, rows, N)``, with the decay."""

        def build() -> Tensor:
            return self.outside(start, stop, logits.device).to(logits.dtype)

        key = ("outside", tuple(self.reach), start, stop, logits.device, logits.dtype)
        small = self.grid.num_tokens**2 <= KEPT_ENTRIES  # all layers of a pass ask for the same
        return decayed(logits, self.grid.keep(key, build) if small else build(), self.factor)


@dataclass(frozen=True)
class LogitRule:
    """A factor on all logits, then a decay."""

    factor: float = 1.0
    decay: Decay | None = None
