"""A second tree of modules around the same weights."""

from __future__ import annotations

from collections import OrderedDict
from copy import copy
from typing import Any

from torch import nn

CONTAINERS = (dict, list, set, OrderedDict)


def shared_copy(module: nn.Module, made: dict[int, nn.Module] | None = None) -> nn.Module:
    """The module anew, and all modules in it; parameters and buffers are those of the original.

    So nothing is held twice, and what is changed in the copy leaves the original as it is.

    Args:
        module: Any module.
        made: What was copied before, by identity: a module in two places is one module again.
    """
    made = {} if made is None else made
    if id(module) in made:
        return made[id(module)]
    other = object.__new__(type(module))
    made[id(module)] = other
    state: dict[str, Any] = {key: copy(v) if isinstance(v, CONTAINERS) else v for key, v in module.__dict__.items()}
    state["_modules"] = {
        name: None if child is None else shared_copy(child, made) for name, child in module._modules.items()
    }
    other.__dict__ = state
    return other
