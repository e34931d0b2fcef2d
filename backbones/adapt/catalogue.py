"""Which of timm's pretrained models can be adapted, and what they are told of positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from timm.models import model_entrypoint
from torch.overrides import TorchFunctionMode

from visionpe.backbones.adapt.adapted import Adapted
from visionpe.backbones.adapt.adapting import adapt, may_adapt
from visionpe.base import PositionEncoding
from visionpe.policy.apply import policies
from visionpe.utils.errors import first_line


@dataclass(frozen=True)
class Entry:
    """What is known of one name.

    Args:
        name: In timm, with the tag of its weights.
        family: Class of the model; the module where timm tells no class.
        encoding: What it has, by names of this package; ``none`` for nothing, empty where it cannot be adapted.
        policies: Resolution policies that apply then, those in force first.
        why_not: Why it cannot be adapted; empty where it can.
    """

    name: str
    family: str
    encoding: str = ""
    policies: tuple[str, ...] = ()
    why_not: str = ""

    @property
    def adaptable(self) -> bool:
        return not self.why_not


def family_of(name: str) -> str:
    """Class of a model of timm's, as its entry point states it, or else its module."""
    entry = model_entrypoint(name.split(".")[0])
    stated = entry.__annotations__.get("return")
    kind = stated if isinstance(stated, str) else getattr(stated, "__name__", None)
    return kind or entry.__module__.split(".")[-1]


class _NoValues(TorchFunctionMode):
    """Leaves out what would fill tensors that hold no values."""

    FILL = frozenset(
        ("normal_", "uniform_", "trunc_normal_", "constant_", "zeros_", "ones_", "xavier_uniform_", "kaiming_normal_")
        + ("kaiming_uniform_", "fill_", "zero_", "erfinv_", "mul_", "add_", "div_", "clamp_", "copy_")
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.FILL:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **(kwargs or {}))


def look_up(name: str) -> Entry:
    """What is known of a name; the model is built without memory for its weights."""
    family = family_of(name)
    if not may_adapt(name):
        return Entry(name, family, why_not=f"{family} is no class whose positions are known")
    try:
        with torch.device("meta"), _NoValues():
            model: Any = timm.create_model(name)
        family = type(model).__name__
        adapted: Adapted = adapt(model)
    except Exception as error:  # of whatever the model does when it is built
        return Entry(name, family, why_not=first_line(error, 160))
    parts = [part for part in adapted.modules() if isinstance(part, PositionEncoding)]
    spelt = "+".join(dict.fromkeys(part.spelling for part in parts)) or "none"
    return Entry(name, family, spelt, tuple(policies(adapted)))


def catalogue(names: Iterable[str] | None = None, seen: Callable[[], None] = lambda: None) -> Iterator[Entry]:
    """Every name, in order; names of one architecture are looked up once.

    Args:
        names: Of timm's; by default all with pretrained weights.
        seen: Called after each.
    """
    known: dict[str, Entry] = {}
    for name in timm.list_models(pretrained=True) if names is None else names:
        architecture = name.split(".")[0]
        if architecture not in known:
            known[architecture] = look_up(name)
        seen()
        yield replace(known[architecture], name=name)
