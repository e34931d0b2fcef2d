"""Optimizer wrappers: timm's parameter groups, and autocast that needs no GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase as fnmatch
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from visionpe.checks import shown
from visionpe.detection.running.layer_rates import BlockRates, block_scales, layer_scales

ALLOWED = ("layer_decay", "no_weight_decay", "lr_mult", "decay_mult")


def no_decay_names(model: nn.Module) -> set[str]:
    """Return the names, seen from ``model``, that its submodules list in ``no_weight_decay()``."""
    names: set[str] = set()
    for prefix, module in model.named_modules():
        listed = getattr(module, "no_weight_decay", None)
        if callable(listed):
            names |= {f"{prefix}.{name}" if prefix else name for name in listed()}
    return names


def _is_factor(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _multiplier(name: str, multipliers: Mapping[str, float]) -> float:
    """The factor of the longest prefix that fits."""
    fitting = [prefix for prefix in multipliers if f"{name}.".startswith(f"{prefix}.")]
    return multipliers[max(fitting, key=len)] if fitting else 1.0


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TimmOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Build the optimizer on few parameter groups, as timm makes them, for classifiers, detectors and segmentors.

    Unless ``decay_mult`` says otherwise: no weight decay for biases, for parameters of one dimension and for what the
    model lists in ``no_weight_decay()``, position parameters above all. Few groups keep fused and foreach optimizers
    fast.

    Args:
        optim_wrapper_cfg: Config of the wrapper, with ``optimizer``.
        paramwise_cfg: ``decay_mult``, factors on the weight decay by patterns of names, of which the last that fits
            counts: ``{"*bias": 1.0, "*norm*": 0.0}`` is Swin's rule for detectors;
            ``no_weight_decay``, a list of names or patterns (``"*.query_embed.*"``) without any;
            ``layer_decay``, see :func:`~visionpe.detection.running.layer_rates.layer_scales`;
            ``lr_mult``, factors on the learning rate by part, ``dict(backbone=0.1)``, of which the longest name counts.

    Raises:
        ValueError: If ``paramwise_cfg`` has another key, ``layer_decay`` is out of range or meets a model without
            ``group_matcher``, ``lr_mult`` names a part that the model does not have, or ``decay_mult`` holds no
            factors.
    """

    def _validate_cfg(self) -> None:
        unknown = set(self.paramwise_cfg) - set(ALLOWED)
        if unknown:
            raise ValueError(f"paramwise_cfg has {sorted(unknown)}; allowed: {', '.join(ALLOWED)}")
        factors = self.paramwise_cfg.get("decay_mult", {})
        if not isinstance(factors, Mapping) or not all(_is_factor(factor) for factor in factors.values()):
            raise ValueError(f"decay_mult={shown(factors)}; allowed: patterns of names, each with a number from 0 on")

    def _decays(self, spared: set[str]) -> Callable[[str, nn.Parameter], float]:
        """Factor on the weight decay of a parameter."""
        factors = [*self.paramwise_cfg.get("decay_mult", {}).items()]
        factors += [(pattern, 0.0) for pattern in self.paramwise_cfg.get("no_weight_decay", ())]

        def decay(name: str, parameter: nn.Parameter) -> float:
            fitting = [factor for pattern, factor in factors if fnmatch(name, pattern)]
            return fitting[-1] if fitting else float(parameter.ndim > 1 and name not in spared)

        return decay

    def _groups(self, model: nn.Module) -> list[dict]:
        layer_decay, multipliers = self.paramwise_cfg.get("layer_decay"), self.paramwise_cfg.get("lr_mult", {})
        parts = {name for name, _ in model.named_modules()}
        for part in multipliers:
            if part not in parts:
                raise ValueError(f"lr_mult={dict(multipliers)}: {type(model).__name__} has no part {part!r}")
        scales = {} if layer_decay is None else layer_scales(model, layer_decay)
        decay_mult = self._decays(no_decay_names(model))

        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            rate = self.base_lr * scales.get(name, 1.0) * _multiplier(name, multipliers)
            decay = (self.base_wd or 0.0) * decay_mult(name, parameter)
            groups.setdefault((rate, decay), []).append(parameter)
        # mmengine's schedulers know each group's own "lr", not timm's "lr_scale".
        return [{"params": members, "lr": lr, "weight_decay": decay} for (lr, decay), members in groups.items()]

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of ``model`` and its wrapper."""
        model = getattr(model, "module", model)
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": self._groups(model)})
        layer_decay = self.paramwise_cfg.get("layer_decay")
        shares = {} if layer_decay is None else block_scales(model, layer_decay)
        if shares:
            BlockRates(optimizer, [(model.get_parameter(name), share) for name, share in shares.items()])
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
