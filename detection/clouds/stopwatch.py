"""How long each part of a model takes, and how many voxels it gives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DECODER = ("upsamples", "classifier", "decode", "head", "fc")


@dataclass
class Part:
    """One part: seconds without the parts inside it, and the shape of what it gave last."""

    name: str
    seconds: float = 0.0
    shape: tuple[int, ...] = ()

    @property
    def decoder(self) -> bool:
        return self.name.startswith(DECODER)


def parts_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children of a model, those of its lists, and what lies between its levels."""
    for name, child in model.named_children():
        each = (
            [(f"{name}.{i}", x) for i, x in enumerate(child)] if isinstance(child, nn.ModuleList) else [(name, child)]
        )
        for label, part in each:
            if isinstance(part, (nn.Dropout, nn.Identity)):
                continue
            yield label, part
            down = getattr(part, "downsample", None)
            if isinstance(down, nn.Module):
                yield f"{label}.downsample", down


class Stopwatch:
    """Times parts of a model by hooks; use as a context.

    Args:
        model: The model.

    Attributes:
        parts: What was timed, in order of the first call.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.parts = model, dict[str, Part]()
        self._open: list[float] = []  # seconds of parts inside each that runs
        self._starts: list[float] = []
        self._handles: list[Any] = []

    def now(self) -> float:
        """Seconds, once the device has finished."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def __enter__(self) -> Stopwatch:
        for name, module in parts_of(self.model):
            self._handles.append(module.register_forward_pre_hook(self._begin))
            self._handles.append(module.register_forward_hook(self._end(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, *_: Any) -> None:
        self._open.append(0.0)
        self._starts.append(self.now())

    def _end(self, name: str) -> Any:
        def end(module: nn.Module, given: Any, out: Any) -> None:
            whole = self.now() - self._starts.pop()
            inner = self._open.pop()
            if self._open:
                self._open[-1] += whole
            part = self.parts.setdefault(name, Part(name))
            part.seconds += whole - inner
            part.shape = tuple(out.shape) if isinstance(out, Tensor) else ()

        return end
