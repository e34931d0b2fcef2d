"""CrossFormer: parity with the official code, groups at every size, any encoding in them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import timm
import torch
from conftest import ELSEWHERE, randomize, tiny_spec
from reference_files import close, read
from timm.optim import param_groups_layer_decay
from torch import Tensor
from torch.export import Dim

from visionpe.backbones import CrossFormer
from visionpe.backbones.shared.windows import Windows
from visionpe.registry import get_encoding, names_of

TINY: dict[str, Any] = dict(
    img_size=32, patch_size=(4, 8), embed_dim=16, depths=(3, 2), num_heads=(2, 4), group_size=3, mlp_ratio=1.0,
    num_classes=5,
)  # fmt: skip
SIZES = [(32, 32), (4, 40), (72, 52), (21, 14), (5, 90)]  # square, one token high, ..., no multiples, 18:1


def build(pos_encoding: object = "dpb", **kwargs: object) -> CrossFormer:
    model = CrossFormer(**{**TINY, "pos_encoding": tiny_spec(pos_encoding), **kwargs})
    return randomize(model)  # type: ignore[return-value]


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size)


@pytest.mark.parametrize("run", ["native", "larger", "larger in the smaller model"])
def test_official(run: str) -> None:
    weights, inputs, outputs, metadata = read("crossformer")
    size = 56 if run == "larger" else 48
    model = CrossFormer(**{**metadata["kwargs"], "img_size": size}).eval()
    model.load_state_dict(weights)
    run = run.split()[0]
    with torch.no_grad():
        final, maps = model.forward_intermediates(inputs[run], output_fmt="NHWC")
        close(model.forward_head(final, pre_logits=True), outputs[f"{run}.pooled"])
        close(model(inputs[run]), outputs[f"{run}.logits"])
    if run == "native":
        close(maps[1].flatten(1, 2), outputs["native.stage1"])
        offsets = torch.cartesian_prod(torch.arange(-3.0, 4), torch.arange(-3.0, 4))
        close(model.stages[0].pos_encoding.inside["short"].dpb.mlp[0](offsets), outputs["native.dpb_stage0_block0"])


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_encoding_at_every_size(name: str) -> None:
    model = build(name).train()
    unused = {"prefix_table", "digit_table", "slot_table"}  # of prefix tokens, which there are none of, or wider maps
    for size in SIZES:
        out = model(image(*size))
        assert out.shape == (2, 5)
        out.square().sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is None:
            assert key.rsplit(".", 1)[-1] in unused, key
        else:
            assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", ELSEWHERE)
def test_padding_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further groups of padding beyond those that a map of 9 x 13 tokens needs."""
    model, x = build(name), image(36, 52)
    with torch.no_grad():
        wanted = model.forward_intermediates(x, intermediates_only=True)
        cut = type(model.stages[0]).windows

        def spared(stage: Any, size: tuple[int, int]) -> dict[str, Windows]:
            ways = cut(stage, size)
            return {
                kind: type(its)(size, its.window, spare=its.interval or (1, 2), interval=its.interval)
                for kind, its in ways.items()
            }

        monkeypatch.setattr(type(model.stages[0]), "windows", spared)
        for stage in model.stages:
            stage.cache = type(stage.cache)()
        for ours, theirs in zip(model.forward_intermediates(x, intermediates_only=True), wanted):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpb", pytest.param("rpb", marks=pytest.mark.long)])
def test_compile(name: str) -> None:
    """No graph break, forward and backward."""
    torch._dynamo.reset()
    model = build(name, depths=(2,), num_heads=(2,)).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, results = image(40, 56), []
    for run in (model, compiled):
        model.zero_grad()
        out = run(x)
        out.square().sum().backward()
        results.append((out, [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(results[1][1], results[0][1]):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, pytest.param({"pad_type": 1}, marks=pytest.mark.long)])
def test_export(options: dict[str, Any]) -> None:
    """One exported graph serves every number of images, height and width, those below a group too."""
    model = build(depths=(2,), num_heads=(2,), group_size=5, **options)
    height, width = (8 * Dim(name, min=1, max=32) for name in ("height", "width"))
    shapes = ({0: Dim("batch", min=1, max=64), 2: height, 3: width},)
    program = torch.export.export(model, (image(48, 72),), dynamic_shapes=shapes).module()
    with torch.no_grad():
        for batch, size in ((2, (48, 72)), (1, (64, 64)), (3, (120, 40)), (1, (16, 40))):
            x = torch.randn(batch, 3, *size)
            torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=1e-5)


def test_graphs_of_whole_maps_serve_one_size() -> None:
    model, x = build(depths=(1,), num_heads=(2,), group_fit="whole_map"), image(8, 40)
    with pytest.raises(ValueError, match="group_fit='whole_map' has no graph that serves every size; allowed: 'per_ax"):
        torch.export.export(model, (x,), dynamic_shapes=({3: 8 * Dim("width", min=1, max=32)},))


def test_checkpointing_autocast_copies() -> None:
    model, x, grads = build(use_acl=True, depths=(4, 2)).train(), image(40, 56), []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for plain, recomputed in zip(*grads):
        torch.testing.assert_close(recomputed, plain)
    model.eval()
    with torch.no_grad():
        wide = model.forward_features(x)
        torch.testing.assert_close(model.forward_features(x.to(memory_format=torch.channels_last)), wide)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin.forward_features(x), wide)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = model.forward_features(x)
    assert (narrow - wide).norm() / wide.norm() < 0.03


