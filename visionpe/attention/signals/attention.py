"""Attention under the contextual relative signal encoding (cRSE), without anything of size pairs x channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionpe.attention.signals.rows import SignalRows, table_rows
from visionpe.precision import without_autocast

__all__ = ["SignalRows", "signal_attention", "table_rows"]


class _SignalAttention(torch.autograd.Function):
    """``softmax(q k + q Tq[row] + k Tk[row]) (v + Tv[row])``, keeping the weights alone for the backward pass.

    Tables are ``(axes, H, L, d)``. What a query has in common with each row of a table is a product with the whole
    table; the pairs then pick from it. Weights meet the value table by the sum of those that share a row. Windows are
    taken few at a time, heads outermost.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, rows: SignalRows, *of: Tensor
    ) -> Tensor:
        windows, heads, n, d = q.shape
        tables = _packed(of)
        out = q.new_empty(windows, n, heads, d).transpose(1, 2)
        room, saved = rows.room(heads, q), []
        for chunk in rows.chunks:
            queries, keys, values = (_by_head(t[chunk.windows]) for t in (q, k, v))
            tq, tk, tv = tables.index_select(1, chunk.used).split(d, dim=-1)  # (H, R, d)
            products = chunk.table(heads, 2, room)
            torch.bmm(queries, tq.transpose(1, 2), out=products[:, 0])
            torch.bmm(keys, tk.transpose(1, 2), out=products[:, 1])
            logits = _windows(queries, n) @ _windows(keys, n).transpose(2, 3)  # (H, W, n, n)
            chunk.add_picked(logits.view(heads, -1), products)
            if bias is not None:
                logits += bias[chunk.windows]
            weights = torch.softmax(logits, dim=-1, out=logits)
            mixed = (weights @ _windows(values, n)).flatten(1, 2)
            mixed.baddbmm_(chunk.shared(weights.view(heads, -1), chunk.of(key=False), room), tv)
            out[chunk.windows] = _windows(mixed, n).transpose(0, 1)
            if any(ctx.needs_input_grad):
                saved.append(weights)
        ctx.rows = rows
        ctx.save_for_backward(q, k, v, out, tables, *saved)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        with without_autocast(grad):
            return _gradients(ctx, grad)


def _gradients(ctx: Any, grad: Tensor) -> Any:
    q, k, v, out, tables, *saved = ctx.saved_tensors
    windows, heads, n, d = q.shape
    d_tables = torch.zeros_like(tables)
    d_inputs = q.new_empty(windows, n, 3, heads, d).permute(2, 0, 3, 1, 4)
    room = ctx.rows.room(heads, q)
    common = (grad * out).sum(-1).transpose(0, 1)  # (H, W, n)
    for chunk, weights in zip(ctx.rows.chunks, saved):
        queries, keys, values, back = (_by_head(t[chunk.windows]) for t in (q, k, v, grad))
        tq, tk, tv = tables.index_select(1, chunk.used).split(d, dim=-1)
        of_queries = chunk.of(key=False)
        d_logits = _windows(back, n) @ _windows(values, n).transpose(2, 3)
        products = chunk.table(heads, 1, room)
        torch.bmm(back, tv.transpose(1, 2), out=products[:, 0])
        chunk.add_picked(d_logits.view(heads, -1), products)
        d_logits -= common[:, chunk.windows, :, None]
        d_logits *= weights
        flat = d_logits.view(heads, -1)
        d_q, d_k = d_logits @ _windows(keys, n), d_logits.transpose(2, 3) @ _windows(queries, n)
        d_v = weights.transpose(2, 3) @ _windows(back, n)
        d_rows = []
        for columns, table, x, d_x in (
            (of_queries, tq, queries, d_q),
            (chunk.of(key=True), tk, keys, d_k),
        ):
            shared = chunk.shared(flat, columns, room)
            d_x.view(heads, -1, d).baddbmm_(shared, table)
            d_rows.append(shared.transpose(1, 2) @ x)
        d_rows.append(chunk.shared(weights.view(heads, -1), of_queries, room).transpose(1, 2) @ back)
        d_tables.index_add_(1, chunk.used, torch.cat(d_rows, dim=-1))
        for to, part in zip(d_inputs, (d_q, d_k, d_v)):
            to[chunk.windows] = part.transpose(0, 1)
    return (*d_inputs, None, None, *_unpacked(d_tables, ctx.rows))


