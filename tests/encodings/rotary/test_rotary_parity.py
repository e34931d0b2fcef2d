"""Rotated queries and keys against timm's own rotary modules: a wrong layout changes no key of a file."""

from __future__ import annotations

from typing import Any

import pytest
import timm.models.eva
import torch
from timm.layers import RotAttentionPool2d, apply_rot_embed_cat, create_rope_embed
from timm.models.deepseek_vit import DeepseekVitEncoder
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from timm.models.qwen3_vit import Qwen3VitEncoder
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

from visionpe import Grid, create_encoding
from visionpe.backbones.adapt.rotary import RotarySpec, rotary_spec

HEADS, HEAD_DIM, DEPTH = 2, 24, 2
TRAINED, SIZES = (7, 5), ((7, 5), (9, 13), (3, 30))


def build(said: RotarySpec) -> nn.Module:
    spec = {**said.spec, "policy": said.policy}
    encoding = create_encoding(spec, dim=HEADS * HEAD_DIM, num_heads=HEADS, depth=DEPTH, grid_size=said.grid_size)
    assert encoding.load_state_dict(said.tensors, strict=True)
    return encoding.eval()


def check_equal(theirs: nn.Module, said: RotarySpec, half: bool, atol: float = 1e-6) -> None:
    """At every size, and in every block."""
    ours, theirs = build(said), theirs.eval()
    for size in SIZES:
        grid = Grid(size, 1)
        q, k = 2 * torch.rand(2, 1, HEADS, grid.num_tokens, HEAD_DIM) - 1
        if getattr(theirs, "feat_shape", None) is not None:
            theirs.update_feat_shape(list(size))
            embed = theirs.get_embed()
        else:
            embed = theirs.get_embed(list(size))
        embed = torch.cat(embed, dim=-1) if isinstance(embed, tuple) else embed
        for layer, table in enumerate(embed if embed.ndim == 4 else [embed]):
            for got, x in zip(ours.rotate(q, k, grid, layer=layer), (q, k)):
                assert torch.equal(got[:, :, :1], x[:, :, :1])
                wanted = apply_rot_embed_cat(x[:, :, 1:], table, half=half)
                torch.testing.assert_close(got[:, :, 1:], wanted, atol=atol, rtol=0)


def theirs_of(rope_type: str, **options: Any) -> nn.Module:
    more = {"mixed": {"depth": DEPTH}, "cat": {"in_pixels": False}, "base": {"in_pixels": False}}.get(rope_type, {})
    return create_rope_embed(rope_type, dim=HEADS * HEAD_DIM, num_heads=HEADS, **more, **options)


