"""Attention under the contextual relative signal encoding (cRSE), without anything of size pairs x channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def table_rows(signal: Tensor, *, multiplier: float, length: int) -> Tensor:
    """Row of a table for every pair: ``floor(m s_i - m s_j + length / 2)``, kept inside the table.

    Source: Swin3D, arXiv 2304.06906, eq. 6, with the last row where a difference lies beyond the table.

    Args:
        signal: ``(W, n, axes)``, in at least float32.
        multiplier: Rows per unit of the signal, ``m``.
        length: Rows of the table, even.

    Returns:
        ``(axes, W, n, n)`` int64, query first.
    """
    scaled = multiplier * signal.movedim(-1, 0)  # products first, so that equal signals give exactly the middle
    place = scaled[..., :, None] - scaled[..., None, :] + length / 2  # half before rounding: noise at 0 is harmless
    return place.clamp(min=0).long().clamp(max=length - 1)


class _SignalAttention(torch.autograd.Function):
    """``softmax(q k + q Tq[row] + k Tk[row]) (v + Tv[row])``, keeping the weights alone for the backward pass.

    Tables are ``(axes, H, L, d)``. What a query has in common with each row of a table is a product with the whole
    table; the pairs then pick from it. Weights meet the value table by the sum of those that share a row.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, rows: Sequence[Tensor], *tables: Tensor
    ) -> Tensor:
        signals = len(rows)
        of_queries, of_keys, of_values = tables[:signals], tables[signals : 2 * signals], tables[2 * signals :]
        logits = q @ k.transpose(-2, -1)  # (W, H, n, n)
        turned = torch.zeros_like(logits)  # key first
        for table_q, table_k, pairs in zip(of_queries, of_keys, rows):
            for tq, tk, row in zip(table_q, table_k, pairs):
                row = row[:, None].expand_as(logits)
                logits += (q @ tq.transpose(-2, -1)).gather(3, row)
                turned += (k @ tk.transpose(-2, -1)).gather(3, row.transpose(2, 3))
        logits += turned.transpose(2, 3)
        del turned
        logits += bias
        weights = torch.softmax(logits, dim=-1, out=logits)
        out = weights @ v
        for table, pairs in zip(of_values, rows):
            for tv, row in zip(table, pairs):
                out += _shared(weights, row, tv.shape[-2]) @ tv
        ctx.rows = rows
        ctx.save_for_backward(q, k, v, weights, out, *tables)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v, weights, out, *tables = ctx.saved_tensors
        rows, signals = ctx.rows, len(ctx.rows)
        of_queries, of_keys, of_values = tables[:signals], tables[signals : 2 * signals], tables[2 * signals :]
        grads = [torch.empty_like(table) for table in tables]
        d_weights = grad @ v.transpose(-2, -1)
        for s, pairs in enumerate(rows):
            for a, row in enumerate(pairs):
                tv = of_values[s][a]
                d_weights += (grad @ tv.transpose(-2, -1)).gather(3, row[:, None].expand_as(weights))
                grads[2 * signals + s][a] = _over_windows(_shared(weights, row, tv.shape[-2]), grad)
        d_weights -= (grad * out).sum(-1, keepdim=True)
        d_logits = d_weights.mul_(weights)
        turned = d_logits.transpose(2, 3).contiguous()
        d_q, d_k, d_v = d_logits @ k, turned @ q, weights.transpose(2, 3) @ grad
        for s, pairs in enumerate(rows):
            for a, row in enumerate(pairs):
                tq, tk = of_queries[s][a], of_keys[s][a]
                shared = _shared(d_logits, row, tq.shape[-2])
                d_q += shared @ tq
                grads[s][a] = _over_windows(shared, q)
                shared = _shared(turned, row.transpose(1, 2), tk.shape[-2])
                d_k += shared @ tk
                grads[signals + s][a] = _over_windows(shared, k)
        return d_q, d_k, d_v, None, None, *grads


def _shared(weights: Tensor, row: Tensor, length: int) -> Tensor:
    """Sum of the weights of each query whose pairs share a row: ``(W, H, n, length)``."""
    sums = weights.new_zeros(*weights.shape[:-1], length)
    return sums.scatter_add_(3, row[:, None].expand_as(weights), weights)


def _over_windows(shared: Tensor, x: Tensor) -> Tensor:
    """``(W, H, n, L)`` and ``(W, H, n, d)`` to ``(H, L, d)``, summed over windows and tokens."""
    heads = shared.shape[1]
    left, right = (t.transpose(0, 1).reshape(heads, -1, t.shape[-1]) for t in (shared, x))
    return left.transpose(1, 2) @ right


def signal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: Sequence[Tensor],
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
        rows: For each signal, :func:`table_rows` ``(axes, W, n, n)``.
        tables_q, tables_k, tables_v: For each signal ``(axes, H, L, d)``.
        mask: True where a key takes part, ``(W, n)``, at least one in each window.

    Returns:
        ``(W, H, n, d)`` in the dtype of ``v``; computed in at least float32.
    """
    wide = torch.promote_types(v.dtype, torch.float32)
    bias = q.new_zeros((), dtype=wide)
    if mask is not None:
        bias = torch.zeros(mask.shape, device=mask.device, dtype=wide).masked_fill(~mask, -torch.inf)[:, None, None]
    inputs = [t.to(wide) for t in (q, k, v)]
    tables = [t.to(wide) for t in (*tables_q, *tables_k, *tables_v)]
    return _SignalAttention.apply(*inputs, bias, tuple(rows), *tables).to(v.dtype)
