"""Names and layers as other libraries look for them: adapters by name, quantisation by the class of a layer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import ELSEWHERE, ENCODINGS, randomize, tiny_spec
from safetensors.torch import save_file
from torch import nn

PLAIN = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
STAGES = {"img_size": 32, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)}
LINES = STAGES | {"embed_dim": (16, 16), "mlp_ratio": 2.0, "decomposed": (True, False), "decay_range": 4.0}
MODELS = {
    "none_vit_ti": PLAIN,
    "none_vitdet_b": PLAIN | {"window_size": 3},
    "swin_t": STAGES,
    "cswin_t": STAGES,
    "crossformer_t": STAGES,
    "rmt_t": LINES,
}
# What users of timm name, each layer of which an adapter can stand beside.
TARGETS = ("qkv", "proj", "fc1", "fc2")
SPECS = {family: [*ELSEWHERE, "dropped(lepe)", "dropped(cpe)"] for family in MODELS}
SPECS["none_vit_ti"] = [*ENCODINGS, "dropped(lepe)", "dropped(cpe)"]


def create(family: str, spec: Any, **more: Any) -> Any:
    return timm.create_model(family, pos_encoding=tiny_spec(spec), **MODELS[family], **more)


@pytest.mark.parametrize(("family", "spec"), [(family, spec) for family in MODELS for spec in SPECS[family]])
def test_layers_by_name(family: str, spec: str) -> None:
    for name, module in create(family, spec).named_modules():
        if name.rpartition(".")[2] in TARGETS:
            assert isinstance(module, nn.Linear | nn.Conv2d), name
        if isinstance(module, nn.Linear):
            assert module.in_features > 1, name


def test_layers_by_name_among_voxels() -> None:
    model = timm.create_model("swin3d_s", embed_dims=(12, 12), depths=(1, 1), num_heads=(1, 1), window_size=(3, 3))
    for name, module in model.named_modules():
        assert name.rpartition(".")[2] not in TARGETS or isinstance(module, nn.Linear), name


@pytest.mark.parametrize("spec", ["lepe", "cpe", "dropped(cpe)", "lepe+ape"])
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("inside", ["", "backbone."])
@torch.no_grad()
def test_files_with_older_names(family: str, spec: str, inside: str, tmp_path: Path) -> None:
    model, x = randomize(create(family, spec, num_classes=3)), torch.randn(1, 3, 32, 32)
    state = {re.sub(r"\bconvs\.", "proj.", key): value.clone() for key, value in model.state_dict().items()}
    assert state.keys() != model.state_dict().keys()
    loaded = create(family, spec, num_classes=3).eval()
    loaded.load_state_dict(state)
    torch.testing.assert_close(loaded(x), model(x))
    if inside:  # as part of another model
        holder = nn.ModuleDict({"backbone": create(family, spec, num_classes=3)}).eval()
        holder.load_state_dict({inside + key: value for key, value in state.items()})
        torch.testing.assert_close(holder["backbone"](x), model(x))
    save_file(state, tmp_path / "older.safetensors")
    loaded = create(family, spec, num_classes=3, checkpoint_path=tmp_path / "older.safetensors").eval()
    torch.testing.assert_close(loaded(x), model(x))


def test_one_encoding_with_older_names() -> None:
    from visionpe import create_encoding

    lepe = create_encoding("lepe", dim=8, num_heads=2)
    lepe.load_state_dict({key.replace("convs.", "proj."): value for key, value in lepe.state_dict().items()})
    with pytest.warns(DeprecationWarning, match=r"lepe\.proj is convs now"):
        assert lepe.proj is lepe.convs
