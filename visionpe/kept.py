"""What follows from a parameter, kept from pass to pass while that holds the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.tracing import is_tracing, is_transformed


def may_keep(source: Tensor) -> bool:
    """Whether what is made of ``source`` may be kept: nothing records, traces or transforms it, and it is on a CPU.

    On a GPU the comparison would wait for the device.
    """
    plain = type(source) in (Tensor, nn.Parameter) and source.device.type == "cpu"
    return plain and not (torch.is_grad_enabled() or is_tracing() or is_transformed())


class KeptWhileEqual:
    """A tensor for every slot, with a copy of the small one that it was made of: used while the two are equal.

    A parameter can be changed behind every version counter (``param.data``), so its numbers are compared, which takes
    microseconds. Threads may share a store.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Hashable, Tensor, Tensor]] = {}

    def get(self, slot: Hashable, key: Hashable, source: Tensor, build: Callable[[], Tensor]) -> Tensor:
        """What ``build()`` makes of ``source``, where :func:`may_keep` says so.

        Args:
            slot: Who asks; the last tensor of each is kept.
            key: What it depends on besides.
            source: A parameter, or a part of one.
            build: Makes it.
        """
        key = (key, source.shape, source.dtype)
        kept = self._kept.get(slot)  # once: another thread may put its own
        if kept is not None and kept[0] == key and torch.equal(source, kept[1]):
            return kept[2]
        self._kept.pop(slot, None)  # never two at a time
        with torch.inference_mode(False), torch.no_grad():  # of use in every mode
            copy = source.detach().clone()  # first: what changes the source meanwhile is found out
            value = build()
        self._kept[slot] = (key, copy, value)
        return value

    def clear(self) -> None:
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptWhileEqual:
        return KeptWhileEqual()  # a copied model starts empty

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": {}}  # nothing of it is pickled
