"""Adapted LeViTs are timm's."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from adapted_models import check_files, check_parity, check_sizes, check_swaps, difference, images, original
from adapted_pyramids import (
    check_compiled,
    check_copies,
    check_exported,
    check_features,
    check_methods,
    check_precision,
    check_training,
)
from timm.models import group_parameters

import visionpe

# Maps of 7 x 7, 4 x 4 and 2 x 2 tokens: of odd sides every second token is one more than half.
SMALL: dict[str, Any] = {
    "embed_dim": (32, 48, 64),
    "key_dim": 8,
    "num_heads": (2, 3, 4),
    "depth": (2, 1, 1),
    "img_size": 112,
}
CASES: dict[str, dict[str, Any]] = {
    "levit_128s": SMALL,  # distilled
    "levit_conv_128s": SMALL,
    "levit_512": {**SMALL, "img_size": (96, 176), "attn_ratio": (2, 1, 3)},
    "levit_conv_512_s8": {**SMALL, "img_size": (40, 72)},
}
BOTH = ["levit_128s", "levit_conv_128s"]
SIZES = [(112, 112), (150, 90), (20, 12), (8, 100), (320, 480)]


@pytest.mark.parametrize("name", CASES)
def test_parity(name: str) -> None:
    keywords = CASES[name]
    model, size = original(name, keywords), keywords["img_size"]
    size = size if isinstance(size, tuple) else (size, size)
    adapted = visionpe.adapt(model)
    check_parity(model, adapted, size)
    check_sizes(adapted, [size, *SIZES[1:]])
    check_files(name, keywords, size)
    check_copies(adapted, [size, SIZES[1]])


@pytest.mark.parametrize("name", BOTH)
def test_what_timm_does_with_models(name: str) -> None:
    model = original(name, CASES[name])
    adapted = visionpe.adapt(model)
    check_methods(adapted, SIZES[0])
    check_features(name, CASES[name], SIZES[:2])
    check_training(adapted, SIZES[1])
    check_precision(model, adapted, SIZES[0])
    frozen = visionpe.adapt(model.requires_grad_(False))
    assert not [n for n, p in frozen.named_parameters() if p.requires_grad]


def test_positions_belong_to_their_stage() -> None:
    adapted = visionpe.adapt(original("levit_128s", SMALL))
    groups = group_parameters(adapted, adapted.group_matcher(), reverse=True)
    for stage in (1, 2):
        first = groups[f"stages.{stage}.downsample.attn_downsample.kv.linear.weight"]
        assert groups[f"pos_encoding.{stage}.inside.whole.attention_bias.table"] == first
    coarse = group_parameters(adapted, adapted.group_matcher(coarse=True), reverse=True)
    assert (
        coarse["pos_encoding.1.inside.entering.attention_bias.table"] == coarse["stages.1.blocks.0.mlp.ln1.bn.weight"]
    )
    adapted.init_weights()
    assert not any(p.any() for p in adapted.pos_encoding.parameters())


def test_both_classifiers() -> None:
    model = original("levit_128s", SMALL)
    adapted = visionpe.adapt(model)
    for each in (model, adapted):
        each.set_distilled_training()
        each.head.train()
        each.training = True  # of the model alone: norms keep what they have seen
    for theirs, own in zip(model(images(SIZES[0])), adapted(images(SIZES[0])), strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-4, rtol=1e-4)  # norms of the heads enlarge it
    adapted.reset_classifier(3)
    assert [head.linear.out_features for head in adapted.get_classifier()] == [3, 3]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("size", [(208, 144), (64, 48)])
@pytest.mark.parametrize("policy", ["bicubic", "bilinear_antialias", "clamp"])
def test_a_model_of_another_size_with_resized_tables(name: str, size: tuple[int, int], policy: str) -> None:
    """timm's own has one size. Built for another, with the tables as a policy resizes them, it says the same."""
    model = original(name, SMALL)
    adapted = visionpe.adapt(model, policy=policy)
    other = original(name, {**SMALL, "img_size": size})
    state = model.state_dict()
    for index, encoding in enumerate(deepcopy(adapted.pos_encoding)):
        for kind, group in encoding.inside.items():
            for block, attention in enumerate(other.stages[index].blocks) if kind == "whole" else [(0, None)]:
                key = (
                    f"stages.{index}.blocks.{block}.attn"
                    if attention is not None
                    else (f"stages.{index}.downsample.attn_downsample")
                )
                group.attention_bias.set_input_grid(other.get_submodule(key).resolution)
                state[f"{key}.attention_biases"] = group.attention_bias.table[block].flatten(1).detach()
    other.load_state_dict(state)
    assert difference(other, adapted, size) <= 1e-5
    file = visionpe.adapt(original(name, {**SMALL, "img_size": size}, seed=1), policy=policy)
    file.load_state_dict(model.state_dict())  # the tables are square there, and resized on loading
    assert difference(other, file, size) <= 1e-5


