"""The interleaved rotary embedding of Qwen's vision-language models, by a name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionpe.encodings.rotary.base import GridIndexing
from visionpe.encodings.rotary.pairs import Layout
from visionpe.encodings.rotary.rope_axial import AxialRoPE
from visionpe.registry import register_encoding


@register_encoding("rope_mrope")
class InterleavedRoPE(AxialRoPE):
    """Pairs of time, row and column take turns, on one ladder of frequencies: ``rope_axial(mrope_section=...)``.

    Source: Qwen2-VL, arXiv 2409.12191, section 2.1, in the interleaved order of Qwen3-VL, timm's
    ``RotaryEmbeddingMRope``. On two axes the pairs of time do not turn, as time is 0 there.

    Args:
        theta: Base of the frequencies.
        mrope_section: Pairs of time, row and column, see :class:`~visionpe.encodings.rotary.rope_axial.AxialRoPE`;
            by default a third each, and what is left over to time.
        layout, grid_indexing: As published weights have them.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`.

    Raises:
        ValueError: As :class:`~visionpe.encodings.rotary.rope_axial.AxialRoPE` does.
    """

    source = "Qwen2-VL, arXiv 2409.12191"

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        theta: float = 10000.0,
        mrope_section: Sequence[int] | None = None,
        layout: Layout = "half",
        grid_indexing: GridIndexing = "ij",
        **context: Any,
    ) -> None:
        if mrope_section is None:
            pairs = dim // max(num_heads, 1) // 2
            mrope_section = (pairs - pairs // 3 * 2, pairs // 3, pairs // 3)
        super().__init__(
            dim=dim,
            num_heads=num_heads,
            theta=theta,
            mrope_section=mrope_section,
            layout=layout,
            grid_indexing=grid_indexing,
            **context,
        )
