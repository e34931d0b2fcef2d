"""What cannot be adapted, before anything is changed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from timm.models._features import FeatureDictNet
from torch import Tensor, nn

from visionpe.checks import shown

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def check_model(model: Any) -> None:
    """Refuse what is no model as timm builds it.

    Raises:
        TypeError: If it is no module, or was scripted, compiled or quantised.
        ValueError: If modules in it have hooks.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={shown(model)} is no module; allowed: a model of timm.create_model")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("model was scripted or traced by torch.jit; allowed: the model before that")
    for name, module in model.named_modules():
        where = f"model.{name}" if name else "model"
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise TypeError(f"{where} is compiled; allowed: adapt the model first, then compile it")
        if is_quantised(module):
            raise TypeError(f"{where} is quantised; allowed: adapt the model first, then quantise it")
        for kind in HOOKS:
            if module.__dict__.get(kind):
                raise ValueError(
                    f"{where} has hooks ({kind.strip('_')}), which may stand where positions were; allowed: remove "
                    "them, adapt the model, and register them again"
                )


def is_quantised(module: nn.Module) -> bool:
    """Whether its weights are no plain floating-point numbers."""
    if "quantized" in type(module).__module__.split("."):
        return True
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return False
    return weight.is_quantized or not (weight.is_floating_point() or weight.is_complex())


def check_known(model: nn.Module, known: Collection[type]) -> None:
    """Refuse a class that nobody adapts.

    Raises:
        TypeError: Names it, and those that are.
    """
    if isinstance(model, FeatureDictNet):
        raise TypeError(
            f"model is {type(model).__name__}, which holds modules of a model without the model; allowed: "
            "timm.create_model(..., features_only=True, feature_cls='getter')"
        )
    if type(model) not in known:
        kind = type(model)
        full = f"{kind.__module__}.{kind.__qualname__}"
        names = ", ".join(sorted({each.__name__ for each in known}))
        raise TypeError(f"model is {full}, whose positions are not known; allowed: {names}, as timm.create_model gives")
