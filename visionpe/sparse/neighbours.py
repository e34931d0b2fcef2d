"""Exact nearest neighbours of points, by a grid of cells."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from visionpe.checks import check_count, check_number
from visionpe.sparse.cells import CellIndex

# Cells around a query that are searched; what is still open then is searched for in larger cells.
MAX_RING, LARGER = 3, 4
# Candidates that are looked at together.
BUDGET = 2**21


def nearest(
    points: Tensor, batch: Tensor, queries: Tensor, query_batch: Tensor, k: int, *, cell: float
) -> tuple[Tensor, Tensor]:
    """The k nearest points of the same cloud, exact; of equally near ones those of the lowest rows.

    Args:
        points: ``(N, axes)``.
        batch: Cloud of each point ``(N,)``.
        queries: ``(M, axes)``.
        query_batch: Cloud of each query ``(M,)``.
        k: How many, at least 1.
        cell: Side of the cells to search in, in the unit of the points; a few points a cell are best. It sets the time
            alone.

    Returns:
        Rows of points ``(M, k)``, nearest first, and distances ``(M, k)``. A cloud of fewer than k points gives the
        nearest once more, at distance infinity.

    Raises:
        ValueError: If ``k`` or ``cell`` is not positive, or a query's cloud has no point.
    """
    check_count("k", k)
    check_number("cell", cell, above=0)
    absent = torch.isin(query_batch, batch, invert=True)
    if absent.any():
        raise ValueError(f"cloud {int(query_batch[absent][0])} has queries but no point")
    corner = torch.minimum(points.amin(0), queries.amin(0))
    own = torch.cat((batch[:, None], ((points - corner) / cell).floor().long()), dim=1)
    at = torch.cat((query_batch[:, None], ((queries - corner) / cell).floor().long()), dim=1)
    index = CellIndex(own, margin=MAX_RING + 1)
    rows = queries.new_zeros(len(queries), k, dtype=torch.long)
    found = queries.new_full((len(queries), k), torch.inf)
    todo = torch.arange(len(queries), device=queries.device)
    for ring in range(1, MAX_RING + 1):
        left = []
        for part in todo.split(max(1, BUDGET // (8 * (2 * ring + 1) ** points.shape[1]))):
            starts, stops = _runs(index, at[part], ring)
            near, squares = _pick(points, queries[part], index.order, starts, stops, k)
            inside = queries[part] - corner - (at[part, 1:] * cell)
            # Nothing that was not looked at is nearer than this; a hair less, for the rounding of the cells.
            seen = (torch.minimum(inside, cell - inside).amin(1) + ring * cell) * (1 - 1e-5)
            done = squares[:, -1] <= seen.clamp(min=0).square()
            rows[part[done]], found[part[done]] = near[done], squares[done].sqrt()
            left.append(part[~done])
        todo = torch.cat(left)
        if not len(todo):
            break
    if len(todo) and cell * MAX_RING < float((points.amax(0) - corner).amax()):
        some = nearest(points, batch, queries[todo], query_batch[todo], k, cell=LARGER * cell)
        rows[todo], found[todo] = some
        todo = todo[:0]
    for cloud in query_batch[todo].unique():  # fewer than k points, or far outside of them
        part = todo[query_batch[todo] == cloud]
        starts, stops = (torch.searchsorted(batch[index.order], cloud, right=right) for right in (False, True))
        for some in part.split(max(1, BUDGET // int(stops - starts))):
            near, squares = _pick(
                points, queries[some], index.order, starts.expand(len(some), 1), stops.expand(len(some), 1), k
            )
            rows[some], found[some] = near, squares.sqrt()
    return torch.where(found.isinf(), rows[:, :1], rows), found


def _runs(index: CellIndex, at: Tensor, ring: int) -> tuple[Tensor, Tensor]:
    """Cells up to ``ring`` away: for each line along the last axis where its points begin and end, ``(m, lines)``."""
    span = range(-ring, ring + 1)
    lines = torch.tensor([(0, *line) for line in product(span, repeat=at.shape[1] - 2)], device=at.device)
    low = index.low
    cells = at[:, None, :-1] + lines  # (m, lines, axes)
    # Lines outside of the box hold nothing; along the last axis the margin of the box is wide enough.
    top = low + index.extent - 1
    inside = ((cells >= low[:-1]) & (cells <= top[:-1])).all(-1)
    last = at[:, None, -1:].expand(-1, len(lines), 1)
    first_key = index.pack(torch.cat((cells, (last - ring).clamp(low[-1], top[-1])), dim=-1))
    last_key = index.pack(torch.cat((cells, (last + ring).clamp(low[-1], top[-1])), dim=-1))
    starts = torch.searchsorted(index.keys, first_key)
    stops = torch.searchsorted(index.keys, last_key, right=True)
    return starts, torch.where(inside, stops, starts)


def _pick(
    points: Tensor, queries: Tensor, order: Tensor, starts: Tensor, stops: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k nearest among the points ``order[start:stop]`` of each query: rows and squared distances ``(m, k)``."""
    counts = (stops - starts).flatten()
    run = torch.repeat_interleave(counts)  # of every candidate
    before = counts.cumsum(0) - counts
    place = torch.arange(len(run), device=run.device)
    candidate = order[starts.flatten()[run] + place - before[run]]
    query = run // starts.shape[1]
    total = (stops - starts).sum(1)
    column = place - (total.cumsum(0) - total)[query]
    squares = (points[candidate] - queries[query]).square().sum(1)  # direct: |a|^2 - 2ab + |b|^2 would cancel
    width = max(k, int(total.max()))
    table = squares.new_full((len(queries), width), torch.inf)
    rows = torch.full((len(queries), width), len(points), device=run.device)
    table[query, column], rows[query, column] = squares, candidate
    if squares.dtype == torch.float32:
        # Positive floats sort like their bits: one whole number holds distance and row.
        both = (table.view(torch.int32).long() << 32) | rows
        chosen = both.topk(k, dim=1, largest=False, sorted=True).values & 0xFFFFFFFF
    else:
        rows, by_row = rows.sort(dim=1)
        chosen = rows.gather(1, table.gather(1, by_row).sort(dim=1, stable=True).indices[:, :k])
    missing = chosen == len(points)
    chosen = chosen.masked_fill(missing, 0)
    exact = (points[chosen] - queries[:, None]).square().sum(-1)
    return chosen, exact.masked_fill(missing, torch.inf)
