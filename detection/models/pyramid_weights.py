"""Weights of a simple feature pyramid: detectron2's names to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

# Whatever stands ahead of it, the logarithm of the stride, the module in the level, its norm.
PUBLISHED = re.compile(r"(?P<owner>.*\.|)simfp_(?P<stride>\d+)\.(?P<module>\d+)\.(?P<norm>norm\.|)(?P<kind>\w+)")
# Modules that end a level of ours: two convolutions, each with a norm, which detectron2 has inside the convolution.
LAST = 4


def levels_of(state: Mapping[str, Tensor], levels: Sequence[nn.Module], scales: Sequence[float]) -> dict[str, Tensor]:
    """The levels of detectron2's pyramid, of a file of it or of a whole detector, under our names.

    Args:
        state: Name -> tensor. Ours, and files without such levels, stay as they are.
        levels: Ours.
        scales: Resolution of each of them relative to the map.

    Raises:
        ValueError: If the file has another number of levels.
    """
    found = {key: match for key in state if (match := PUBLISHED.fullmatch(key))}
    if not found:
        return dict(state)
    strides = sorted({int(match["stride"]) for match in found.values()})
    if len(strides) != len(levels):
        names = ", ".join(f"simfp_{stride}" for stride in strides)
        raise ValueError(f"scales={tuple(scales)} makes {len(levels)} levels, the file has {names}; allowed: as many")
    finest_first = sorted(range(len(levels)), key=lambda i: -scales[i])
    place = dict(zip(strides, finest_first))
    out: dict[str, Tensor] = {}
    for key, match in found.items():
        level = place[int(match["stride"])]
        module, first = int(match["module"]), len(list(levels[level].children())) - LAST
        if module >= first:
            module = first + 2 * (module - first) + bool(match["norm"])
        out[f"levels.{level}.{module}.{match['kind']}"] = state[key]
    return out
