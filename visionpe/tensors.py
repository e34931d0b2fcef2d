"""What other code does with the tensors of a module: moves, shards, parametrises and loads them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn


class OwnTensors(nn.Module):
    """A module whose tensors may have five axes, may have had other names, and may stand at what wraps it."""

    # Modules that had another name in older checkpoints: that name, and theirs now.
    renamed: ClassVar[Mapping[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        # Under a wrapper the model knows the wrapper alone: what shards or parametrises it leaves tensors there.
        wrapper, names = self.__dict__.get("lent", (None, ()))
        if (now := self.renamed.get(name)) is not None:
            warnings.warn(
                f"{getattr(self, 'name', type(self).__name__)}.{name} is {now} now", DeprecationWarning, stacklevel=2
            )
            return getattr(self, now)
        return getattr(wrapper, name) if name in names and name not in self._parameters else super().__getattr__(name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def move(t: Tensor) -> Tensor:
            if t.ndim != 5 or type(t.data) is not Tensor:
                return fn(t)
            # `model.to(memory_format=torch.channels_last)` is for pictures: a table of five axes refuses it.
            return fn(t.flatten(0, 1)).unflatten(0, t.shape[:2]).contiguous()

        return super()._apply(move, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for old, new in self.renamed.items():
            for key in [key for key in state_dict if key.startswith(f"{prefix}{old}.")]:
                state_dict[f"{prefix}{new}{key[len(prefix + old) :]}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
