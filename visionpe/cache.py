"""A small bounded store for tables that depend on the size of the input alone."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from visionpe.tracing import is_tracing

LIMIT_BYTES = 256 * 2**20
# One for all stores, so that models stay what can be copied and pickled. Tables are built outside of it.
_LOCK = threading.Lock()


def _nbytes(tables: Any) -> int:
    return sum(t.nbytes for t in tables) if isinstance(tables, tuple) else tables.nbytes


def _plain(tables: Any) -> bool:
    """False for fake, functional or other wrapped tensors, which must not outlive the mode that made them."""
    return all(type(t) is Tensor for t in (tables if isinstance(tables, tuple) else (tables,)))


class TableCache:
    """Least-recently-used store of tensors, bounded in bytes.

    Only for tables that hold no trainable parameter: a parameter can be changed behind every version counter
    (``param.data``), so what is derived from one is computed anew.

    Under ``torch.compile`` and ``torch.export`` it stands aside: the table becomes part of the graph, where equal
    tables of several layers are merged by the compiler. Threads may share a store.

    Args:
        limit: Upper bound on what is kept, in bytes. A table larger than this is never kept.
    """

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self.limit = limit
        self._tables: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """Return the table under ``key``, built by ``build()`` if it is not there."""
        if is_tracing():
            return build()
        with _LOCK:
            if key in self._tables:
                self._tables.move_to_end(key)
                return self._tables[key]
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not be used in training later
            tables = build()
        if _plain(tables) and _nbytes(tables) <= self.limit:
            with _LOCK:
                self._tables[key] = tables
                while sum(map(_nbytes, self._tables.values())) > self.limit:
                    self._tables.popitem(last=False)
        return tables

    def clear(self) -> None:
        with _LOCK:
            self._tables.clear()

    def __len__(self) -> int:
        return len(self._tables)

    def __deepcopy__(self, memo: dict[int, Any]) -> TableCache:
        return TableCache(self.limit)  # a copied model starts empty

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit, "_tables": OrderedDict()}  # nothing of it is pickled
