"""Other libraries that look at the layers of a model."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def is_watched(layer: nn.Module) -> bool:
    """Whether somebody listens to the calls of a layer or has changed what it does, so that it has to be called."""
    if _has_any_global_hook() or "forward" in layer.__dict__:
        return True
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


def drop_summary_hooks(module: nn.Module) -> None:
    """Take torchinfo's hooks off a module and those inside it; everybody else's stay.

    torchinfo adds up parameters in the order of calls, and takes what is called inside of a block for a part of the
    block: encodings, which stand beside the blocks and are called in each, would be counted many times. Without hooks
    their parameters count once, with what holds them.
    """
    for each in module.modules():
        for hooks in (each._forward_pre_hooks, each._forward_hooks):
            for key, hook in list(hooks.items()):
                if str(getattr(hook, "__module__", "")).startswith("torchinfo"):
                    del hooks[key]
