"""Optimizer wrappers: timm's parameter groups, and autocast that needs no GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase as fnmatch
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from timm.models import group_parameters
from torch import nn

ALLOWED = ("layer_decay", "no_weight_decay", "lr_mult")


def no_decay_names(model: nn.Module) -> set[str]:
    """Return the names, seen from ``model``, that its submodules list in ``no_weight_decay()``."""
    names: set[str] = set()
    for prefix, module in model.named_modules():
        listed = getattr(module, "no_weight_decay", None)
        if callable(listed):
            names |= {f"{prefix}.{name}" if prefix else name for name in listed()}
    return names


def _networks(model: nn.Module) -> dict[str, Any]:
    """The topmost modules that tell their layers (timm's models), by the prefix of their parameters."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if hasattr(module, "group_matcher") and not prefix.startswith(tuple(found)):
            found[prefix] = module
    return found


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Factors on the learning rate that shrink with the distance from the head.

    Layers are counted in the timm network inside ``model``, by its ``group_matcher``. What is around it, such as neck
    and heads of a detector, is one more layer on top and has factor 1.

    Args:
        model: A timm model, or a classifier, detector or segmentor around one.
        layer_decay: Factor for each layer further from the head, in (0, 1].

    Returns:
        Factors by parameter name; names outside the network are absent.

    Raises:
        ValueError: If ``layer_decay`` is out of range, or ``model`` holds no timm network.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay={layer_decay} is out of range; allowed: above 0, up to 1")
    networks = _networks(model)
    if not networks:
        raise ValueError(f"layer_decay={layer_decay} needs a timm model; {type(model).__name__} holds none")
    around = any(not name.startswith(tuple(networks)) for name, _ in model.named_parameters())
    scales: dict[str, float] = {}
    for prefix, network in networks.items():
        layers = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
        top = max(layers.values(), default=0) + around
        scales |= {prefix + name: layer_decay ** (top - layer) for name, layer in layers.items()}
    return scales


def _multiplier(name: str, multipliers: Mapping[str, float]) -> float:
    """The factor of the longest prefix that fits."""
    fitting = [prefix for prefix in multipliers if f"{name}.".startswith(f"{prefix}.")]
    return multipliers[max(fitting, key=len)] if fitting else 1.0


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TimmOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Build the optimizer on few parameter groups, as timm makes them, for classifiers, detectors and segmentors.

    No weight decay for biases, for parameters of one dimension and for what the model lists in
    ``no_weight_decay()``, position parameters above all. Few groups keep fused and foreach optimizers fast.

    Args:
        optim_wrapper_cfg: Config of the wrapper, with ``optimizer``.
        paramwise_cfg: ``no_weight_decay``, a list of further names or patterns (``"*.query_embed.*"``);
            ``layer_decay``, see :func:`layer_scales`; ``lr_mult``, factors on the learning rate by part,
            ``dict(backbone=0.1)``, of which the longest name counts.

    Raises:
        ValueError: If ``paramwise_cfg`` has another key, ``layer_decay`` is out of range or meets a model without
            ``group_matcher``, or ``lr_mult`` names a part that the model does not have.
    """

    def _validate_cfg(self) -> None:
        unknown = set(self.paramwise_cfg) - set(ALLOWED)
        if unknown:
            raise ValueError(f"paramwise_cfg has {sorted(unknown)}; allowed: {', '.join(ALLOWED)}")

    def _groups(self, model: nn.Module) -> list[dict]:
        layer_decay, multipliers = self.paramwise_cfg.get("layer_decay"), self.paramwise_cfg.get("lr_mult", {})
        patterns = tuple(self.paramwise_cfg.get("no_weight_decay", ()))
        parts = {name for name, _ in model.named_modules()}
        for part in multipliers:
            if part not in parts:
                raise ValueError(f"lr_mult={dict(multipliers)}: {type(model).__name__} has no part {part!r}")
        scales = {} if layer_decay is None else layer_scales(model, layer_decay)
        spared = no_decay_names(model)

        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            decays = parameter.ndim > 1 and name not in spared and not any(fnmatch(name, p) for p in patterns)
            rate = self.base_lr * scales.get(name, 1.0) * _multiplier(name, multipliers)
            groups.setdefault((rate, (self.base_wd or 0.0) if decays else 0.0), []).append(parameter)
        # mmengine's schedulers know each group's own "lr", not timm's "lr_scale".
        return [{"params": members, "lr": lr, "weight_decay": decay} for (lr, decay), members in groups.items()]

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
