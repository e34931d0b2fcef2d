"""Adapted MaxViTs, MaxxViTs and CoAtNets are timm's."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from adapted_models import check_files, check_parity, check_sizes, difference, images, mostly_long, original
from adapted_pyramids import check_compiled, check_exported, check_pyramid

import visionpe

TINY = {"embed_dim": (16, 32), "stem_width": 16, "transformer_dim_head": 8, "depths": (1, 2)}
WINDOWS = {**TINY, "block_type": ("M", "M"), "img_size": (64, 96), "transformer_partition_ratio": 16}
WHOLE = {**TINY, "embed_dim": (16, 32, 64), "depths": (1, 2, 1), "block_type": ("C", "T", "T"), "img_size": (64, 96)}
# name: keywords that make it small
CASES: dict[str, dict[str, Any]] = {
    "maxvit_tiny_tf_224": WINDOWS,
    "maxvit_nano_rw_256": WINDOWS,
    "maxvit_rmlp_pico_rw_256": {**WINDOWS, "transformer_window_size": (4, 4), "transformer_grid_size": (2, 4)},
    "maxvit_tiny_pm_256": {**WINDOWS, "block_type": ("PM", "PM")},
    "maxxvit_rmlp_nano_rw_256": WINDOWS,
    "maxxvitv2_nano_rw_256": WINDOWS,
    "maxvit_tiny_rw_224": {**WINDOWS, "transformer_use_nchw_attn": True},
    "coatnet_nano_rw_224": WHOLE,
    "coatnet_bn_0_rw_224": WHOLE,
    "coatnet_rmlp_nano_rw_224": WHOLE,
    "coatnet_nano_cc_224": WHOLE,
    "coatnext_nano_rw_224": WHOLE,
    "coatnet_0_224": WHOLE,
}


# One of every kind of block, of attention and of positions; of the others, what differs.
ALL_OF_IT = (
    "maxvit_tiny_tf_224",
    "maxvit_tiny_pm_256",
    "maxxvitv2_nano_rw_256",
    "maxvit_tiny_rw_224",
    "coatnet_rmlp_nano_rw_224",
    "coatnet_0_224",
)


@pytest.mark.parametrize("name", mostly_long(CASES, "maxvit_tiny_tf_224", "maxvit_rmlp_pico_rw_256", "coatnet_0_224"))
def test_pyramid(name: str) -> None:
    if name in ALL_OF_IT:
        check_pyramid(name, CASES[name], policy="clamp")
        return
    model = original(name, CASES[name])
    check_parity(model, visionpe.adapt(model), (64, 96), tolerance=2e-6)
    check_sizes(visionpe.adapt(model), [(64, 96), (37, 51), (8, 100)])
    check_files(name, CASES[name], (64, 96))


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("max")])
def test_other_sizes_are_those_of_timm(name: str) -> None:
    """Where windows and grids divide the maps: timm takes no others."""
    model = original(name, CASES[name])
    adapted = visionpe.adapt(model)
    for size in ((128, 96), (64, 288), (192, 192)):
        assert difference(model, adapted, size) <= 2e-6


@pytest.mark.parametrize("name", mostly_long(CASES, "maxvit_tiny_tf_224", "maxvit_rmlp_pico_rw_256", "coatnet_0_224"))
def test_set_input_size_is_that_of_timm(name: str) -> None:
    """Windows follow the nominal size and tables are resized, here by their policy."""
    model = original(name, CASES[name])
    adapted = visionpe.adapt(model)
    for each in (model, adapted):
        each.set_input_size((96, 128))
    adapted.load_state_dict(model.state_dict())
    assert difference(model, adapted, (96, 128)) <= 2e-6


def test_padding_is_seen_by_nobody() -> None:
    """A map smaller than a window and a grid is as if both were smaller, with the middle of their tables."""
    name = "maxvit_nano_rw_256"
    model = original(name, {**WINDOWS, "img_size": 64})
    small = original(name, {**WINDOWS, "img_size": 64})
    small.load_state_dict(model.state_dict())
    for block in (block for stage in small.stages for block in stage.blocks):
        for part in (block.attn_block, block.attn_grid):
            table = part.attn.rel_pos.relative_position_bias_table.detach().view(7, 7, -1)
            part.set_partition_size((3, 4))
            part.attn.rel_pos.relative_position_bias_table.data = table[1:6].flatten(0, 1)
    adapted, x = visionpe.adapt(model), images((12, 16))
    with torch.inference_mode():  # the first map is 3 x 4, and its windows are 4 x 4
        theirs = small.stages[0](small.stem(x))
        torch.testing.assert_close(adapted.stages[0](adapted.stem(x)), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["maxvit_nano_rw_256", "coatnet_nano_rw_224"])
def test_positions_are_added_once(name: str) -> None:
    """To the tokens that the first attention sees, and in no other stage."""
    adapted = visionpe.adapt(original(name, CASES[name]), pos_encoding="ape")
    tables = {key: tuple(value.shape) for key, value in adapted.state_dict().items() if "ape" in key}
    wanted = (0, (16, 24, 16)) if name.startswith("max") else (1, (16, 24, 16))
    assert tables == {f"stages.{wanted[0]}.pos_encoding.map.ape.table": wanted[1]}
    before = adapted(images((64, 96)))
    torch.nn.init.normal_(adapted.get_parameter(next(iter(tables))))
    assert (adapted(images((64, 96))) - before).abs().max() > 1e-3


def test_refusals() -> None:
    model = original("coatnet_nano_rw_224", WHOLE)
    with pytest.raises(
        ValueError, match=r"pos_encoding='lape\(ape\)' acts on the input of every attention, whose width"
    ):
        visionpe.adapt(model, pos_encoding="lape")
    with pytest.raises(ValueError, match="no block has attention; allowed: MaxViT"):
        visionpe.adapt(timm.create_model("coatnet_nano_rw_224", **{**WHOLE, "block_type": ("C", "C", "C")}))


@pytest.mark.long
@pytest.mark.parametrize(("name", "block"), [("maxvit_rmlp_pico_rw_256", "M"), ("coatnet_nano_rw_224", "T")])
def test_compile_and_export(name: str, block: str) -> None:
    one = {**CASES[name], "embed_dim": (16,), "depths": (1,), "block_type": (block,)}
    adapted = visionpe.adapt(original(name, one))
    check_compiled(adapted, [(64, 96), (37, 51)])
    check_exported(adapted, [(72, 104), (64, 96), (37, 110), (128, 32)])
