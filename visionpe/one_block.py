"""What one block needs of encodings that serve all of them, for blocks that are compiled one by one."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, TypeVar

from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.composition import Composition
from visionpe.grid import Grid

Encoding = TypeVar("Encoding", bound=nn.Module)


def is_compiled(block: nn.Module) -> bool:
    """Whether ``block.compile()`` or ``torch.compile(block)`` was called, of what FSDP wraps too."""
    block = block.__dict__["_modules"].get("_fsdp_wrapped_module") or block
    return getattr(block, "_compiled_call_impl", None) is not None or "_orig_mod" in block.__dict__["_modules"]


def only(encoding: Composition, layer: int, x: Tensor, grid: Grid) -> Composition:
    """The parts as they are for block ``layer`` alone, which is given ``x``, tokens on ``grid``.

    The number of a block is a constant to the compiler, which makes a graph for each. Parts whose blocks hold tensors
    of one shape are handed on as if they served that block only; then one graph serves all.
    """
    own = [encoding._call(part, "of_block", x, grid, layer=layer) for part in encoding.parts]
    parts = {name: _part(part, layer, its) for (name, part), its in zip(encoding.items(), own)}  # type: ignore[arg-type]
    return _with(encoding, _modules=parts)


def _part(part: PositionEncoding, layer: int, own: dict[str, Any]) -> PositionEncoding:
    if part.is_wrapper:  # it shares the tensors of what it stands over
        inner = _part(part.beneath, layer, own)  # type: ignore[arg-type]
        shared = {"_parameters": inner._parameters, "_modules": inner._modules}
        return _with(part, _over=inner, of_one_block=True, **shared) if inner.of_one_block else part
    _, lent = part.__dict__.get("lent", (None, ()))
    # Tensors that another library took away, or computes, are not taken apart.
    away = hasattr(part, "parametrizations") or any(name not in part._parameters for name in lent)
    away = away or not all(any(fnmatchcase(name, pattern) for name in part._parameters) for pattern, _ in part.stacked)
    if away or not (part.stacked or part.by_block or own):
        return part
    parameters, attributes = dict(part._parameters), {}
    for name, t in part._parameters.items():
        for axis in (axis for pattern, axis in part.stacked if t is not None and fnmatchcase(name, pattern)):
            parameters[name] = t.narrow(axis, layer, 1)  # type: ignore
            if name in part.__dict__:  # where FSDP puts them besides, in a forward pass
                attributes[name] = parameters[name]
    lists = {name: part._modules.get(name) for name in part.by_block}
    modules = part._modules | {name: m[layer : layer + 1] for name, m in lists.items() if m is not None}  # type: ignore
    return _with(part, _parameters=parameters, _modules=modules, depth=1, of_one_block=True, **own, **attributes)


def _with(module: Encoding, **changed: Any) -> Encoding:
    """The module with some of its attributes changed; everything else is shared."""
    other = object.__new__(type(module))
    other.__dict__ = {**module.__dict__, **changed}
    return other
