"""What attention does at a resolution: how widely it is spread, and how far it reaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from visionpe import Composition, Grid
from visionpe.attention.dispatch import AttentionWeights


def attention_spread(weights: AttentionWeights, grid: Grid) -> tuple[float, float]:
    """Entropy and reach of one attention, both averaged over samples (windows), heads and queries.

    Worked out for some queries at a time, so that memory is linear in the tokens.

    Args:
        weights: Of ``N`` tokens, those of ``grid``.
        grid: Where they stand.

    Returns:
        The entropy of the weights in nats, prefix tokens counted among queries and keys, 0 to ``log(N)``; and the
        distance from query to key expected under the weights, in tokens of this map, over spatial queries and spatial
        keys alone, whose weights are scaled up to a sum of one (0 where a query gives them nothing).

    Raises:
        ValueError: If this attention has no weights of all pairs, or mixed across heads, which may be below 0.
    """
    if not weights.distribution:
        raise ValueError("the weights of heads that were mixed are no distribution")
    # Under autocast the queries may be in half precision, in which small weights vanish.
    weights = replace(weights, q=weights.q.float(), k=weights.k.float())
    places = grid.positions(device=weights.q.device)  # (spatial, axes) or (B, spatial, axes)
    places = places if places.ndim == 2 else places[:, None]
    entropy = distance = 0.0
    entropies = distances = 0
    for start, stop in weights.chunks():
        rows = weights.rows(start, stop)  # (B, heads, n, N)
        each = torch.special.entr(rows).sum(-1)  # (B, heads, n)
        entropy, entropies = entropy + float(each.double().sum()), entropies + each.numel()
        if stop <= grid.prefix:
            continue
        first = max(start - grid.prefix, 0)
        rows = rows[:, :, max(grid.prefix - start, 0) :, grid.prefix :]  # (B, heads, spatial queries, spatial keys)
        away = torch.cdist(places[..., first : stop - grid.prefix, :], places)
        each = (rows * away).sum(-1) / rows.sum(-1).clamp_min(torch.finfo(rows.dtype).tiny)
        distance, distances = distance + float(each.double().sum()), distances + each.numel()
    return entropy / entropies, distance / max(distances, 1)


@dataclass
class AttentionRecord:
    """What was seen of every attention that ran, in order."""

    seen: list[tuple[float, float]] = field(default_factory=list)
    refused: bool = False

    def result(self) -> dict[str, float | None]:
        """``entropy`` and ``distance``, each attention counting alike; None where one of them has no weights."""
        if self.refused or not self.seen:
            return {"entropy": None, "distance": None}
        entropies, distances = zip(*self.seen)
        return {"entropy": fmean(entropies), "distance": fmean(distances)}


@contextmanager
def record_attention(model: nn.Module) -> Iterator[AttentionRecord]:
    """Look at the attention of every forward pass inside; outputs stay as they are.

    In a windowed backbone the weights and distances are those inside the windows, and the tokens that pad a window
    count as queries like any other; a block that cuts the map in two ways counts as two. In a pyramid every stage
    measures in its own tokens.

    Args:
        model: Any. Nothing is seen of a model that holds no :class:`visionpe.Composition`.

    Yields:
        What is seen.
    """
    tap = AttentionRecord()

    def watch(encoding: Composition) -> Any:
        original = encoding.mix

        def mix(
            attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
        ) -> Tensor:
            if weights is None:
                tap.refused = True
            elif not tap.refused:
                try:
                    with torch.autocast(v.device.type, enabled=False):
                        tap.seen.append(attention_spread(weights, grid))
                except ValueError:
                    tap.refused = True
            return original(attended, v, grid, layer=layer, weights=weights)

        return mix

    watched = [module for module in model.modules() if isinstance(module, Composition)]
    for encoding in watched:
        encoding.__dict__["mix"] = watch(encoding)
    try:
        yield tap
    finally:
        for encoding in watched:
            del encoding.__dict__["mix"]