@pytest.mark.parametrize("name", ["dpb", "rpb", "ape", "rope_mixed"])
def test_set_input_size(name: str) -> None:
    model, x = build(name), image(88, 112)
    with torch.no_grad():
        before = model(x)
        model.set_input_size(img_size=(88, 112))
        torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)


def test_policies_measure_from_the_trained_groups() -> None:
    """Which do not follow the map, but where they are one with it; encodings of the map do."""
    model = build("dpb+ape", img_size=16)
    inside = [group.dpb for stage in model.stages for group in stage.pos_encoding.inside.values()]
    assert {part.grid_size for part in inside} == {(3, 3)}
    model.set_trained_size((48, 16), (4, 4))
    assert {part.grid_size for part in inside} == {(3, 3)}
    assert (model.stages[0].pos_encoding.map.ape.grid_size, model.trained_img_size) == ((12, 4), (48, 16))
    whole = build(img_size=(48, 16), group_fit="whole_map")
    sizes = [[group.dpb.grid_size for group in stage.pos_encoding.inside.values()] for stage in whole.stages]
    assert sizes == [[(3, 3), (3, 3)], [(6, 2), (6, 2)]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": (1, 2, 3)}, r"group_size=\(1, 2, 3\) must be 2"),
        ({"group_size": (2, (1, 2, 3))}, r"group_size=\(1, 2, 3\)"),
        ({"group_size": 0}, "group_size"),
        (
            {"group_size": ((2, 2, 2), 2), "group_type": "linear"},
            "group_type='linear' chooses the group of every block",
        ),
        ({"group_type": "cubic"}, "group_type='cubic' is unknown; allowed: constant, linear, linear_div, alter, 7_14"),
        ({"crs_interval": (2,)}, "crs_interval"),
        ({"crs_interval": (2, 0)}, "crs_interval"),
        ({"patch_size": (4, 7)}, r"patch_size=\(4, 7\) must be 4 or more by an even number"),
        ({"patch_size": (4, 2)}, r"patch_size=\(4, 2\) must be 4 or more"),
        ({"patch_size": (4, 8, 12, 16, 20, 24)}, "must share out 16 channels"),
        ({"merge_size": ((2, 4), (2, 4))}, "merge_size=.* must be 1"),
        ({"merge_size": (2, 5)}, r"merge_size=\(2, 5\) must be 2 or more by an even number"),
        ({"mlp_ratio": (1.0,)}, "mlp_ratio"),
        ({"mlp_ratio": (1.0, 0.0)}, "mlp_ratio"),
        ({"num_heads": (3, 4)}, "num_heads=3 of stage 0 must divide its width, 16"),
        ({"pad_type": 2}, "pad_type=2 is unknown; allowed: 0, 1"),
        ({"group_fit": "longer"}, "group_fit='longer' is unknown; allowed: per_axis, whole_map"),
        ({"qk_scale": 0}, "qk_scale"),
        ({"pos_encoding": "nope"}, "nope"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CrossFormer(**{**TINY, **options})


@pytest.mark.parametrize("option", ["feature_norms", "stripe_widths"])
def test_unknown_options(option: str) -> None:
    with pytest.raises(TypeError, match=f"CrossFormer takes no keyword '{option}'"):
        CrossFormer(**TINY, **{option: True})


def test_every_encoding_starts_from_the_same_body() -> None:
    states = []
    for name in ELSEWHERE:
        torch.manual_seed(0)
        model = CrossFormer(**{**TINY, "pos_encoding": tiny_spec(name)})
        states.append({k: v for k, v in model.state_dict().items() if ".pos_encoding." not in k})
    for state in states[1:]:
        assert all(torch.equal(state[key], value) for key, value in states[0].items())


def test_conventions_of_optimisers() -> None:
    model = build("rpb+ape")
    names = dict(model.named_parameters())
    assert model.no_weight_decay() <= set(names)
    assert {key.rsplit(".", 1)[-1] for key in model.no_weight_decay()} == {"table"}
    groups = param_groups_layer_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_features_are_the_maps_as_they_are() -> None:
    """Four strides, no norms."""
    options = dict(embed_dim=16, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 2), img_size=64, group_size=4)
    model = randomize(timm.create_model("crossformer_t", features_only=True, **options))
    assert (model.feature_info.channels(), model.feature_info.reduction()) == ([16, 32, 64, 128], [4, 8, 16, 32])
    whole = CrossFormer(**options, num_classes=0).eval()
    whole.load_state_dict({**whole.state_dict(), **model.model.state_dict()})
    x = image(64, 40)
    with torch.no_grad():
        ours, wanted = model(x), whole.forward_intermediates(x, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))
        whole.set_group_fit("whole_map")
        assert not torch.equal(whole.forward_intermediates(x, intermediates_only=True)[-1], ours[-1])


def test_registered() -> None:
    names = set(timm.list_models("*crossformer*", module="crossformer_models"))
    for family, sizes in (("crossformer", "tsbl"), ("crossformer_pp", "sblh")):
        for size in sizes:
            assert f"{family}_{size}" in names
            assert {f"{names_of(get_encoding(name).name)[0]}_{family}_{size}" for name in ELSEWHERE} <= names
