"""Libraries that sum up a model by the order of its calls."""

from __future__ import annotations

import pytest
import timm
import torch
from conftest import randomize, tiny_spec
from tiny_backbones import MODELS


@pytest.mark.parametrize(("family", "spec"), [
    ("none_vit_ti", "rope_mixed+cpb"),
    ("swin_t", "rpb"),
    ("cswin_t", "lepe"),
    ("vitdet_b", "decomposed+ape"),
])  # fmt: skip
def test_torchinfo_counts_every_parameter_once(family: str, spec: str) -> None:
    torchinfo = pytest.importorskip("torchinfo")
    model = timm.create_model(family, pos_encoding=tiny_spec(spec), num_classes=3, **MODELS[family])
    summary = torchinfo.summary(model, input_size=(2, 3, 40, 32), verbose=0, device="cpu")
    assert summary.total_params == sum(parameter.numel() for parameter in model.parameters())


def test_hooks_of_torchinfo_alone_are_taken_off() -> None:
    model, calls = randomize(timm.create_model("none_vit_ti", pos_encoding="cpb", **MODELS["none_vit_ti"])), []
    mlp = model.pos_encoding.cpb.mlp[1][0]

    def theirs(*_: object) -> None:
        calls.append("torchinfo")

    def ours(*_: object) -> None:
        calls.append("other")

    theirs.__module__ = "torchinfo.torchinfo"
    for module in (model.pos_encoding.cpb, mlp):
        for hook in (theirs, ours):
            module.register_forward_pre_hook(hook)
            module.register_forward_hook(hook)
    model(torch.randn(1, 3, 32, 32))
    assert calls
    assert set(calls) == {"other"}
