"""DeBERTa's disentangled attention, along each axis of the grid."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from visionpe.attention.bias import AxesBias, LowRankBias
from visionpe.attention.buckets import log_index
from visionpe.checks import check_choice, check_count, check_flag
from visionpe.encodings.bias.axes import AxisVectors, offset_vectors
from visionpe.grid import Grid
from visionpe.policy.functions.positions import OFFSET_POLICIES
from visionpe.precision import WideLayerNorm, WideLinear, wide_dtype, without_autocast
from visionpe.ranges import MAX_SIDE, check_init_std, check_table, draw_table
from visionpe.registry import register_encoding

Terms = Literal["both", "c2p", "p2c"]
Form = Literal["paper", "code"]


@register_encoding("deberta")
class DisentangledAttention(AxisVectors):
    """A query meets the key of the offset, a key the query of it: ``q . W_k r(i - j) + k . W_q r(j - i)``.

    Source: "DeBERTa", arXiv 2006.03654, eq. 4, with ``r`` a learned embedding of the offset; here a sum of one for the
    offset in rows and one for that in columns, so that both terms are exactly of low rank. As in the paper the
    embeddings are one table for all layers, each of which projects it, and all logits, those of content with content
    too, are divided by ``sqrt(3 head_dim)``, or 2 in the place of 3 with one term. In the paper's version 3 the
    projections are those of the content, which an encoding does not see: here it has its own.

    ``table`` is ``(axes, 2 buckets, dim)``, axes in the order of the grid. The offset d, query - key, has row ``d +
    buckets``, and those out of range the first or the last. Pairs that touch a prefix token have no offset: bias 0.

    Args:
        buckets: Rows on either side of the offset 0, in all twice as many.
        longest: None, or the offset from which on all are in the last row: then rows are logarithmic beyond half of
            ``buckets``, as in versions 2 and 3, which have 256 of 512; more than half of ``buckets`` + 1.
        terms: ``both``, ``c2p`` (the query's alone) or ``p2c`` (the key's alone).
        form: Whose offset the key meets: ``paper``, that of the key from the query, ``j - i``; ``code``: as published
            code and weights have it, that of the query from the key, ``i - j``.
        norm: Whether the table is normed before it is projected, as in versions 2 and 3.
        shared: One pair of projections for all layers.
        init_std: Standard deviation of the initial table.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` takes offsets in tokens, as in the
            paper; ``interpolate`` in tokens of the trained grid, between two rows where they are not whole; ``clamp``
            stops at the longest trained one.

    Raises:
        ValueError: If an option lies outside its range.
    """

    source = "DeBERTa, arXiv 2006.03654, on every axis"
    policies: ClassVar[tuple[str, ...]] = OFFSET_POLICIES
    by_block = ("key", "query")

    def __init__(
        self,
        *,
        buckets: int = 8,
        longest: int | None = None,
        terms: Terms = "both",
        form: Form = "paper",
        norm: bool = True,
        shared: bool = False,
        init_std: float = 0.02,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        self.buckets = check_count("buckets", buckets, 2, MAX_SIDE)
        self.longest = longest
        if longest is not None:
            check_count("longest", longest, buckets // 2 + 2, MAX_SIDE)
        check_choice("terms", terms, Terms)
        check_choice("form", form, Form)
        check_flag("norm", norm)
        self.terms, self.form, self.shared = terms, form, check_flag("shared", shared)
        self.init_std = check_init_std(init_std)
        shape = check_table("buckets", buckets, len(self.grid_size), 2 * buckets, self.dim)
        self.table = nn.Parameter(torch.empty(shape, **self.factory))
        self.norm = WideLayerNorm(self.dim, eps=1e-7, **self.factory) if norm else None
        self.key = self._projections() if terms != "p2c" else None
        self.query = self._projections() if terms != "c2p" else None
        if shared:
            self.by_block = ()  # type: ignore[assignment, misc]
        self.reset_parameters()

    def _projections(self) -> nn.ModuleList:
        layers = 1 if self.shared else self.depth
        return nn.ModuleList(WideLinear(self.dim, self.dim, **self.factory) for _ in range(layers))

    def reset_parameters(self) -> None:
        draw_table(self.table, self.init_std)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm | nn.Linear):
                module.reset_parameters()

    def no_weight_decay(self) -> set[str]:
        return {name for name, parameter in self.named_parameters() if name == "table" or parameter.ndim == 1}

    def logit_factor(self, grid: Grid) -> float:
        return (3 if self.terms == "both" else 2) ** -0.5

    def row(self, offsets: Tensor) -> Tensor:
        """The row of the table for whole offsets."""
        if self.longest is not None:
            offsets = log_index(offsets, self.buckets, self.longest)
        return (offsets + self.buckets).clamp(0, 2 * self.buckets - 1)

    def _vectors(self, projections: nn.ModuleList, x: Tensor, grid: Grid, layer: int) -> list[Tensor]:
        """What all offsets are to ``x``, with its scale: ``(heads, 2 n - 1, head_dim)`` an axis."""
        with without_autocast(x):
            table = self.table.to(wide_dtype(x))
            projected = projections[0 if self.shared else layer](table if self.norm is None else self.norm(table))
            heads = projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (axes, heads, rows, head_dim)
            sides = zip(heads, grid.size, self.grid_size)
            of_offsets = [offset_vectors(t, self.row, n, trained, self.main_policy) for t, n, trained in sides]
            return [(t * self.head_dim**-0.5).to(x.dtype) for t in of_offsets]

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> LowRankBias:
        self.check_axes(grid)
        left = [] if self.key is None else self.products(q, self._vectors(self.key, q, grid, layer), grid)
        if self.query is None and grid.dense:
            return AxesBias(left, grid, lambda: self.places(grid, q.device, q.dtype))
        places = self.places(grid, q.device, q.dtype)
        right = [] if self.key is None else [places.expand(*k.shape[:2], -1, -1)]
        if self.query is not None:
            vectors = self._vectors(self.query, k, grid, layer)
            right += self.products(k, vectors if self.form == "paper" else [t.flip(-2) for t in vectors], grid)
            left = [*left, places.expand(*q.shape[:2], -1, -1)]
        return LowRankBias(torch.cat(left, dim=-1), torch.cat(right, dim=-1))

    def extra_repr(self) -> str:
        return f"buckets={self.buckets}, longest={self.longest}, terms={self.terms!r}, {super().extra_repr()}"
