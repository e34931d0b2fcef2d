"""Swin against the published outputs and timm's, at any size, with windows that keep or grow."""

from __future__ import annotations

import inspect
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import ELSEWHERE, randomize, tiny_spec
from reference_files import close, read
from safetensors.torch import save_file

from visionpe.backbones.shared.windows import Windows

TINY = dict(img_size=32, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(1, 2), window_size=4, num_classes=5)


def tiny_swin(pos_encoding: object = "rpb", **kwargs: object) -> torch.nn.Module:
    """Maps of 16 x 16 and 8 x 8 tokens in windows of 4 x 4, with random weights."""
    return randomize(timm.create_model("swin_t", pos_encoding=tiny_spec(pos_encoding), **{**TINY, **kwargs}))


def reference(name: str, run: str) -> tuple:
    state, inputs, outputs, metadata = read(name)
    kwargs = {k: metadata["kwargs"][k] for k in TINY} | {"mlp_ratio": metadata["kwargs"]["mlp_ratio"]}
    model = timm.create_model({"ropeswin_axial": "rope_axial_swin_t", "ropeswin_mixed": "rope_swin_t"}[name], **kwargs)
    model.load_state_dict(state)
    return model.eval(), inputs[run], {k.removeprefix(f"{run}."): v for k, v in outputs.items() if k.startswith(run)}


RUNS = [("ropeswin_axial", run) for run in ("native", "nonsquare", "largerwindow")]
RUNS += [("ropeswin_mixed", run) for run in ("native", "larger", "nonsquare")]


def changed(old: Any, **changes: Any) -> Any:
    """A copy with other arguments."""
    kept = {name: getattr(old, name) for name in inspect.signature(type(old)).parameters}
    return type(old)(**kept | changes)


@pytest.mark.parametrize(("name", "run"), RUNS)
@torch.no_grad()
def test_rope_swin_as_published(name: str, run: str) -> None:
    model, x, expected = reference(name, run)
    if run == "largerwindow":
        model.set_window_policy("grow")
    final, features = model.forward_intermediates(x, output_fmt="NHWC")
    close(model(x), expected["logits"])
    close(final.flatten(1, 2), expected["tokens"])
    for index, feature in enumerate(features):
        if f"stage{index}" in expected:
            close(feature.flatten(1, 2), expected[f"stage{index}"])


@pytest.mark.parametrize("size", [(224, 224), (224, 448)], ids=str)
@torch.no_grad()
def test_timm_swin(size: tuple, tmp_path: Path) -> None:
    theirs = randomize(timm.create_model("swin_tiny_patch4_window7_224", img_size=size))
    save_file(theirs.state_dict(), tmp_path / "swin.safetensors")
    ours = timm.create_model("swin_t", checkpoint_path=tmp_path / "swin.safetensors").eval()
    x = torch.randn(1, 3, *size)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_timm_odd_maps() -> None:
    """Stages of 14, 7 and 4 tokens: merging pads the odd one, the last is smaller than a window."""
    options = dict(img_size=28, patch_size=2, embed_dim=16, depths=(2, 2, 2), num_heads=(1, 2, 2), num_classes=5)
    theirs = randomize(timm.create_model("swin_tiny_patch4_window7_224", **options))
    ours = timm.create_model("swin_t", window_size=[7, 7, 4], **options).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pos_encoding", ELSEWHERE)
