"""cRSE attention among voxels, three ways: ours, window by window, and over one flat list of pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from visionpe.attention.signals.attention import SignalRows, signal_attention, table_rows
from visionpe.sparse import Bucket, SparseWindows

OURS, FLAT, LOOP = "ours", "flat pairs", "loop over windows"
WINDOW, QUANT = 5, 4
# Rows of the tables for a unit, and in all: positions in voxels, colours in -1..1.
SIGNALS = ((QUANT, 2 * WINDOW * QUANT), (2 * QUANT, 8 * QUANT))
ROWS = sum(3 * length for _, length in SIGNALS)


@dataclass(frozen=True)
class Problem:
    """What to attend with; every formulation gives the same output.

    Args:
        coords, signals: See :func:`visionpe.benchmarks.voxel_scenes.room`.
        qkv: ``(N, 3, H, d)``, queries scaled.
        tables: Of queries, keys and values for all axes of position, then of colour: ``(3, H, rows, d)``.
    """

    coords: Tensor
    signals: Tensor
    qkv: Tensor
    tables: Tensor

    @classmethod
    def draw(cls, coords: Tensor, signals: Tensor, heads: int, dim: int, device: str = "cpu") -> Problem:
        """Random numbers that are the same in every process."""
        generator = torch.Generator().manual_seed(0)
        qkv = torch.randn(len(coords), 3, heads, dim, generator=generator)
        qkv[:, 0] *= dim**-0.5
        tables = 0.3 * torch.randn(3, heads, ROWS, dim, generator=generator)
        coords, signals, qkv, tables = (t.to(device) for t in (coords, signals, qkv, tables))
        return cls(coords, signals, qkv.requires_grad_(), tables.requires_grad_())

    @property
    def leaves(self) -> list[Tensor]:
        return [self.qkv, self.tables]

    def buckets(self) -> list[Bucket]:
        return SparseWindows(self.coords, self.signals[:, :3], window=WINDOW).buckets

    def values(self, bucket: Bucket) -> list[Tensor]:
        """Signals in each window, ``(W, n, 3)``."""
        return [bucket.places, self.signals[:, 3:6][bucket.rows]]

    def windows(self) -> list[tuple[Tensor, Tensor]]:
        """The voxels of every window ``(n,)`` and the rows of its pairs in all tables ``(6, n, n)``."""
        found = []
        axis, first = torch.arange(3, device=self.coords.device).view(3, 1, 1, 1), SIGNALS[0][1]
        starts = (axis * first, 3 * first + axis * SIGNALS[1][1])  # rows of all tables, one after the other
        for bucket in self.buckets():
            rows = torch.cat(
                [
                    table_rows(x, multiplier=m, length=length) + start
                    for x, (m, length), start in zip(self.values(bucket), SIGNALS, starts)
                ]
            )  # (6, W, n, n)
            counts = bucket.mask.sum(1).tolist()
            found += [(own[:n], rows[:, w, :n, :n]) for w, (own, n) in enumerate(zip(bucket.rows, counts))]
        return found


def ours(problem: Problem) -> Callable[[], Tensor]:
    """As the model does it."""
    buckets = problem.buckets()
    rows = [
        SignalRows.of_signals([(x, m, length) for x, (m, length) in zip(problem.values(bucket), SIGNALS)])
        for bucket in buckets
    ]
    order = torch.cat([bucket.rows.flatten() for bucket in buckets])
    filled = torch.cat([bucket.mask.flatten() for bucket in buckets]).nonzero()[:, 0]
    place = torch.empty_like(filled)
    place[order[filled]] = filled
    sizes = [bucket.rows.numel() for bucket in buckets]
    lengths = [length for _, length in SIGNALS]

    def call() -> Tensor:
        parts = []
        split = problem.tables.split([3 * length for length in lengths], dim=2)
        by_axis = [t.unflatten(2, (3, -1)).transpose(1, 2) for t in split]  # (3, axes, H, L, d)
        tables = [[t[of] for t in by_axis] for of in range(3)]
        for part, bucket, row in zip(problem.qkv.index_select(0, order).split(sizes), buckets, rows):
            q, k, v = part.unflatten(0, bucket.rows.shape).permute(2, 0, 3, 1, 4)
            out = signal_attention(q, k, v, row, *tables, mask=bucket.mask)
            parts.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(parts).index_select(0, place)

    return call


def loop(problem: Problem) -> Callable[[], Tensor]:
    """Window by window, the formula as written: the vectors of every pair are looked up and added."""
    windows = [(own, rows.flatten()) for own, rows in problem.windows()]
    place = torch.cat([own for own, _ in windows]).argsort()

    def call() -> Tensor:
        heads, dim = problem.qkv.shape[2:]
        tables = problem.tables.transpose(1, 2).flatten(2)  # (3, rows, H * d)
        parts = []
        for own, rows in windows:
            q, k, v = problem.qkv.index_select(0, own).unbind(1)  # (n, H, d)
            n = len(own)
            of = [t.index_select(0, rows).view(6, n, n, heads, dim).sum(0) for t in tables]
            logits = torch.einsum("ihd,jhd->ijh", q, k) + (q[:, None] * of[0]).sum(-1) + (k * of[1]).sum(-1)
            parts.append(torch.einsum("ijh,ijhd->ihd", logits.softmax(1), v + of[2]))
        return torch.cat(parts).index_select(0, place)

    return call


def flat(problem: Problem) -> Callable[[], Tensor]:
    """One list of all pairs and a softmax over its segments; vectors of size pairs x channels for q k and v alone."""
    windows = problem.windows()
    i = torch.cat([own[:, None].expand(-1, len(own)).flatten() for own, _ in windows])
    j = torch.cat([own.repeat(len(own)) for own, _ in windows])
    i, order = i.sort(stable=True)  # the pairs of a query together
    j = j[order]
    rows = torch.cat([row.flatten(1) for _, row in windows], dim=1)[:, order]  # (6, pairs)
    of_queries, of_keys = (i * ROWS + rows).flatten(), (j * ROWS + rows).flatten()

    def call() -> Tensor:
        number, _, heads, _ = problem.qkv.shape
        q, k, v = problem.qkv.permute(1, 2, 0, 3)  # (H, N, d)
        tq, tk, tv = problem.tables  # (H, rows, d)
        by_row = problem.qkv  # (N, 3, H, d): rows of memory as they are
        logits = (by_row[:, 0].index_select(0, i) * by_row[:, 1].index_select(0, j)).sum(-1).t()  # (H, pairs)
        for x, table, columns in ((q, tq, of_queries), (k, tk, of_keys)):
            products = (x @ table.transpose(1, 2)).flatten(1)  # (H, N * rows)
            logits = logits + products.gather(1, columns.expand(heads, -1)).unflatten(1, (6, -1)).sum(1)
        segments = i.expand(heads, -1)
        with torch.no_grad():
            most = logits.new_full((heads, number), -torch.inf).scatter_reduce(1, segments, logits, "amax")
        weights = (logits - most.gather(1, segments)).exp()
        total = weights.new_zeros(heads, number).scatter_add(1, segments, weights)
        weights = weights / total.gather(1, segments)
        out = by_row.new_zeros(v.transpose(0, 1).shape)
        out = out.index_add_(0, i, weights.t()[..., None] * by_row[:, 2].index_select(0, j))
        shared = weights.new_zeros(heads, number * ROWS)
        shared = shared.scatter_add_(1, of_queries.expand(heads, -1), weights.repeat(1, 6))
        return out + (shared.view(heads, number, ROWS) @ tv).transpose(0, 1)

    return call


FORMS = {OURS: ours, FLAT: flat, LOOP: loop}
