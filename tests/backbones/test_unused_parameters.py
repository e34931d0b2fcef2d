"""Every parameter has a gradient, in models cut down to their features too: DDP waits for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import randomize, tiny_spec
from safetensors.torch import save_file

PLAIN = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
STAGES = {"img_size": 32, "embed_dim": 16, "depths": (1, 2, 1), "num_heads": (2, 2, 2)}
LINES = STAGES | {"embed_dim": (16, 16, 16), "mlp_ratio": 2.0, "decomposed": (True, False, True), "decay_range": 4.0}
WINDOWED = PLAIN | {"window_size": 3}
MODELS = {
    "vit_ti": PLAIN,
    "vitdet_b": WINDOWED,
    "vitdet_b late": WINDOWED | {"global_blocks": (2, 3)},
    "swin_t": STAGES | {"feature_norms": True},
    "cswin_t": STAGES | {"feature_norms": True},
    "crossformer_t": STAGES,
    "rmt_t": LINES | {"feature_norms": True},
}
PER_BLOCK = ["cpb", "dpb", "fire", "lape", "lepe", "decomposed", "dropped(lape)", "randomised(fire)"]
PER_BLOCK += [{"name": "cpe", "layers": (1, 0)}, {"name": "seqpe", "site": "qk_mul"}]
CASES = [
    *((family, spec) for family in ("vit_ti", "vitdet_b", "vitdet_b late") for spec in PER_BLOCK),
    *(
        (family, spec)
        for family in ("swin_t", "cswin_t", "crossformer_t", "rmt_t")
        for spec in ("lepe", "dropped(lape)", "cropped(ape)")
    ),
]
# Files of whole models: all in the ViT, in its windowed kin what stands by block and what wraps; the rest waits.
OFTEN = [
    case if case[0] in ("vit_ti", "swin_t", "cswin_t", "rmt_t") or case[1] in ("cpb", "lepe", "dropped(lape)")
    else pytest.param(*case, marks=pytest.mark.long)
    for case in CASES
]  # fmt: skip


def create(family: str, spec: Any, **more: Any) -> Any:
    name, options = family.split(" ")[0], MODELS[family]
    return timm.create_model(f"none_{name}", pos_encoding=tiny_spec(spec), **{**options, **more})


def idle(model: torch.nn.Module) -> list[str]:
    """Parameters without a gradient."""
    out = model.train()(torch.randn(2, 3, 32, 32))
    sum(y.square().mean() for y in (out if isinstance(out, list) else [out])).backward()
    return [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize(("family", "spec"), CASES, ids=str)
def test_features(family: str, spec: Any) -> None:
    for indices in ((0,), (1,), (0, 2), (2, 1)):
        assert not idle(create(family, spec, features_only=True, out_indices=indices))


@pytest.mark.parametrize("name", ["lape", "seqpe"])
@pytest.mark.parametrize("family", ["vit_ti", "swin_t"])
def test_no_entries_of_prefix_tokens_that_there_are_none_of(name: str, family: str) -> None:
    more: dict = {"class_token": False, "global_pool": "avg"} if family == "vit_ti" else {"feature_norms": False}
    assert not idle(create(family, {"name": name, "prefix_slots": 2}, num_classes=3, **more))


@pytest.mark.parametrize(("family", "spec"), OFTEN, ids=str)
@torch.no_grad()
def test_files_of_whole_models(family: str, spec: Any, tmp_path: Path) -> None:
    """They load on creation, and into what was cut down before; what is saved of that comes back as it was."""
    whole = randomize(create(family, spec, num_classes=3))
    file, x = tmp_path / "whole.safetensors", torch.randn(1, 3, 32, 32)
    save_file({key: value.clone() for key, value in whole.state_dict().items()}, file)
    for indices in ((0,), (0, 2)):
        wanted = whole.forward_intermediates(x, list(indices), intermediates_only=True)
        features = {"features_only": True, "out_indices": indices}
        created = create(family, spec, checkpoint_path=file, **features).eval()
        loaded = create(family, spec, **features).eval()
        loaded.load_state_dict(whole.state_dict())
        timm.models.save_for_hf(loaded, tmp_path / "saved", safe_serialization=True)
        again = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
        for model in (created, loaded, again):
            for ours, theirs in zip(model(x), wanted, strict=True):
                torch.testing.assert_close(ours, theirs)
            assert model.state_dict().keys() < {f"model.{key}" for key in whole.state_dict()}


def test_features_whose_norm_is_gone() -> None:
    model = create("cswin_t", "lepe", num_classes=3)
    model.prune_intermediate_layers([0, 2])
    x = torch.randn(1, 3, 32, 32)
    assert len(model.forward_intermediates(x, [0, 2], intermediates_only=True)) == 2
    with pytest.raises(ValueError, match="the norm of stage 1 was dropped"):
        model.forward_intermediates(x, [1])


def test_a_refusal_names_what_a_file_lacks_still() -> None:
    model = create("vit_ti", "cpb", features_only=True, out_indices=(1,))
    state = create("vit_ti", "cpb", num_classes=3).state_dict()
    del state["pos_encoding.cpb.mlp.1.0.weight"]
    with pytest.raises(RuntimeError, match=r"missing from the file: pos_encoding\.cpb\.mlp\.1\.0\.weight"):
        model.load_state_dict(state)