def test_any_size(pos_encoding: str) -> None:
    model = tiny_swin(pos_encoding, drop_path_rate=0.0)
    sizes = ((37, 50), (2, 23), (60, 20), (7, 5)) if pos_encoding in ("rpb", "rope_mixed", "lepe") else ((37, 50),)
    for size in sizes:
        x = torch.randn(1, 3, *size)
        logits = model(x)
        assert logits.shape == (1, 5)
        assert logits.isfinite().all()
        logits.sum().backward()
        shapes = [tuple(f.shape[1:]) for f in model.forward_intermediates(x, intermediates_only=True)]
        height, width = (-(-n // 2) for n in size)
        assert shapes == [(16, height, width), (32, -(-height // 2), -(-width // 2))]


@pytest.mark.parametrize("pos_encoding", ["rpb", "rope_mixed", "cpb", "lepe", "decomposed", "manhattan", "cpe", "irpe"])
@torch.no_grad()
def test_more_padding_changes_nothing(pos_encoding: str) -> None:
    model = tiny_swin(pos_encoding)
    x = torch.randn(2, 3, 38, 23)
    expected = model(x)
    for stage in model.stages:

        def cuts(size: tuple, device: torch.device, known: object = stage.partitions) -> list:
            wider = [
                [changed(c, windows=changed(c.windows, spare=(1, 2))) for c in cuts] for cuts in known(size, device)
            ]
            again = [[changed(c, mask=c.windows.mask(device)) for c in cuts] for cuts in wider]
            return [[changed(c, gather=c.gather and c.windows.gather(device)) for c in cuts] for cuts in again]

        stage.partitions = cuts
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


CUTS = [  # size of the map, fit, window, shift of odd blocks
    ((8, 8), "per_axis", (4, 4), (2, 2)),
    ((4, 8), "per_axis", (4, 4), (0, 2)),
    ((3, 8), "per_axis", (4, 4), (0, 2)),
    ((2, 3), "per_axis", (4, 4), (0, 0)),
    ((8, 9), "shorter_side", (4, 4), (2, 2)),
    ((5, 9), "shorter_side", (4, 4), (2, 2)),
    ((4, 8), "shorter_side", (4, 4), (0, 0)),
    ((8, 3), "shorter_side", (3, 3), (0, 0)),
]


@pytest.mark.parametrize(("size", "fit", "window", "shift"), CUTS)
def test_windows_on_small_maps(size: tuple, fit: str, window: tuple, shift: tuple) -> None:
    stage = tiny_swin(window_fit=fit).stages[0]
    assert stage.windows(size) == (Windows(size, window), Windows(size, window, shift))


def test_neighbours_stay_neighbours() -> None:
    """A convolution inside windows must not see the other edge of the map."""
    assert not tiny_swin("lepe").stages[0].windows((8, 8))[1].rolled
    assert tiny_swin("rpb").stages[0].windows((8, 8))[1].rolled


@pytest.mark.parametrize(
    ("size", "window"), [((24, 24), (6, 6)), ((16, 32), (4, 8)), ((18, 13), (5, 3)), ((1, 16), (1, 4))]
)
def test_windows_that_grow(size: tuple, window: tuple) -> None:
    model = tiny_swin()
    assert model.stages[0].window(size) == (4, 4)
    model.set_window_policy("grow")
    assert model.stages[0].window(size) == window
    assert tiny_swin(window_policy="grow").stages[0].window(size) == window


def test_a_grown_window_that_is_the_map_stays_whole() -> None:
    stage = tiny_swin(window_policy="grow", window_fit="shorter_side", img_size=8).stages[0]
    assert stage.windows((8, 4))[1] == Windows((8, 4), (8, 4))


@torch.no_grad()
def test_set_input_size() -> None:
    """Tables follow the nominal size; what the model computes stays, but for the interpolation done beforehand."""
    x = torch.randn(1, 3, 48, 64)
    for policy, side in (("keep", (7, 7)), ("grow", (11, 15))):
        model = tiny_swin("rpb+ape", window_policy=policy)
        expected = model(x)
        model.set_input_size(img_size=(48, 64))
        inside = model.stages[0].pos_encoding.inside["window"]
        assert inside["rpb"].table.shape[2:] == side
        assert model.stages[0].pos_encoding.map["ape"].table.shape[:2] == (24, 32)
        assert model.patch_embed.img_size == (48, 64)
        torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)
    model.set_input_size(window_size=(3, 6))
    assert model.stages[0].windows((24, 32))[0].window == (3, 6)
    model.set_input_size(patch_size=4)
    assert [info["reduction"] for info in model.feature_info] == [4, 8]
    assert model(x).shape == (1, 5)


def test_features() -> None:
    options = {k: v for k, v in TINY.items() if k != "num_classes"}
    model = timm.create_model("rope_swin_t", features_only=True, out_indices=(0, 1), feature_norms=True, **options)
    assert model.feature_info.channels() == [16, 32]
    assert model.feature_info.reduction() == [2, 4]
    features = model(torch.randn(2, 3, 33, 47))
    assert [tuple(f.shape) for f in features] == [(2, 16, 17, 24), (2, 32, 9, 12)]
    assert features[1].mean(1).abs().max() < 1e-5  # normed


def test_copies_and_checkpointing() -> None:
    model = tiny_swin("rope_mixed+rpb").train()
    for stage in model.stages:
        for block in stage.blocks:
            block.drop_path1, block.drop_path2 = torch.nn.Identity(), torch.nn.Identity()
    x = torch.randn(2, 3, 32, 40)
    expected = model(x)
    expected.sum().backward()
    for copy in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        copy.zero_grad()
        copy.set_grad_checkpointing()
        logits = copy(x)
        logits.sum().backward()
        torch.testing.assert_close(logits, expected)
        for ours, theirs in zip(copy.parameters(), model.parameters()):
            torch.testing.assert_close(ours.grad, theirs.grad)


def test_autocast() -> None:
    model, x = tiny_swin("rope_mixed+rpb"), torch.randn(1, 3, 30, 44)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x).float(), model.float()(x).float(), atol=0.2, rtol=0.1)


@pytest.mark.long
def test_compile() -> None:
    model, x = tiny_swin("rope_mixed+rpb", drop_path_rate=0.0, depths=(1, 2)), torch.randn(1, 3, 30, 44)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)
    compiled(x).sum().backward()
    assert model.stages[0].pos_encoding.inside["window"]["rpb"].table.grad.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pos_encoding", "depths"), [("rpb", (1, 2)), pytest.param("lepe", (2,), marks=pytest.mark.long)]
)
@torch.no_grad()
def test_export_serves_every_size(pos_encoding: str, depths: tuple) -> None:
    """Sides of one token are out of reach: torch takes these for constants."""
    model = tiny_swin(pos_encoding, depths=depths, num_heads=(1, 2)[: len(depths)])
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    exported = torch.export.export(model, (torch.randn(2, 3, 38, 44),), dynamic_shapes={"x": dynamic}).module()
    for batch, size in ((2, (38, 44)), (1, (32, 64)), (3, (6, 17)), (1, (8, 8))):
        x = torch.randn(batch, 3, *size)
        torch.testing.assert_close(exported(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"window_size": 0}, "window_size=0 must be a positive number"),
        ({"window_size": [4, 4, 4]}, r"one of these for each of the 2 stages"),
        ({"window_policy": "shrink"}, "window_policy='shrink' is unknown; allowed: keep, grow"),
        ({"window_fit": "both"}, "window_fit='both' is unknown; allowed: per_axis, shorter_side"),
        ({"num_heads": (2,)}, r"num_heads=\(2,\) must be 2 numbers"),
        ({"num_heads": (2, 5)}, "num_heads=5 of stage 1 must divide its width, 32"),
    ],
)
def test_refusals(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_swin(**kwargs)


@torch.no_grad()
def test_heads_of_one_channel() -> None:
    """Attention leaves them in another order of memory."""
    model = timm.create_model("swin_t", embed_dim=2, depths=(2,), num_heads=(2,), window_size=2, num_classes=3).eval()
    assert model(torch.randn(2, 3, 40, 24)).isfinite().all()


def test_a_class_that_is_no_layer_is_refused() -> None:
    for name in ("cswin_t", "swin_t", "rope_vit_ti"):
        for keyword in ("act_layer", "norm_layer"):
            with pytest.raises((ValueError, TypeError), match=rf"{keyword}=.*is no layer"):
                timm.create_model(name, **{keyword: object})