def _by_head(x: Tensor) -> Tensor:
    """``(W, H, n, d)`` to ``(H, W * n, d)``."""
    return x.transpose(0, 1).flatten(1, 2)


def _windows(x: Tensor, n: int) -> Tensor:
    """``(H, W * n, d)`` to ``(H, W, n, d)``."""
    return x.unflatten(1, (-1, n))


def _packed(tables: Sequence[Tensor]) -> Tensor:
    """All rows of all tables, ``(H, rows, 3 d)``: queries, keys, values."""
    third = len(tables) // 3
    of = [
        torch.cat([t.transpose(0, 1).flatten(1, 2) for t in tables[i * third : (i + 1) * third]], 1) for i in range(3)
    ]
    return torch.cat(of, dim=-1)


def _unpacked(packed: Tensor, rows: SignalRows) -> list[Tensor]:
    sizes = [axes * length for axes, length in zip(rows.axes, rows.lengths)]
    return [
        part.unflatten(1, (axes, -1)).transpose(0, 1)
        for of in packed.chunk(3, dim=-1)
        for part, axes in zip(of.split(sizes, dim=1), rows.axes)
    ]


def signal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: SignalRows | Sequence[Tensor],
    tables_q: Sequence[Tensor],
    tables_k: Sequence[Tensor],
    tables_v: Sequence[Tensor],
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention with tables for queries, keys and values.

    Source: Swin3D, arXiv 2304.06906, eq. 5 to 7: ``logit = q k + q sum Tq[row] + k sum Tk[row]``, ``out = sum of weight
    (v + sum Tv[row])``, sums over the axes of every signal.

    Args:
        q: Queries, scaled already, ``(W, H, n, d)``. The term of the keys is not scaled.
        k, v: Keys and values.
        rows: Of every pair; where blocks share them, make :class:`SignalRows` once. Or for each signal
            :func:`table_rows` ``(axes, W, n, n)``.
        tables_q, tables_k, tables_v: For each signal ``(axes, H, L, d)``.
        mask: True where a key takes part, ``(W, n)``, at least one in each window.

    Returns:
        ``(W, H, n, d)`` in the dtype of ``v``; computed in at least float32.

    Raises:
        ValueError: If the windows or the tables are not those that ``rows`` were made for.
    """
    if not isinstance(rows, SignalRows):
        rows = SignalRows([r.expand(-1, len(v), -1, -1) for r in rows], [table.shape[2] for table in tables_q])
    if (rows.windows, rows.tokens) != (v.shape[0], v.shape[2]):
        raise ValueError(f"v is {tuple(v.shape)}; the rows are for {rows.windows} windows of {rows.tokens} tokens")
    wanted = list(zip(rows.axes, rows.lengths))
    for name, tables in (("tables_q", tables_q), ("tables_k", tables_k), ("tables_v", tables_v)):
        given = [(table.shape[0], table.shape[2]) for table in tables]
        if given != wanted:
            raise ValueError(f"{name} have (axes, length) {given}; the rows are for {wanted}")
    wide = torch.promote_types(v.dtype, torch.float32)
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, device=mask.device, dtype=wide).masked_fill(~mask, -torch.inf)[:, None]
    inputs = [t.to(wide) for t in (q, k, v)]
    tables = [t.to(wide) for t in (*tables_q, *tables_k, *tables_v)]
    with without_autocast(v):
        return _SignalAttention.apply(*inputs, bias, rows, *tables).to(v.dtype)
