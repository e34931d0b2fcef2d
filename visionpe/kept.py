"""What follows from a parameter, kept from pass to pass while that holds the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from visionpe.tracing import is_tracing, is_transformed

V = TypeVar("V")


def may_keep(sources: Sequence[Tensor]) -> bool:
    """Whether what is made of ``sources`` may be kept: nothing records, traces or transforms it, and it is on a CPU.

    On a GPU the comparison would wait for the device.
    """
    if torch.is_grad_enabled() or is_tracing() or is_transformed():
        return False
    return all(type(source) in (Tensor, nn.Parameter) and source.device.type == "cpu" for source in sources)


class KeptWhileEqual:
    """A value for every slot, with copies of the small tensors that it was made of: used while these are equal.

    A parameter can be changed behind every version counter (``param.data``), so its numbers are compared, which takes
    microseconds. Threads may share a store.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Hashable, list[Tensor], Any]] = {}

    def get(self, slot: Hashable, key: Hashable, sources: Sequence[Tensor], build: Callable[[], V]) -> V:
        """What ``build()`` makes of ``sources``, where :func:`may_keep` says so.

        Args:
            slot: Who asks; the last value of each is kept.
            key: What it depends on besides.
            sources: Parameters, or parts of them.
            build: Makes it.
        """
        kept = self._kept.get(slot)  # once: another thread may put its own
        if kept is not None and kept[0] == key and _equal(sources, kept[1]):
            return kept[2]
        self._kept.pop(slot, None)  # never two at a time
        with torch.inference_mode(False), torch.no_grad():  # of use in every mode
            copies = [source.detach().clone() for source in sources]  # first: a change meanwhile is found out
            value = build()
        self._kept[slot] = (key, copies, value)
        return value

    def clear(self) -> None:
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptWhileEqual:
        return KeptWhileEqual()  # a copied model starts empty

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": {}}  # nothing of it is pickled


class Keeps(nn.Module):
    """Mixin of modules that keep something in evaluation, ahead of their base.

    Attributes:
        kept: The store, which training empties.
    """

    def __init__(self, **context: Any) -> None:
        super().__init__(**context)
        self.kept = KeptWhileEqual()

    def train(self, mode: bool = True) -> Any:
        if mode:  # there every pass has other numbers
            self.kept.clear()
        return super().train(mode)


def _equal(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    if len(ones) != len(others):
        return False
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(ones, others))
