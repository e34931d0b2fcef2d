"""Weights that are on the device only while their module runs: offloading as other libraries do it, by hooks."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from conftest import ENCODINGS, randomize, tiny_spec
from torch import nn

PLAIN = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 3}
STAGES = {"img_size": 32, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "num_classes": 3}
LINES = STAGES | {"embed_dim": (16, 16), "mlp_ratio": 2.0, "decomposed": (True, False), "decay_range": 4.0}
MODELS = {"vit_ti": PLAIN, "vitdet_b": PLAIN | {"window_size": 3}, "rmt_t": LINES}
MODELS |= dict.fromkeys(("swin_t", "cswin_t", "crossformer_t", "cpvt_v2_s", "mit_b0", "cvt_13"), STAGES)
SPECS = [*ENCODINGS, "dropped(ape)", "randomised(rope_mixed)", "cropped(lape(ape))", {"name": "irpe", "on": "qkv"}]
CASES = [
    *(("vit_ti", spec) for spec in SPECS),
    *(
        (family, spec)
        for family in ("vitdet_b", "swin_t", "cswin_t", "rmt_t", "crossformer_t")
        for spec in ("ape", "lepe", "cpb", "lape", "cpe")
    ),
    *((family, spec) for family in ("cpvt_v2_s", "mit_b0", "cvt_13") for spec in ("ape", "cpb", "lape", "cpe")),
]


def offload(model: nn.Module) -> None:
    """Before a module runs its own parameters come, and afterwards they are without content again."""
    for module in model.modules():
        own = {name: p.detach() for name, p in module.named_parameters(recurse=False)}
        if not own:
            continue

        def put(module: nn.Module, values: dict[str, torch.Tensor]) -> None:
            for name, value in values.items():
                module._parameters[name] = nn.Parameter(value, requires_grad=False)

        empty = {name: value.to("meta") for name, value in own.items()}
        put(module, empty)
        module.register_forward_pre_hook(lambda module, args, own=own, put=put: put(module, own))
        module.register_forward_hook(lambda module, args, out, empty=empty, put=put: put(module, empty))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("family", "spec"), CASES, ids=str)
@torch.no_grad()
def test_offloaded(family: str, spec: Any, dtype: torch.dtype) -> None:
    model = randomize(timm.create_model(f"none_{family}", pos_encoding=tiny_spec(spec), **MODELS[family])).to(dtype)
    inputs = [torch.randn(2, 3, *size, dtype=dtype) for size in ((32, 32), (40, 64), (8, 32))]
    wanted = [model(x) for x in inputs]
    offload(model)
    for x, y in zip(inputs, wanted):
        torch.testing.assert_close(model(x), y)


@pytest.mark.parametrize("spec", ["lepe", "cpe"])
@pytest.mark.parametrize("policy", ["interpolate", "native"])
@torch.no_grad()
def test_offloaded_with_a_policy(spec: str, policy: str) -> None:
    model = randomize(timm.create_model("none_vit_ti", pos_encoding=spec, policy=policy, **PLAIN))
    x = torch.randn(2, 3, 48, 64)
    wanted = model(x)
    offload(model)
    torch.testing.assert_close(model(x), wanted)
