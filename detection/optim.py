"""Optimizer wrappers: timm's parameter groups, and autocast that needs no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

ALLOWED = ("layer_decay", "no_weight_decay")


def undecayed(model: nn.Module) -> set[str]:
    """Return the names, seen from ``model``, that its submodules list in ``no_weight_decay()``."""
    names: set[str] = set()
    for prefix, module in model.named_modules():
        listed = getattr(module, "no_weight_decay", None)
        if callable(listed):
            names |= {f"{prefix}.{name}" if prefix else name for name in listed()}
    return names


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TimmOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Build the optimizer on timm's parameter groups.

    No weight decay for biases, for parameters of one dimension and for what the model lists in
    ``no_weight_decay()``, position parameters above all. Few groups keep fused and foreach optimizers fast.

    Args:
        optim_wrapper_cfg: Config of the wrapper, with ``optimizer``.
        paramwise_cfg: ``no_weight_decay``, a list of further names or patterns; ``layer_decay``, a factor in (0, 1]
            on the learning rate for each layer further from the head (timm's ``group_matcher`` tells the layers).

    Raises:
        ValueError: If ``paramwise_cfg`` has another key, or ``layer_decay`` meets a model without ``group_matcher``.
    """

    def _validate_cfg(self) -> None:
        unknown = set(self.paramwise_cfg) - set(ALLOWED)
        if unknown:
            raise ValueError(f"paramwise_cfg has {sorted(unknown)}; allowed: {', '.join(ALLOWED)}")

    def _groups(self, model: nn.Module) -> list[dict]:
        layer_decay = self.paramwise_cfg.get("layer_decay")
        extra = tuple(self.paramwise_cfg.get("no_weight_decay", ()))
        weight_decay = self.base_wd or 0.0
        if layer_decay is None:
            return param_groups_weight_decay(model, weight_decay, no_weight_decay_list={*undecayed(model), *extra})
        network = getattr(model, "model", model)
        if not hasattr(network, "group_matcher"):
            raise ValueError(f"layer_decay={layer_decay} needs a timm model; {type(network).__name__} is none")
        groups = param_groups_layer_decay(
            network, weight_decay, no_weight_decay_list={*undecayed(network), *extra}, layer_decay=layer_decay
        )
        # mmengine's schedulers know each group's own "lr", not timm's "lr_scale".
        return [
            {"params": g["params"], "weight_decay": g["weight_decay"], "lr": self.base_lr * g["lr_scale"]}
            for g in groups
        ]

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of ``model`` and its wrapper."""
        model = getattr(model, "module", model)
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": self._groups(model)})
        config = {"type": "OptimWrapper", **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(config, default_args={"optimizer": optimizer})


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Forward and loss in bfloat16 autocast, on any device; no gradient scaler, which bfloat16 does not need."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass of ``model`` under autocast."""
        with super().optim_context(model), torch.autocast(get_device(), torch.bfloat16):
            yield
