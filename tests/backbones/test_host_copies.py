"""Nothing goes from the host to the device in a steady forward pass. Tensors without data stand for a device."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from conftest import tiny_spec
from tiny_backbones import MODELS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import visionpe

# What computes from parameters in every pass; tables of what is fixed are kept, which tensors without data are not.
CASES = [("fire", None), ("seqpe", None), ("cpb", None), ("kerple", None), ("irpe", None), ("fourier", None)]
CASES += [
    (spec, policy)
    for spec in ("rope_mixed", "rope_norm")
    for policy in (None, "interpolate", "ntk", "yarn", "riflex", "resonance")
]
# Rotations are turned before attention in every family alike: the policies of one do for the windows.
OFTEN = [
    (family, *case)
    if family == "none_vit_ti" or case[1] in (None, "yarn")
    else pytest.param(family, *case, marks=pytest.mark.long)
    for family in ("none_vit_ti", "swin_t")
    for case in CASES
]


class HostCopies(TorchDispatchMode):
    """Collects operations that take a tensor from the host to a device, or a number back."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        before, after = (
            {t.device.type for t in tree_leaves(values) if isinstance(t, torch.Tensor)} for values in (args, result)
        )
        if "copy" in str(func) and before | after == {"cpu", "cuda"}:
            self.found.append(str(func))
        return result


@pytest.mark.skipif(torch.__version__.startswith("2.9."), reason="torch 2.9 wants a driver for such tensors")
@pytest.mark.parametrize(("family", "spec", "policy"), OFTEN)
@torch.no_grad()
def test_a_steady_pass_copies_nothing(family: str, spec: str, policy: str | None) -> None:
    model = timm.create_model(family, pos_encoding=tiny_spec(spec), num_classes=3, **MODELS[family]).eval()
    if policy:
        visionpe.set_policy(model, policy)
    try:
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model._apply(lambda t: torch.empty_like(t, device="cuda"))
            x = torch.randn(2, 3, 64, 48, device="cuda")
            model(x)
            with HostCopies() as copies:
                model(x)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    assert not copies.found
