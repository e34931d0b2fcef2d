"""The groups of CrossFormer: against attention among all tokens, in double precision, and as published."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import randomize, tiny_spec
from torch import Tensor

from visionpe.backbones import CrossFormer
from visionpe.backbones.crossformer.stage import published_groups

TINY: dict[str, Any] = dict(
    img_size=32, patch_size=(4, 8), embed_dim=16, depths=(3, 2), num_heads=(2, 4), group_size=3, mlp_ratio=1.0,
    num_classes=5,
)  # fmt: skip


def build(pos_encoding: object = "dpb", **kwargs: object) -> CrossFormer:
    model = CrossFormer(**{**TINY, "pos_encoding": tiny_spec(pos_encoding), **kwargs})
    return randomize(model)  # type: ignore[return-value]


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size)


def group_of(place: int, length: int, group: int, interval: int, centred: bool) -> tuple[int, int]:
    """Of a token along an axis: its group, and its place in it."""
    region = group * interval
    place += -length % region // 2 if centred else 0
    return place // region * interval + place % interval, place % region // interval


def plain_block(block: Any, network: Any, x: Tensor, group: Any, interval: int, centred: bool) -> Tensor:
    """A block as the papers write it, by attention among all tokens of a map ``(B, height, width, C)``."""
    height, width = x.shape[1:3]
    down, right = group if isinstance(group, tuple) else (group, group)
    places = [
        (group_of(row, height, down, interval, centred), group_of(column, width, right, interval, centred))
        for row in range(height)
        for column in range(width)
    ]
    groups = torch.tensor([(r[0], c[0]) for r, c in places])
    inside = torch.tensor([(r[1], c[1]) for r, c in places]).to(x.dtype)
    apart = (groups[:, None] != groups[None]).any(-1)
    bias = network(inside[:, None] - inside[None]).permute(2, 0, 1)  # (heads, N, N)
    heads = block.attn.num_heads
    qkv = block.attn.qkv(block.norm1(x).flatten(1, 2)).unflatten(-1, (3, heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    logits = (q @ k.mT * q.shape[-1] ** -0.5 + bias).masked_fill(apart, -torch.inf)
    attended = (logits.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
    x = x + block.attn.proj(attended)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


@pytest.mark.parametrize(
    ("size", "options", "groups", "intervals"),
    [
        ((32, 32), {}, ((3, 3, 3), (3, 3)), (2, 1)),
        ((44, 52), {"crs_interval": (3, 1), "pad_type": 1}, ((3, 3, 3), (3, 3)), (3, 1)),
        ((36, 60), {"group_size": (2, 4), "use_acl": True, "depths": (4, 2)}, ((2,) * 4, (4, 4)), (2, 1)),
        ((36, 36), {"group_size": ((2, 3, 4), 5)}, ((2, 3, 4), (5, 5)), (2, 1)),
        ((36, 20), {"adaptive_interval": True}, ((3, 3, 3), (3, 3)), (3, 1)),  # of 9 x 5 tokens, and of 5 x 3
        ((32, 16), {"group_size": 4}, ((4, 4, 4), (4, 4)), (1, 1)),  # as wide as the map
        ((32, 16), {"group_size": 4, "group_fit": "whole_map"}, (((8, 4),) * 3, ((4, 2),) * 2), (1, 1)),
    ],
)
def test_against_attention_among_all_tokens(size: Any, options: Any, groups: Any, intervals: Any) -> None:
    """In double precision: no padding, no windows, no cutting; the offset is that of places inside a group."""
    model, x = build(**options).double(), image(*size).double()
    centred = bool(options.get("pad_type"))
    with torch.no_grad():
        wanted = model.patch_embed.norm(
            torch.cat([conv(x) for conv in model.patch_embed.projs], dim=1).permute(0, 2, 3, 1)
        )
        for i, stage in enumerate(model.stages):
            if i:
                normed = stage.downsample.norm(wanted).permute(0, 3, 1, 2)
                normed = F.pad(normed, (0, normed.shape[3] % 2, 0, normed.shape[2] % 2))
                wanted = torch.cat([conv(normed) for conv in stage.downsample.reductions], dim=1).permute(0, 2, 3, 1)
            for j, block in enumerate(stage.blocks):
                kind, layer = stage.places[j]
                assert (kind.split("_")[0], layer) == (("short", "long")[j % 2], layer)
                network = stage.pos_encoding.inside[kind].dpb.mlp[layer]
                interval = intervals[i] if j % 2 else 1
                wanted = plain_block(block, network, wanted, groups[i][j], interval, centred)
                cools = bool(options.get("use_acl")) and j % 3 == 2 and j < len(stage.blocks) - 1
                assert hasattr(block, "ex_conv") == cools
                if cools:
                    wanted = block.ex_ln(block.ex_conv(wanted.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        ours = model.forward_intermediates(x, intermediates_only=True, output_fmt="NHWC")[-1]
    torch.testing.assert_close(ours, wanted, atol=1e-10, rtol=1e-10)


def test_unmasked_padding_takes_its_share() -> None:
    """A map of 8 x 8 in groups of 3: with ``no_mask`` it matters, and as zero tokens, not as zero keys."""
    weights, x = build("none").state_dict(), image(32, 32)
    outputs = []
    for options in ({}, {"no_mask": True}, {"no_mask": True, "pad_type": 1}):
        model = build("none", **options)
        model.load_state_dict(weights)
        assert model.stages[0].blocks[0].attn.padding == ("tokens" if options else "mask")
        with torch.no_grad():
            outputs.append(model(x))
    assert min((a - b).abs().max() for a, b in pairwise(outputs)) > 1e-4


def test_scale_width_and_cooling() -> None:
    """The factor of logits; the network on offsets as narrow as published; no cooling behind the last block."""
    model, x = build("none"), image(32, 32)
    scaled = build("none", qk_scale=8**-0.5)  # of the heads' 8 channels in the first stage, as in the second by default
    other = build("none", qk_scale=0.9)
    for each in (scaled, other):
        each.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(scaled(x), model(x))
        assert (other(x) - model(x)).abs().max() > 1e-4
    widths = [
        stage.pos_encoding.inside["short"].dpb.mlp[0][0].out_features
        for stage in build({"name": "dpb"}, embed_dim=40).stages
    ]
    assert widths == [40 // 16, 80 // 16]
    cooled = build(use_acl=True, depths=(7, 3)).stages
    assert [[hasattr(block, "ex_conv") for block in stage.blocks] for stage in cooled] == [
        [False, False, True, False, False, True, False],
        [False, False, False],
    ]


def test_groups() -> None:
    """Even blocks neighbours, odd ones apart; where groups differ, so do their kinds."""
    model = build(group_size=((2, 3, 2), 7), crs_interval=(4, 2))
    first, second = model.stages
    assert first.places == [("short_2", 0), ("long_3", 0), ("short_2", 1)]
    assert second.places == [("short", 0), ("long", 0)]
    ways = first.windows((8, 20))
    assert {kind: (each.window, each.interval) for kind, each in ways.items()} == {
        "short_2": ((2, 2), None),
        "long_3": ((3, 3), (4, 4)),
    }
    assert ways["long_3"].padded == (12, 24)
    assert {each.window for each in second.windows((4, 9)).values()} == {(7, 7)}
    assert second.windows((4, 9))["long"].interval is None
    model.set_group_fit("whole_map")
    assert {each.window for each in second.windows((4, 9)).values()} == {(4, 9)}
    assert build(no_mask=True).stages[1].windows((2, 9))["long"].window == (2, 3)


@pytest.mark.parametrize(
    ("group_type", "wanted"),
    [
        ("constant", [(4, 4), (4, 4), (14,) * 6, (7, 7)]),
        ("linear", [(4, 9), (7, 9), (6, 7, 8, 9, 10, 11), (6, 7)]),
        ("linear_div", [(4, 9), (7, 9), (6, 7, 7, 7, 7, 14), (7, 7)]),
        ("alter", [(4, 9), (7, 9), (6, 7, 7, 14, 7, 14), (7, 7)]),
        ("7_14", [(4, 4), (4, 4), (7, 7, 7, 7, 14, 14), (7, 7)]),
    ],
)
def test_progressive_groups(group_type: Any, wanted: Any) -> None:
    """As the official code computes them at 224 pixels for CrossFormer-S, with the groups of CrossFormer++."""
    assert published_groups(group_type, (4, 4, 14, 7), (2, 2, 6, 2), 56) == wanted
    options = dict(depths=(2, 2, 6, 2), num_heads=(1, 1, 1, 1), group_size=(4, 4, 14, 7), img_size=224)
    with torch.device("meta"):
        model = CrossFormer(**{**TINY, **options}, group_type=group_type)
    groups = [tuple(stage.groups[kind] for kind, _ in stage.places) for stage in model.stages]
    assert groups == wanted
