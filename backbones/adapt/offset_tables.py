"""Tables of offsets as timm has them, in our layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, takewhile

import torch
from torch import Tensor

from visionpe.backbones.shared.windows import Pair
from visionpe.backbones.swin.weights import as_map


def offset_table(flat: Tensor, window: Pair, prefix: int = 0) -> tuple[Tensor, Tensor | None]:
    """One table ``(offsets, heads)``, as Swin and BEiT have it, as one of :class:`RelativePositionBias`.

    Args:
        flat: Offsets in rows, then columns, from the most negative; behind them what pairs with prefix tokens have.
        window: Height and width of the window or the map, tokens; of a file of another size a square is taken.
        prefix: Entries for pairs with prefix tokens.

    Returns:
        ``(heads, 2 height - 1, 2 width - 1)`` and ``(heads, prefix)``, or None without them.

    Raises:
        RuntimeError: If the number of entries is not that of the window, nor of a square one.
    """
    entries = flat.shape[0] - prefix
    return as_map(flat[:entries], window, None), flat[entries:].T if prefix else None


def in_order(state: Mapping[str, Tensor], key: str) -> list[Tensor]:
    """What a state dict has under a key of every block, of the first one on: ``blocks.{}.table`` and the like."""
    if "{}" not in key:
        return [state[key]] if key in state else []
    return [state[name] for name in takewhile(state.__contains__, (key.format(i) for i in count()))]


def stacked_tables(tables: Sequence[Tensor], window: Pair, prefix: int, key: str) -> dict[str, Tensor]:
    """The tables of all layers under the keys of one ``rpb``.

    Args:
        tables: As :func:`offset_table` takes them.
        window, prefix: Likewise.
        key: Where the encoding stands, such as ``pos_encoding.rpb``.
    """
    converted = [offset_table(table, window, prefix) for table in tables]
    out = {f"{key}.table": torch.stack([table for table, _ in converted])}
    terms = [term for _, term in converted if term is not None]
    return out | {f"{key}.prefix_table": torch.stack(terms)} if terms else out
