"""What follows from a parameter, kept from pass to pass while that holds the same numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from visionpe.grid import Grid
from visionpe.tracing import is_tracing, is_transformed

V = TypeVar("V")


def may_keep(sources: Sequence[Tensor]) -> bool:
    """Whether what is made of ``sources`` may be kept: nothing records, traces or transforms it, and it is on a CPU.

    On a GPU the comparison would wait for the device.
    """
    if not _steady():
        return False
    return all(type(source) in (Tensor, nn.Parameter) and source.device.type == "cpu" for source in sources)


def _steady() -> bool:
    return not (torch.is_grad_enabled() or is_tracing() or is_transformed())


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
            copies = _copied(sources)  # first: a change meanwhile is found out
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


class KeptOfLayers:
    """A value for every layer of what the same parameters hold for all of them, compared once a forward pass.

    A pass is known by its ``Grid`` object, whose layers ascend. From one of them to the next only what version counters
    and the identity of objects tell is looked at. Threads may share a store.
    """

    def __init__(self) -> None:
        self._state: tuple[list[Tensor], dict[int, tuple[Hashable, Any]]] = [], {}
        self._pass: tuple[weakref.ref[Grid], int, Sequence[Tensor], list[int]] | None = None

    def in_pass(self, grid: Grid, layer: int, told: Hashable, sources: Sequence[Tensor]) -> Any | None:
        """What is kept for ``layer``, where an earlier one of this pass has compared the numbers, or None.

        Args: see :meth:`get`.
        """
        seen = self._pass  # once: another thread may put its own
        if seen is None or seen[0]() is not grid or seen[1] >= layer or not _steady():
            return None
        before, versions = seen[2:]
        if any(one is not other for one, other in zip(sources, before)) or _versions(sources) != versions:
            return None
        kept = self._state[1].get(layer)
        if kept is None or kept[0] != (_shape(grid), told):
            return None
        self._pass = (seen[0], layer, before, versions)
        return kept[1]

    def get(self, grid: Grid, layer: int, told: Hashable, sources: Sequence[Tensor], build: Callable[[], V]) -> V:
        """What ``build()`` makes of ``sources`` for ``layer``, where :func:`may_keep` says so.

        Args:
            grid: Of this pass, a full one.
            layer: Who asks; the last value of each is kept.
            told: What it depends on besides.
            sources: The parameters of all layers.
            build: Makes it.
        """
        copies, values = self._state
        key = (_shape(grid), told)
        with torch.inference_mode(False), torch.no_grad():  # of use in every mode
            if not _equal(sources, copies):
                # Another thread may still put what it made of the old ones: not in here.
                self._state = _, values = _copied(sources), {}
            kept = values.get(layer)
            if kept is None or kept[0] != key:
                values.pop(layer, None)  # never two at a time
                values[layer] = kept = (key, build())
        if not any(source.is_inference() for source in sources):  # these have no versions
            self._pass = (weakref.ref(grid), layer, sources, _versions(sources))
        value: V = kept[1]
        return value

    def clear(self) -> None:
        self._state, self._pass = ([], {}), None

    def __len__(self) -> int:
        return len(self._state[1])

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptOfLayers:
        return KeptOfLayers()  # a copied model starts empty

    def __reduce__(self) -> tuple[type[KeptOfLayers], tuple[()]]:
        return KeptOfLayers, ()  # nothing of it is pickled


class Keeps(nn.Module):
    """Mixin of modules that keep something in evaluation, ahead of their base.

    Attributes:
        kept: The store, which training empties.
    """

    def __init__(self, **context: Any) -> None:
        super().__init__(**context)
        self.kept = self.new_store()

    def new_store(self) -> Any:
        """An empty store."""
        return KeptWhileEqual()

    def train(self, mode: bool = True) -> Any:
        if mode:  # there every pass has other numbers
            self.kept.clear()
        return super().train(mode)


def _equal(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    if len(ones) != len(others):
        return False
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(ones, others))


def _copied(sources: Sequence[Tensor]) -> list[Tensor]:
    return [source.detach().clone() for source in sources]


def _versions(sources: Sequence[Tensor]) -> list[int]:
    return [source._version for source in sources]


def _shape(grid: Grid) -> Hashable:
    return grid.size, grid.prefix, grid.queries, grid.stride
