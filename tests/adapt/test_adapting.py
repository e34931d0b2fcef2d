"""What holds for adapting itself: what is refused, what is shared, what is saved and built again."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from adapted_models import difference, images, original
from torch import nn

import visionpe
from visionpe.backbones.adapt.adapted import Adapted

NAME = "vit_small_patch16_dinov3"
SMALL: dict[str, Any] = {"embed_dim": 96, "num_heads": 3, "depth": 2, "img_size": 64}
SIZES = [(64, 64), (96, 80)]


@pytest.fixture
def model() -> Any:
    return original(NAME, SMALL)


@pytest.fixture
def vit() -> Any:
    return original("vit_tiny_patch16_224", {**SMALL, "class_token": True})


def test_the_original_stays_as_it_is_and_shares_its_weights(vit: Any) -> None:
    before, keys = vit(images((64, 64))), list(vit.state_dict())
    adapted = visionpe.adapt(vit, policy="bicubic")
    assert type(vit).__name__ == "VisionTransformer"
    assert list(vit.state_dict()) == keys
    assert torch.equal(vit(images((64, 64))), before)
    own = {n for n, p in adapted.named_parameters() if id(p) not in {id(q) for q in vit.parameters()}}
    assert own == {"cls_token", "pos_encoding.ape.table"}
    with torch.no_grad():
        adapted.pos_encoding.ape.table.zero_()
    assert torch.equal(vit(images((64, 64))), before)
    assert set(adapted.state_dict()) - {"pos_encoding.ape.table"} == set(keys) - {"pos_embed"}


def test_what_is_added_and_what_takes_its_place(vit: Any) -> None:
    spelt = {
        None: ["ape"],
        "+alibi": ["ape", "alibi"],
        " + rope_mixed": ["ape", "rope_mixed"],
        "rope_axial+ape": ["rope_axial", "ape"],
        "none": ["none"],
    }
    for asked, names in spelt.items():
        adapted = visionpe.adapt(vit, pos_encoding=asked)
        assert list(adapted.pos_encoding) == names
    kept = visionpe.adapt(vit, pos_encoding="rope_axial+ape").pos_encoding.ape.table
    assert torch.equal(kept, visionpe.adapt(vit).pos_encoding.ape.table)  # under its name, with its weights
    with pytest.raises(ValueError, match="adds nothing"):
        visionpe.adapt(vit, pos_encoding="+")
    with pytest.raises(ValueError, match="did you mean alibi"):
        visionpe.adapt(vit, pos_encoding="+alibbi")
    with pytest.raises(ValueError, match=r"yarn.* applies to no encoding"):
        visionpe.adapt(vit, policy="yarn")


def test_what_is_refused(model: Any) -> None:
    quantised = copy.deepcopy(model)
    quantised.blocks[0].attn.qkv.weight = nn.Parameter(torch.zeros(288, 96, dtype=torch.int8), requires_grad=False)
    block = copy.deepcopy(model)
    block.blocks[1].compile()
    with torch.no_grad():
        traced = torch.jit.trace(original("vit_tiny_patch16_224", SMALL), images((64, 64)))
    refused: list[tuple[Any, str]] = [
        ("vit_tiny_patch16_224", "is no module"),
        (torch.compile(model), "is compiled"),
        (block, "blocks.1 is compiled"),
        (quantised, "blocks.0.attn.qkv is quantised"),
        (traced, "scripted or traced"),
        (visionpe.adapt(model), "adapted already"),
        (nn.DataParallel(model), "DataParallel, whose positions are not known; allowed: .*VisionTransformer"),
        (timm.create_model("rope_vit_ti"), "VisionTransformer of this package"),
        (timm.create_model("resnet18"), "ResNet, whose positions are not known"),
    ]
    for bad, message in refused:
        with pytest.raises(TypeError, match=message):
            visionpe.adapt(bad)
    model.blocks[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"model\.blocks\.0 has hooks"):
        visionpe.adapt(model)


@pytest.mark.parametrize("policy", [None, "yarn", "yarn+temperature"])
def test_saved_and_built_again(model: Any, policy: str | None, tmp_path: Path) -> None:
    adapted = visionpe.adapt(model, pos_encoding="+alibi", policy=policy)
    adapted.reset_classifier(7)
    timm.models.save_for_hf(adapted, tmp_path)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    for size in SIZES:
        assert difference(adapted, again, size) == 0
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True, out_indices=[0, 1])
    wanted = adapted.forward_intermediates(images(SIZES[1]), intermediates_only=True)
    for feature, other in zip(features.eval()(images(SIZES[1])), wanted, strict=True):
        torch.testing.assert_close(feature, other, atol=0, rtol=0)
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3).num_classes == 3


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(NAME, [0, 1]), (NAME, [0]), ("beit_base_patch16_224", [0]), ("vit_small_patch16_rope_mixed_224", [0])],
)
def test_adapted_features_are_saved_too(name: str, wanted: list[int], tmp_path: Path) -> None:
    """Those of the first blocks alone as well, though encodings may hold the numbers of all blocks in one."""
    features = visionpe.adapt(timm.create_model(name, features_only=True, out_indices=wanted, **SMALL)).eval()
    timm.models.save_for_hf(features, tmp_path)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True, out_indices=wanted).eval()
    for a, b in zip(features(images(SIZES[1])), again(images(SIZES[1])), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_by_name() -> None:
    adapted = timm.create_model("adapted", original="vit_tiny_patch16_224", policy="bicubic", **SMALL)
    assert isinstance(adapted, Adapted)
    assert visionpe.policies(adapted)[0] == "bicubic"
    with pytest.raises(ValueError, match="original=None"):
        timm.create_model("adapted")


def test_copies_checkpoints_and_sizes(vit: Any) -> None:
    adapted = visionpe.adapt(vit)
    for other in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        assert difference(adapted, other, SIZES[1]) == 0
    grads = []
    for checkpointed in (False, True):
        adapted.zero_grad()
        adapted.set_grad_checkpointing(checkpointed)
        adapted(images(SIZES[1])).square().sum().backward()
        grads.append(adapted.pos_encoding.ape.table.grad.clone())
    torch.testing.assert_close(*grads)
    larger = copy.deepcopy(adapted)
    larger.set_input_size(SIZES[1])
    assert larger.pos_encoding.ape.table.shape[:2] == (6, 5)
    assert difference(adapted, larger, SIZES[1]) <= 1e-6
    names = {n for n, _ in adapted.named_parameters()}
    assert adapted.no_weight_decay() & names == {"cls_token", "pos_encoding.ape.table"}
    groups = timm.models.group_parameters(adapted, adapted.group_matcher())
    assert names <= {n for members in groups.values() for n in members}
    assert "pos_encoding.ape.table" in groups[0]


def test_a_file_of_another_size_loads(vit: Any) -> None:
    other = original("vit_tiny_patch16_224", {**SMALL, "img_size": 96}, seed=1)
    adapted, target = visionpe.adapt(other), visionpe.adapt(vit)
    target.load_state_dict(other.state_dict())
    small = copy.deepcopy(adapted)
    small.set_input_size((64, 64))
    assert difference(small, target, (64, 64)) <= 1e-6


def test_frozen_positions_stay_frozen(vit: Any) -> None:
    vit.pos_embed.requires_grad_(False)
    adapted = visionpe.adapt(vit)
    assert [n for n, p in adapted.named_parameters() if not p.requires_grad] == ["pos_encoding.ape.table"]
    assert all(p.requires_grad for p in visionpe.adapt(vit, pos_encoding="rope_mixed").parameters())


def test_masks_and_patches_left_out(vit: Any) -> None:
    adapted = visionpe.adapt(vit)
    x, mask = images((64, 64)), torch.ones(17, 17, dtype=torch.bool).tril()
    torch.testing.assert_close(adapted(x, attn_mask=mask), vit(x, attn_mask=mask), atol=1e-5, rtol=0)
    torch.testing.assert_close(adapted(x, is_causal=True), vit(x, is_causal=True), atol=1e-5, rtol=0)
    dropping = visionpe.adapt(
        original("vit_tiny_patch16_224", {**SMALL, "patch_drop_rate": 0.5}), pos_encoding="+alibi"
    )
    assert dropping.train()(x).isfinite().all()
    with pytest.raises(ValueError, match="patch_drop_rate"):
        visionpe.adapt(original("vit_tiny_patch16_224", {**SMALL, "patch_drop_rate": 0.5}), pos_encoding="+cpe")


def test_compiled_whole_and_block_by_block_and_exported(model: Any) -> None:
    adapted = visionpe.adapt(model, pos_encoding="+rpb")
    with torch.inference_mode():
        wanted = [adapted(images(size)) for size in SIZES]
        whole = torch.compile(adapted, fullgraph=True, backend="eager")
        for size, other in zip(SIZES, wanted):
            torch.testing.assert_close(whole(images(size)), other, atol=1e-5, rtol=1e-5)
        torch._dynamo.reset()
        blocks = copy.deepcopy(adapted)
        counter = torch._dynamo.testing.CompileCounter()
        for block in blocks.blocks:
            block.compile(backend=counter, fullgraph=True)
        torch.testing.assert_close(blocks(images(SIZES[0])), wanted[0], atol=1e-5, rtol=1e-5)
        assert counter.frame_count == 1  # one graph for all blocks
    torch._dynamo.reset()


def test_no_graph_of_fx(vit: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"torch\.fx cannot trace AdaptedVisionTransformer"):
        torch.fx.symbolic_trace(visionpe.adapt(vit))
