"""iRPE: image relative position encoding on queries, keys and values, by buckets of the offset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, prod
from operator import index
from typing import Any, Literal

import torch
from torch import Tensor, nn

from visionpe.attention.bias import Bias, offset_rows
from visionpe.attention.buckets import BucketBias, SumBias, piecewise_index
from visionpe.attention.dispatch import AttentionWeights
from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_flag, check_number, check_text
from visionpe.grid import Grid
from visionpe.policy.functions import POSITION_POLICIES, rescale_positions
from visionpe.policy.functions.terms import refuse_export
from visionpe.registry import register_encoding
from visionpe.tracing import is_exporting, is_tracing

METHODS = ("product", "cross", "quant", "euclidean")
MODES = ("contextual", "bias")
# A matrix of buckets below this is kept; above, rows of it are built when they are needed.
INDEX_BYTES = 64 * 2**20


@register_encoding("irpe")
class ImageRelativePositionEncoding(PositionEncoding):
    """Every pair of tokens falls into a bucket by its offset; each bucket has a vector (or a number) per layer.

    Source: "Rethinking and Improving Relative Position Encoding for Vision Transformer". On
    keys, the scaled query meets the vector of ``bucket(i, j)`` and the product joins the logit; on queries, the scaled
    key that of ``bucket(j, i)``; on values, the vectors are averaged with the weights of attention and join the
    output. As in the paper one further, last bucket serves every pair that touches a prefix token.

    ``k_table`` and ``q_table`` are ``(depth, parts, heads or 1, head_dim, buckets)``, without ``head_dim`` in mode
    ``bias``; ``v_table`` is ``(depth, parts, heads or 1, buckets, head_dim)``. Parts are rows and columns for
    ``cross``, else one. Tables hold nothing that depends on the size, and are never resized.

    Args:
        method: ``product`` (a bucket for each pair of row and column bucket), ``cross`` (a sum of a row and a column
            term), ``euclidean`` (by distance) or ``quant`` (by squared distance).
        mode: ``contextual`` or ``bias``, a plain number for each bucket, which values cannot have.
        on: Any of the letters q, k, v.
        shared: One table for all heads.
        ratio: Offsets up to this have a bucket of their own; 0.5 to 100.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` takes offsets in tokens, as in the
            paper; ``interpolate`` in tokens of the trained grid, ``rescale(a)`` between the two. ``reach`` stretches
            the logarithmic part of the buckets alone, so that near offsets keep theirs: the paper's gamma is multiplied
            by the ratio of the sizes, by its mean over the axes (geometric) for ``euclidean``, the square of that for
            ``quant``.

    Raises:
        ValueError: If an option is unknown, or the grid has not two axes.
    """

    source = "iRPE, arXiv 2107.14222"
    structure = "buckets"
    stacked = (("*_table", 0),)
    policies = (*POSITION_POLICIES, "reach")
    v_table: nn.Parameter

    def __init__(
        self,
        *,
        method: Literal["product", "cross", "quant", "euclidean"] = "product",
        mode: Literal["contextual", "bias"] = "contextual",
        on: str = "k",
        shared: bool = True,
        ratio: float = 1.9,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        check_choice("method", method, METHODS)
        check_choice("mode", mode, MODES)
        check_flag("shared", shared)
        check_text("on", on, "any of the letters q, k, v")
        if not on or len(set(on)) < len(on) or not set(on) <= set("qkv"):
            raise ValueError(f"on={on!r} is unknown; allowed: any of the letters q, k, v, each once")
        if mode == "bias" and "v" in on:
            raise ValueError(
                f"on={on!r} with mode='bias': values take vectors; allowed: q, k, qk, or mode='contextual'"
            )
        check_number("ratio", ratio, 0.5, 100)  # below it all offsets would share one bucket
        if len(self.grid_size) != 2:
            raise ValueError(f"grid_size={self.grid_size}: irpe stands on two axes")
        self.method, self.mode, self.on, self.ratio = method, mode, "".join(sorted(on)), ratio
        self.reach = floor(2 * ratio)
        side = 2 * self.reach + 1
        self.buckets = (side**2 if method == "product" else side) + 1  # the last for prefix tokens
        heads, parts = 1 if shared else self.num_heads, 2 if method == "cross" else 1
        for letter in self.on:
            vector = () if mode == "bias" else (self.head_dim,)
            entry = (self.buckets, self.head_dim) if letter == "v" else (*vector, self.buckets)
            table = nn.Parameter(torch.empty(self.depth, parts, heads, *entry, **self.factory))
            self.register_parameter(f"{letter}_table", table)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in self.parameters():
            nn.init.zeros_(table)  # as published: no position at the start

    def _stretches(self, grid: Grid) -> list[float]:
        """What policy ``reach`` multiplies gamma by, along each axis."""
        if self.main_policy is None or self.main_policy.name != "reach":
            return [1.0, 1.0]
        refuse_export(self.main_policy, POSITION_POLICIES, grid.size)
        return [index(n) / trained for n, trained in zip(grid.size, self.grid_size)]

    def _classify(self, dy: Tensor, dx: Tensor, grid: Grid) -> tuple[Tensor, ...]:
        """Buckets of offsets (query - key), one tensor a part."""
        reach, stretches = self.reach, self._stretches(grid)
        if self.method in ("product", "cross"):
            rows, columns = (piecewise_index(d, self.ratio, s) + reach for d, s in zip((dy, dx), stretches))
            return (
                (rows * (2 * reach + 1) + columns,)
                if self.method == "product"
                else torch.broadcast_tensors(rows, columns)
            )
        squares = dy.square() + dx.square()
        if self.method == "quant":
            return (piecewise_index(squares, self.ratio, prod(stretches)) + reach,)
        return (piecewise_index(squares.sqrt().round(), self.ratio, prod(stretches) ** 0.5) + reach,)

    def index(self, grid: Grid, start: int, stop: int, device: torch.device, *, reverse: bool = False) -> list[Tensor]:
        """Buckets of queries ``start`` to ``stop`` with every key, ``([B, 1,] stop - start, N)``, one tensor a part.

        Args:
            reverse: Of the offset (key - query) instead.
        """
        first, last = (max(t - grid.prefix, 0) for t in (start, stop))
        parts = (self._dense if grid.dense else self._listed)(grid, first, last, device, reverse)
        blank = (stop - start) - (last - first)
        padded = [nn.functional.pad(p, (grid.prefix, 0, blank, 0), value=self.buckets - 1) for p in parts]
        return [p[:, None] if p.ndim == 3 else p for p in padded]

    def _scaled(self, values: Sequence[Tensor], grid: Grid) -> list[Tensor]:
        policy = "extrapolate" if self.policy in (None, "reach") else self.policy
        return [rescale_positions(t, n, trained, policy) for t, n, trained in zip(values, grid.size, self.grid_size)]

    def _dense(self, grid: Grid, first: int, last: int, device: torch.device, reverse: bool) -> list[Tensor]:
        """By a table over all offsets of a full grid."""
        dy, dx = self._scaled([torch.arange(1 - n, n, device=device, dtype=torch.float32) for n in grid.size], grid)
        parts = self._classify(-dy[:, None], -dx, grid) if reverse else self._classify(dy[:, None], dx, grid)
        return [offset_rows(part[None], grid.size, first, last)[0] for part in parts]  # (rows, N_spatial)

    def _listed(self, grid: Grid, first: int, last: int, device: torch.device, reverse: bool) -> list[Tensor]:
        axes = self._scaled(grid.positions(device=device).unbind(-1), grid)
        dy, dx = (p[..., first:last, None] - p[..., None, :] for p in axes)  # ([B,] rows, N_spatial)
        return list(self._classify(-dy, -dx, grid) if reverse else self._classify(dy, dx, grid))

    def _part(self, grid: Grid, part: int, device: torch.device, reverse: bool) -> Callable[[int, int], Tensor]:
        """``index(start, stop)`` of one part; rows of a matrix that is kept, where that is small."""

        def rows(start: int, stop: int) -> Tensor:
            return self.index(grid, start, stop, device, reverse=reverse)[part]

        def kept(start: int, stop: int) -> Tensor:
            key = (grid.size, grid.prefix, part, reverse, self.policy, self.grid_size, device)
            return self.cache.get(key, lambda: rows(0, grid.num_tokens))[start:stop]

        if is_tracing() or not grid.dense or grid.num_tokens**2 * 8 > INDEX_BYTES:
            return rows
        return kept

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> Bias | None:
        self.check_axes(grid)
        terms = [
            (getattr(self, f"{letter}_table")[layer], x, letter == "q")
            for letter, x in (("k", q), ("q", k))
            if letter in self.on
        ]
        biases = [
            BucketBias(self._products(table[part], x, grid), self._part(grid, part, x.device, keys), keys=keys)
            for table, x, keys in terms
            for part in range(len(table))
        ]
        return biases[0] if len(biases) == 1 else SumBias(biases) if biases else None

    def _products(self, table: Tensor, x: Tensor, grid: Grid) -> Tensor:
        """Each token times each entry of a table, ``(B, heads, N, buckets)``."""
        if self.mode == "bias":  # (1 or B, heads or 1, N, buckets), no copy; B where samples have places of their own
            samples = 1 if grid.coords is None or grid.coords.ndim == 2 else len(x)
            return table[None, :, None].expand(samples, -1, x.shape[-2], -1)
        return (x * self.head_dim**-0.5) @ table.to(x.dtype)

    def mix(
        self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
    ) -> Tensor:
        if "v" not in self.on:
            return attended
        if weights is None:
            raise ValueError(f"weights=None: irpe with on={self.on!r} needs the weights of attention")
        # An exported graph serves every size, so it cannot be cut into a number of chunks.
        whole = is_exporting()
        chunks = [(0, grid.num_tokens)] if whole else weights.chunks()
        if torch.is_grad_enabled() or len(chunks) == 1:
            return attended + torch.cat([self._values(weights.rows(*c), grid, layer, *c) for c in chunks], dim=-2)
        # Small results kept between large temporaries would leave the heap full of holes: one tensor takes them all.
        out = torch.empty_like(attended)
        for start, stop in chunks:
            term = self._values(weights.rows(start, stop), grid, layer, start, stop)
            torch.add(attended[..., start:stop, :], term, out=out[..., start:stop, :])
        return out

    def _values(self, weights: Tensor, grid: Grid, layer: int, start: int, stop: int) -> Tensor:
        """The value-side term of some queries: their weights summed up bucket by bucket, then times the table."""
        total = weights.new_zeros(())
        for part, table in enumerate(self.v_table[layer]):  # (heads or 1, buckets, head_dim)
            index = self._part(grid, part, weights.device, False)(start, stop).expand_as(weights)
            sums = weights.new_zeros(*weights.shape[:-1], self.buckets).scatter_add(-1, index, weights)
            total = total + sums @ table.to(weights.dtype)
        return total  # (B, heads, stop - start, head_dim)

    def extra_repr(self) -> str:
        return f"method={self.method!r}, mode={self.mode!r}, on={self.on!r}, ratio={self.ratio}, {super().extra_repr()}"
