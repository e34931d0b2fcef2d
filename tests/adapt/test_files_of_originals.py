"""Files of the original load into a model whose encoding was exchanged; what the file knows nothing of stays."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from adapted_models import original
from safetensors.torch import save_file

import visionpe

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 2, "img_size": 32, "patch_size": 8}
CASES = [
    ("vit_small_patch16_224", SMALL, "fire", [".fire."]),
    ("vit_small_patch16_224", SMALL, "+fire", [".fire."]),
    ("vit_small_patch16_224", SMALL, "shaw+kerple", [".shaw.", ".kerple."]),
    ("vit_relpos_small_patch16_224", SMALL, "rope_mixed", [".rope_mixed."]),
    ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": (1, 1, 2, 1), "img_size": 64}, "fire", [".fire."]),
    ("levit_128s", {"img_size": 64}, "fire", [".fire."]),
]


@pytest.mark.parametrize(("name", "keywords", "pos_encoding", "kept"), CASES)
def test_strictly(name: str, keywords: dict[str, Any], pos_encoding: str, kept: list[str]) -> None:
    first, other = original(name, keywords), original(name, keywords, seed=1)
    expected = visionpe.adapt(other, pos_encoding=pos_encoding)
    model = visionpe.adapt(first, pos_encoding=pos_encoding)
    own = {key: value.clone() for key, value in model.state_dict().items() if any(part in key for part in kept)}
    assert own
    model.load_state_dict(other.state_dict())
    after = model.state_dict()
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(after[key], own.get(key, value), rtol=0, atol=0, msg=key)


def test_a_checkpoint_of_the_original(tmp_path: Any) -> None:
    """By the names of our own too, as the distillation loads it."""
    keywords = {**SMALL, "num_classes": 0}
    source = timm.create_model("vit_small_patch14_dinov2", **keywords)
    save_file({key: value.contiguous() for key, value in source.state_dict().items()}, tmp_path / "model.safetensors")
    model = timm.create_model(
        "dinov2_vit_s", pos_encoding="fire", checkpoint_path=str(tmp_path / "model.safetensors"), **keywords
    )
    torch.testing.assert_close(model.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)


def test_what_the_file_should_have_is_missed() -> None:
    model = visionpe.adapt(original("vit_small_patch16_224", SMALL), pos_encoding="+fire")
    whole = model.state_dict()
    state = {key: value for key, value in whole.items() if ".fire." not in key}  # in our layout, and cut off
    with pytest.raises(RuntimeError, match="fire"):
        model.load_state_dict(state)
