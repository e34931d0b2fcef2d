"""A norm of its own for the position embedding of every layer, over any absolute encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_count, check_number
from visionpe.encodings.wrappers.base import PositionWrapper
from visionpe.grid import Grid
from visionpe.memo import LayerMemo
from visionpe.precision import WideLayerNorm, wide_dtype, without_autocast
from visionpe.ranges import MAX_PREFIX
from visionpe.registry import HINTS, Spec, create_encodings, register_encoding


@register_encoding("lape")
class LayerAdaptivePositionEmbedding(PositionEncoding):
    """The input of attention in layer l is ``norm1(x) + p_l`` with ``p_l = norm_l(p_(l-1))``: tokens stay unmixed.

    Source: "Position Embedding Needs an Independent Layer Normalization" (its layer-adaptive form). ``p_0`` is what
    the encoding underneath would add to the tokens; neither the residual stream nor the MLP sees any of it. Written
    ``"lape(ape)"``, ``"lape(sincos)"``, ``"lape(fourier)"``; a policy is that of the encoding underneath.

    Prefix tokens take part, unlike elsewhere, because in the paper they do: the class token has a slot in a learned
    table, and starts from zero over a fixed one. Other prefix tokens start from zero too; after the first norm a zero
    is the bias of the norm, the same for all of them.

    Args:
        over: The absolute encoding underneath: one whose only site is ``add``.
        prefix_slots: Prefix tokens that have a learned entry. Default: 1 if the encoding underneath learns, else 0;
            none where the model has no prefix tokens.
        eps: Of the norms; 1e-30 to 1.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If ``over`` is not one absolute encoding, or ``prefix_slots`` is negative.
    """

    source = "LaPE, arXiv 2212.05262"
    hands_on_hints = True
    by_block = ("norms",)
    # The table of the one block that is left, where `one_block` made this.
    made: Tensor | None = None

    def __init__(
        self, *, over: Spec = "ape", prefix_slots: int | None = None, eps: float = 1e-6, **context: Any
    ) -> None:
        super().__init__(**{k: v for k, v in context.items() if k not in HINTS})
        inner = create_encodings(over, **{k: v for k, v in context.items() if k != "policy"})
        if len(inner) == 1 and isinstance(inner[0], PositionWrapper):
            raise ValueError(f"over={over!r}: lape sees one table for all samples; put the wrapper around lape instead")
        if len(inner) != 1 or type(inner[0]).add is PositionEncoding.add or inner[0].sites() != ("add",):
            raise ValueError(
                f"over={over!r} is not one absolute encoding; allowed: ape, sincos and others that only add"
            )
        if prefix_slots is not None:
            check_count("prefix_slots", prefix_slots, 0, MAX_PREFIX)
        check_number("eps", eps, 1e-30, 1)
        self.over, self.eps, self.memo = inner[0], eps, LayerMemo()
        self.resized_on_load = tuple(f"over.{key}" for key in self.over.resized_on_load)  # type: ignore[misc]
        if prefix_slots is None:
            prefix_slots = int(any(True for _ in self.over.parameters()))
        self.prefix_table = nn.Parameter(torch.empty(prefix_slots, self.dim, **self.factory)) if prefix_slots else None
        self.norms = nn.ModuleList(WideLayerNorm(self.dim, eps=eps, **self.factory) for _ in range(self.depth))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.prefix_table is not None:
            nn.init.trunc_normal_(self.prefix_table, std=0.02)

    def no_weight_decay(self) -> set[str]:
        slots = set() if self.prefix_table is None else {"prefix_table"}
        return slots | {f"over.{key}" for key in self.over.no_weight_decay()}

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        self.over.set_input_grid(grid_size)

    def table(self, grid: Grid, *, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """What is added in block ``layer``, ``(1 or B, N, dim)``."""
        before = self.memo.get(grid, layer, key=(device, dtype)) if layer else None
        # Where no layer left anything, all norms up to here: little work for one table, and nothing to go stale.
        p, first = (self._start(grid, device, dtype), 0) if before is None else (before, layer)
        for norm in list(self.norms)[first : layer + 1]:
            p = norm(p)
        self.memo.put(grid, layer, p, key=(device, dtype), last=layer == self.depth - 1)
        return p

    def _start(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The embedding before the first norm."""
        p = self.over("add", torch.zeros(1, grid.num_spatial, self.dim, device=device, dtype=dtype), grid)
        if grid.prefix:
            slots = (
                p.new_zeros(0, self.dim) if self.prefix_table is None else self.prefix_table[: grid.prefix].to(dtype)
            )
            slots = F.pad(slots, (0, 0, 0, grid.prefix - len(slots)))  # the others start from zero
            p = torch.cat((slots.expand(p.shape[0], -1, -1), p), dim=1)
        return p

    def of_block(self, x: Tensor, grid: Grid, *, layer: int) -> dict[str, Any]:
        with without_autocast(x):
            return {"made": self.table(grid, layer=layer, device=x.device, dtype=wide_dtype(x))}

    def inject(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        p = self.of_block(x, grid, layer=layer)["made"] if self.made is None else self.made
        return x + p.to(x.dtype)
