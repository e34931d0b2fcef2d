"""Shaw's relative position representations, along each axis of the grid."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visionpe.attention.bias import AxesBias, LowRankBias
from visionpe.attention.dispatch import AttentionWeights
from visionpe.checks import check_count, check_flag
from visionpe.encodings.bias.axes import AxisVectors, offset_vectors
from visionpe.grid import Grid
from visionpe.policy.functions.positions import OFFSET_POLICIES
from visionpe.ranges import MAX_SIDE, check_init_std, check_table, draw_table
from visionpe.registry import register_encoding


@register_encoding("shaw")
class ShawRelativePosition(AxisVectors):
    """A learned vector for the offset, clipped, joins every key, and with ``values`` another every value.

    Source: "Self-Attention with Relative Position Representations", arXiv 1803.02155, eq. 3 to 5: ``logit = q . (k +
    a_K) * head_dim ** -0.5``, ``out = sum of weight (v + a_V)``, one table for all heads, another for every layer. On
    a grid ``a`` is a sum of a vector for the offset in rows and one for that in columns, as in AutoFormer, arXiv
    2107.00651. So logits are exactly of low rank, and of the weights values need the sums along rows and columns alone.

    ``k_table`` and ``v_table`` are ``(depth, axes, 2 clip + 1, head_dim)``, axes in the order of the grid; entry
    ``offset + clip`` belongs to the offset (query - key), where the paper counts key - query. Pairs that touch a
    prefix token have no vector, or that of ``k_prefix`` and ``v_prefix``, ``(depth, head_dim)``.

    Args:
        clip: Offsets beyond this share a vector, tokens: 16 in the paper, 14 in AutoFormer. Of a model that is used at
            larger sizes it should lie within the trained grid, or the last vectors are never trained.
        values: Whether values have vectors too.
        prefix_slots: 1 for a learned vector of all pairs that touch a prefix token, as in AutoFormer.
        init_std: Standard deviation of the initial vectors.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` takes offsets in tokens, as in the
            paper; ``interpolate`` in tokens of the trained grid, between two vectors where they are not whole;
            ``clamp`` stops at the longest trained one.

    Raises:
        ValueError: If an option lies outside its range.
    """

    source = "Shaw et al., arXiv 1803.02155; AutoFormer, arXiv 2107.00651"
    policies: ClassVar[tuple[str, ...]] = OFFSET_POLICIES
    takes_pooled = True
    stacked = (("*_table", 0), ("*_prefix", 0))

    def __init__(
        self, *, clip: int = 7, values: bool = False, prefix_slots: int = 0, init_std: float = 0.02, **context: Any
    ) -> None:
        super().__init__(**context)
        self.clip, self.values = check_count("clip", clip, 1, MAX_SIDE), check_flag("values", values)
        check_count("prefix_slots", prefix_slots, 0, 1)
        self.init_std = check_init_std(init_std)
        if not values:
            self.sites = partial(tuple, ("bias",))  # type: ignore[method-assign]
        shape = check_table("clip", clip, self.depth, len(self.grid_size), 2 * clip + 1, self.head_dim)
        for letter in ("k", "v"):
            table = torch.empty(shape, **self.factory) if letter == "k" or values else None
            prefix = None if table is None or not prefix_slots else table.new_empty(self.depth, self.head_dim)
            self.register_parameter(f"{letter}_table", None if table is None else nn.Parameter(table))
            self.register_parameter(f"{letter}_prefix", None if prefix is None else nn.Parameter(prefix))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in self.parameters():
            draw_table(table, self.init_std)

    def _vectors(self, letter: str, grid: Grid, layer: int, dtype: torch.dtype, scale: float = 1.0) -> list[Tensor]:
        """Those of all offsets, ``(2 n - 1, head_dim)`` an axis of the finer grid."""
        sides = zip(getattr(self, f"{letter}_table")[layer], grid.finer.size, self.grid_size)
        return [
            (offset_vectors(table, self._row, n, trained, self.main_policy) * scale).to(dtype)
            for table, n, trained in sides
        ]

    def _row(self, offsets: Tensor) -> Tensor:
        return offsets.clamp(-self.clip, self.clip) + self.clip

    def _prefix(self, letter: str, layer: int, dtype: torch.dtype) -> Tensor | None:
        table = getattr(self, f"{letter}_prefix")
        return None if table is None else table[layer].to(dtype)

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> LowRankBias:
        self.check_axes(grid)
        products = self.products(q, self._vectors("k", grid, layer, q.dtype, self.head_dim**-0.5), grid)
        prefix = self._prefix("k", layer, q.dtype) if grid.prefix else None
        if prefix is None and grid.dense:
            return AxesBias(products, grid, lambda: self.places(grid, q.device, q.dtype))
        if prefix is None:
            return LowRankBias(torch.cat(products, dim=-1), self.places(grid, q.device, q.dtype))
        term = (q * self.head_dim**-0.5) @ prefix[:, None]  # (B, heads, N, 1)
        first = self._is_prefix(term, grid)
        return LowRankBias(torch.cat((*products, term * first, term * (1 - first)), dim=-1), self._told(q, k, grid))

    @staticmethod
    def _is_prefix(x: Tensor, grid: Grid) -> Tensor:
        """One for prefix tokens, zero for others, ``(N, 1)``."""
        return (torch.arange(x.shape[-2], device=x.device) < grid.prefix).to(x.dtype)[:, None]

    def _told(self, q: Tensor, k: Tensor, grid: Grid) -> Tensor:
        """Where each key stands, one, and whether it is a prefix token: ``(1 or B, 1, N, rank + 2)``."""
        places = self.places(grid, q.device, q.dtype)
        first = self._is_prefix(k, grid).to(q.dtype).expand(*places.shape[:-1], -1)
        return torch.cat((places, torch.ones_like(first), first), dim=-1)

    def mix(
        self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
    ) -> Tensor:
        if not self.values:
            return attended
        self.check_axes(grid)
        if weights is None:
            raise ValueError("weights=None: shaw with values=True needs the weights of attention")
        prefix = self._prefix("v", layer, attended.dtype) if grid.prefix else None
        told = self._told(v, v, grid) if prefix is not None else self.places(grid, v.device, v.dtype)
        sums = weights.of(told)  # of the weights in each row, each column, ...
        if prefix is None:
            return attended + self._values(sums, grid, layer)
        sums, every, first = sums[..., :-2], sums[..., -2:-1], sums[..., -1:]
        share = torch.cat((every[..., : grid.prefix, :], first[..., grid.prefix :, :]), dim=-2)
        return attended + self._values(sums, grid, layer) + share * prefix

    def _values(self, sums: Tensor, grid: Grid, layer: int) -> Tensor:
        """What the sums of weights make of the vectors, ``(B, heads, N, head_dim)``; zero for prefix tokens."""
        term = self.averages(sums, self._vectors("v", grid, layer, sums.dtype), grid)
        return nn.functional.pad(term, (0, 0, grid.prefix, 0))

    def extra_repr(self) -> str:
        return f"clip={self.clip}, values={self.values}, {super().extra_repr()}"
