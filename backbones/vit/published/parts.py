"""What the readers of several published layouts share."""

from __future__ import annotations

from typing import Any

from torch import nn

from visionpe.base import PositionEncoding
from visionpe.encodings.wrappers.base import innermost


def part_of(model: Any, name: str) -> Any:
    """The encoding of a model that has this name, without what stands over it; None where there is none."""
    parts: list[PositionEncoding] = [innermost(part) for part in model.pos_encoding.parts]
    return next((part for part in parts if part.name == name), None)


def check_norms(model: Any, eps: float) -> list[str]:
    """What is wrong with the norms of a model, of which the published code adds ``eps`` to variances."""
    modules = {name: module for name, module in model.named_modules() if not name.startswith("pos_encoding")}
    other = {module.eps for module in modules.values() if isinstance(module, nn.LayerNorm)} - {eps}
    if not other:
        return []
    return [f"norm_eps={min(other):g} is not that of the file's code; allowed: {eps:g}"]