@pytest.mark.parametrize("name", BOTH)
def test_other_encodings(name: str) -> None:
    model = original(name, SMALL)
    check_swaps(model, [SIZES[0], SIZES[2]])
    for spec in ("cpb", "rope_mixed+ape", "decomposed", "cpe", "fire", "rpb"):
        assert visionpe.adapt(model, pos_encoding=spec)(images(SIZES[1])).isfinite().all()


def test_encodings_that_cannot_work() -> None:
    model = original("levit_128s", SMALL)
    with pytest.raises(ValueError, match=r"'lookhere'.* queries and keys to be the same tokens"):
        visionpe.adapt(model, pos_encoding="lookhere")
    with pytest.raises(ValueError, match=r"'lape\(ape\)' acts on the input of every attention"):
        visionpe.adapt(model, pos_encoding="lape(ape)")
    with pytest.raises(ValueError, match=r"rope_axial .*needs a multiple of 4"):
        visionpe.adapt(original("levit_128s", {**SMALL, "key_dim": 6}), pos_encoding="rope_axial")
    one = {**SMALL, "embed_dim": (32,), "num_heads": (2,), "depth": (2,)}
    with pytest.raises(ValueError, match="'lepe' acts on values, which are 16 channels wide a head"):
        visionpe.adapt(original("levit_128s", one), pos_encoding="lepe")
    # Without a block that shrinks the map, and with values as wide as keys, both can.
    narrow = original("levit_128s", {**one, "attn_ratio": 1})
    for spec in ("lepe", "lape(ape)"):
        assert visionpe.adapt(narrow, pos_encoding=spec)(images(SIZES[1])).isfinite().all()


def test_policies() -> None:
    adapted = visionpe.adapt(original("levit_128s", SMALL))
    for policy in visionpe.policies(adapted):
        asked = {"rescale": "rescale(0.7)"}.get(policy, policy)
        assert visionpe.set_policy(adapted, asked)(images(SIZES[1])).isfinite().all()


def test_bad_files_and_images() -> None:
    adapted = visionpe.adapt(original("levit_128s", SMALL))
    state = original("levit_128s", SMALL).state_dict()
    state["stages.1.blocks.0.attn.attention_biases"] = torch.zeros(3, 17)
    with pytest.raises(RuntimeError, match="attention_biases of 17 offsets is neither of a square map nor of 4 x 4"):
        adapted.load_state_dict(state)
    with pytest.raises(ValueError, match="images: shape"):
        adapted(torch.zeros(1, 4, 32, 32))
    with pytest.raises(ValueError, match="output_fmt='NLC' is unknown; allowed: NCHW"):
        adapted.forward_intermediates(images((32, 32)), output_fmt="NLC")


@pytest.mark.long
@pytest.mark.parametrize("name", BOTH)
def test_graphs(name: str) -> None:
    adapted = visionpe.adapt(original(name, {**SMALL, "embed_dim": (32, 48), "num_heads": (2, 3), "depth": (1, 1)}))
    check_compiled(adapted, SIZES[:1])
    check_exported(adapted, [(150, 90), (320, 480), (112, 112)])
