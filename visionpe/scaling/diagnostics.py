"""What attention does at a resolution: how widely it is spread, and how far it reaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import nn

from visionpe import Grid
from visionpe.attention.dispatch import AttentionWeights
from visionpe.viewing.attention import AttentionLayer, in_full, watch_attention


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

    def see(self, weights: AttentionWeights | None, grid: Grid) -> None:
        """Another attention, as means over its heads (:meth:`~visionpe.viewing.attention.AttentionLayer.spread`)."""
        if self.refused:
            return
        if weights is None:
            self.refused = True
            return
        with torch.autocast(weights.q.device.type, enabled=False):
            try:
                entropy, distance = AttentionLayer(in_full(weights), grid).spread()
            except ValueError:
                self.refused = True
                return
        self.seen.append((float(entropy.mean()), float(distance.mean())))


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
    record = AttentionRecord()
    with watch_attention(model, record.see):
        yield record