@pytest.mark.parametrize("built_for", [None, TRAINED])
@pytest.mark.parametrize("indexing", ["ij", "xy"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("options", [{}, {"grid_offset": 1.0}, {"ref_feat_shape": (4, 6), "grid_offset": 0.5}])
@pytest.mark.parametrize("rope_type", ["cat", "base"])
def test_axial(rope_type: str, options: dict[str, Any], half: bool, indexing: str, built_for: Any) -> None:
    place = {"feat_shape": built_for, "grid_indexing": indexing, "rotate_half": half}
    theirs = theirs_of(rope_type, temperature=100.0, **options, **place)
    check_equal(theirs, rotary_spec(theirs, rotate_half=half, grid_size=None if built_for else TRAINED), half)


@pytest.mark.parametrize("built_for", [None, TRAINED])
@pytest.mark.parametrize("indexing", ["ij", "xy"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_dinov3(offset: float, half: bool, indexing: str, built_for: Any) -> None:
    place = {"feat_shape": built_for, "grid_indexing": indexing, "rotate_half": half}
    theirs = theirs_of("dinov3", temperature=90.0, grid_offset=offset, **place)
    said = rotary_spec(theirs, rotate_half=half, grid_size=None if built_for else TRAINED)
    check_equal(theirs, said, half, atol=2e-6 if offset else 1e-6)  # coordinates beyond 1 make larger angles


@pytest.mark.parametrize("normalize", ["max", "min"])
@pytest.mark.parametrize("periods", [{}, {"min_period": 0.5, "max_period": 30.0}])
def test_dinov3_periods(periods: dict[str, float], normalize: str) -> None:
    theirs = theirs_of("dinov3", normalize_coords=normalize, **periods)
    # Coordinates up to 10 at a period of 0.5 are 20 turns, of which float32 has the last 1e-5.
    check_equal(theirs, rotary_spec(theirs, rotate_half=True, grid_size=TRAINED), True, atol=2e-5)


@pytest.mark.parametrize("built_for", [None, TRAINED])
@pytest.mark.parametrize("indexing", ["ij", "xy"])
def test_mixed(indexing: str, built_for: Any) -> None:
    theirs = theirs_of("mixed", feat_shape=built_for, grid_indexing=indexing)
    # timm rounds the sum of two angles, at 37 tokens by 2e-6.
    check_equal(theirs, rotary_spec(theirs, rotate_half=False, grid_size=TRAINED), False, atol=5e-6)


@pytest.mark.parametrize("sections", [(8, 12, 12), (4, 4, 4), (0, 2, 5), (12, 0, 0)])
def test_mrope(sections: tuple[int, int, int]) -> None:
    theirs = theirs_of("mrope", mrope_section=sections)
    check_equal(theirs, rotary_spec(theirs, rotate_half=True, grid_size=TRAINED), True)


def recorded_ropes(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """How `eva.py` builds the rotary module of each of its architectures: type, options, layout of the attention."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        timm.models.eva, "build_model_with_cfg", lambda cls, name, *a, **options: given.update({name: options})
    )
    for name in timm.list_models(module="eva"):
        timm.models.model_entrypoint(name)()
    ropes: dict[str, Any] = {}

    def record(rope_type: str, **options: Any) -> nn.Module:
        ropes[name] = (rope_type, options)
        return create_rope_embed(rope_type, **options)

    monkeypatch.setattr(timm.models.eva, "create_rope_embed", record)
    for name, options in given.items():
        kept = {
            k: v for k, v in options.items() if k not in ("pretrained_filter_fn", "feature_cfg", "pretrained_strict")
        }
        kv_heads = kept.get("num_kv_heads")
        kept |= {"num_kv_heads": kv_heads[:1]} if isinstance(kv_heads, tuple) else {}
        model = timm.models.eva.Eva(**{**kept, "depth": 1}, device="meta")
        if name in ropes:
            ropes[name] = (*ropes[name], model.blocks[0].attn.rotate_half)
    return ropes


def test_every_way_in_which_eva_builds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ropes = recorded_ropes(monkeypatch)
    assert len(ropes) >= 60
    seen = set()
    for rope_type, options, half in ropes.values():
        options = {**options, "dim": HEADS * HEAD_DIM, "num_heads": HEADS, "device": None}
        options |= {"depth": DEPTH} if rope_type == "mixed" else {}
        if (key := str((rope_type, options))) not in seen:
            seen.add(key)
            theirs = create_rope_embed(rope_type, **options)
            said = rotary_spec(theirs, rotate_half=half, grid_size=theirs.feat_shape or TRAINED)
            check_equal(theirs, said, half, atol=5e-6 if rope_type == "mixed" else 1e-6)
    assert len(seen) >= 14


def qwen() -> list[tuple[nn.Module, nn.Module]]:
    model = Qwen3VitEncoder(img_size=64, embed_dim=48, depth=1, num_heads=2, out_features=8)
    return [(model.rope, model.blocks[0].attn)]


def deepseek() -> list[tuple[nn.Module, nn.Module]]:
    model = DeepseekVitEncoder(img_size=42, embed_dim=48, depth=1, num_heads=2, out_features=8)
    return [(model.rope, model.blocks[0].attn)]


def sam() -> list[tuple[nn.Module, nn.Module]]:
    place = {"window_size": 3, "global_attn_indexes": (1,), "ref_feat_shape": ((6, 6), (4, 4))}
    model = VisionTransformerSAM(112, embed_dim=48, depth=2, num_heads=2, neck_chans=8, use_rope=True, **place)
    return [(block.attn.rope, block.attn) for block in model.blocks]


def naflex(**options: Any) -> list[tuple[nn.Module, nn.Module]]:
    cfg = NaFlexVitCfg(embed_dim=48, depth=DEPTH, num_heads=2, pos_embed="none", attn_type="rope", **options)
    model = NaFlexVit(cfg)
    return [(model.rope, model.blocks[0].attn)]


def pool(rope_type: str) -> list[tuple[nn.Module, nn.Module]]:
    layer = RotAttentionPool2d(48, num_heads=2, head_dim=24, ref_feat_size=(4, 6), rope_type=rope_type)
    return [(layer.pos_embed, layer)]


MODELS = {
    "qwen3_vit": qwen,
    "deepseek_vit": deepseek,
    "vision_transformer_sam": sam,
    "naflex axial": lambda: naflex(rope_type="axial", rope_ref_feat_shape=(4, 6), rope_grid_offset=1.0),
    "naflex xy": lambda: naflex(rope_type="axial", rope_grid_indexing="xy", rope_rotate_half=True),
    "naflex mixed": lambda: naflex(rope_type="mixed"),
    "naflex dinov3": lambda: naflex(rope_type="dinov3", rope_rotate_half=True),
    "naflex mrope": lambda: naflex(rope_type="mrope", rope_mrope_section=(4, 4, 4)),
    **{f"RotAttentionPool2d {kind}": lambda kind=kind: pool(kind) for kind in ("base", "cat", "dinov3", "mrope")},
}


@pytest.mark.parametrize("name", MODELS)
def test_wherever_else_timm_builds_them(name: str) -> None:
    """The attention says how it turns pairs; what does not say so turns adjacent ones."""
    for theirs, attention in MODELS[name]():
        half = vars(attention).get("rotate_half", False)
        said = rotary_spec(theirs, rotate_half=half, grid_size=TRAINED)
        check_equal(theirs, said, half, atol=5e-6 if "mixed" in name else 1e-6)
