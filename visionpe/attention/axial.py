"""Attention along one axis of the grid after the other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.attention.bias import Bias, narrowed, with_prefix
from visionpe.cache import TableCache
from visionpe.grid import Grid


class AxialBias(Bias):
    """Attention along one axis after the other, with a function of the offset along each: not a matrix at all.

    It changes what attends to what, so it stands alone: no second bias, no mask, no weights of all pairs.
    :func:`visionpe.attention.axial.axial_attention` is its kernel.

    Args:
        tables: One ``(heads or 1, 2 n - 1)`` an axis of ``n`` tokens, in the order of ``grid.size``; entry
            ``[:, d + n - 1]`` belongs to the offset d (query - key) along it.
        grid: The dense grid.
        cache: Where the bias of each axis may be kept, if no table holds a parameter.
        key: What it depends on besides the grid and the dtype.

    Raises:
        ValueError: If the grid is not dense, or the number of tables is not that of its axes.
    """

    structure = "axial"

    def __init__(
        self, tables: Sequence[Tensor], grid: Grid, *, cache: TableCache | None = None, key: Hashable = ()
    ) -> None:
        if not grid.dense:
            raise ValueError("grid has explicit coords: attention along the axes needs tokens that fill the grid")
        if len(tables) != grid.axes:
            raise ValueError(f"tables: {len(tables)} given; allowed: {grid.axes}, one for each axis of the grid")
        self.tables, self.grid, self.cache, self.key = tuple(tables), grid, cache, key

    def along(self, axis: int, dtype: torch.dtype) -> Tensor:
        """The bias inside a line along ``axis``: ``(1, heads or 1, n, prefix + n)``, 0 for prefix tokens."""
        table, n = self.tables[axis], self.grid.size[axis]

        def build() -> Tensor:
            here = torch.arange(n, device=table.device)
            values = table.to(dtype)[:, here[:, None] - here + n - 1]  # (heads, n, n)
            return with_prefix(values[None], 0, self.grid.prefix)

        if self.cache is None:
            return build()
        return self.cache.get(("along", axis, n, self.grid.prefix, table.device, dtype, self.key), build)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        raise ValueError("AxialBias has no matrix: it is attention along rows, then columns; allowed: attend()")

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.rows(0, self.grid.num_tokens, dtype)

    def narrow(self, samples: slice, heads: slice) -> AxialBias:
        return AxialBias([narrowed(table[None], samples, heads)[0] for table in self.tables], self.grid)

    def scaled(self, factor: float) -> AxialBias:
        tables = [table * factor for table in self.tables]
        return AxialBias(tables, self.grid, cache=self.cache, key=(self.key, factor))


def axial_bias(biases: Sequence[Bias], mask: Tensor | None = None) -> AxialBias | None:
    """The axial bias among ``biases``, which must then be the only one, or None.

    Raises:
        ValueError: If an axial bias comes with another bias or with a mask, which are of all pairs of tokens.
    """
    for bias in biases:
        if isinstance(bias, AxialBias):
            if len(biases) > 1:
                others = ", ".join(other.structure for other in biases if other is not bias)
                raise ValueError(
                    f"biases: an axial one and {others}; allowed: the axial one alone, it has no all pairs"
                )
            if mask is not None:
                raise ValueError(
                    f"mask {tuple(mask.shape)} is of all pairs, attention along the axes has none; allowed: None"
                )
            return bias
    return None


def axial_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: AxialBias, *, dropout_p: float = 0.0, scale: float | None = None
) -> Tensor:
    """Attend inside each row, then, on that result, inside each column; queries and keys are the same both times.

    Source: "RMT: Retentive Networks Meet Vision Transformers", section 3.3 (decomposed). With more axes than two, the
    last comes first and the first last. Time and memory grow with the tokens times the sum of the sides.

    The paper has no prefix tokens. Here they are further keys of every row and of every column, with bias 0 and with
    their own value each time; as queries they attend to all tokens at once, with bias 0.

    Args:
        q, k, v: Queries, keys and values, ``(B, heads, N, head_dim)``, prefix tokens first.
        bias: What is added to the scaled logits along each axis, and the grid.
        dropout_p: Dropout of the attention weights, in each of the passes, 0 to 1.
        scale: Of the logits; default ``head_dim ** -0.5``.

    Returns:
        ``(B, heads, N, head_dim)``.
    """
    grid = bias.grid
    own_q, own_k, out = (t[..., grid.prefix :, :] for t in (q, k, v))
    for axis in reversed(range(grid.axes)):
        lines_q, lines_k, lines_v = (lines_of(t, grid.size, axis) for t in (own_q, own_k, out))
        if grid.prefix:
            count = grid.num_spatial // grid.size[axis]
            ahead = (t[:, None, :, : grid.prefix].expand(-1, count, -1, -1, -1).flatten(0, 1) for t in (k, v))
            lines_k, lines_v = (torch.cat(pair, dim=-2) for pair in zip(ahead, (lines_k, lines_v)))
        mask = bias.along(axis, q.dtype)  # (1, heads or 1, n, prefix + n)
        attended = F.scaled_dot_product_attention(lines_q, lines_k, lines_v, mask, dropout_p, scale=scale)
        out = from_lines(attended, q.shape[0], grid.size, axis)
    if not grid.prefix:
        return out
    first = F.scaled_dot_product_attention(q[..., : grid.prefix, :], k, v, dropout_p=dropout_p, scale=scale)
    return torch.cat((first, out), dim=-2)


def lines_of(x: Tensor, size: tuple[int, ...], axis: int) -> Tensor:
    """Spatial tokens ``(B, heads, N, d)`` to the lines along ``axis``: ``(B * lines, heads, n, d)``."""
    x = x.unflatten(2, size).movedim(axis + 2, -2)  # (B, heads, *others, n, d)
    return x.movedim(1, -3).flatten(0, -4)


def from_lines(x: Tensor, batch: int, size: tuple[int, ...], axis: int) -> Tensor:
    """The inverse of :func:`lines_of`."""
    others = [n for a, n in enumerate(size) if a != axis]
    x = x.unflatten(0, (batch, *others)).movedim(-3, 1)  # (B, heads, *others, n, d)
    return x.movedim(-2, axis + 2).flatten(2, -2)
