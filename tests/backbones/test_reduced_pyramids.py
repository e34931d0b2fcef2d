"""Pyramids with fewer keys than queries: any encoding that can work, any size, timm's conventions."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import timm
import torch
from conftest import ELSEWHERE, ENCODINGS, randomize, tiny_spec
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.export import Dim

import visionpe
from visionpe.registry import names_of

# name: keywords that make it small
NARROW: dict[str, Any] = {"img_size": 64, "embed_dim": (16, 32, 32), "num_heads": (1, 2, 2), "num_classes": 5}
TINY: dict[str, dict[str, Any]] = {
    "cpvt_v2_s": {**NARROW, "depths": (2, 1, 1), "mlp_ratios": (2, 3, 1), "sr_ratios": (4, 2, 1)},
    "mit_b0": {**NARROW, "depths": (1, 2, 1), "mlp_ratios": (2, 1, 1), "sr_ratios": (4, 2, 1)},
    "cvt_13": {**NARROW, "depths": (1, 1, 2), "mlp_ratios": (1, 1, 2)},
}
# Two stages, for what is dear.
SHALLOW: dict[str, Any] = {"embed_dim": (16, 16), "num_heads": (1, 2), "depths": (1, 1), "mlp_ratios": (1, 1)}
REDUCED: dict[str, dict[str, Any]] = {"cpvt_v2_s": {"sr_ratios": (2, 1)}, "mit_b0": {"sr_ratios": (2, 1)}, "cvt_13": {}}
LONG = [pytest.param(name, marks=pytest.mark.long) for name in ("mit_b0", "cvt_13")]
WORKING = [name for name in ENCODINGS if timm.is_model(f"{names_of(name)[0]}_cpvt_v2_s")]
SIZES = [(64, 64), (37, 90), (3, 50), (16, 8)]  # square, cut unevenly, less than one patch, one token wide
every_family = pytest.mark.parametrize("name", TINY)


def build(name: str, spec: object = None, **kwargs: Any) -> Any:
    own = {} if spec is None else {"pos_encoding": tiny_spec(spec)}
    return randomize(timm.create_model(name, **{**TINY[name], **own, **kwargs}))


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size)


def gradients(model: nn.Module, out: Tensor) -> list[Tensor]:
    model.zero_grad()
    out.square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@every_family
@pytest.mark.parametrize("spec", WORKING)
def test_every_encoding_at_every_size(name: str, spec: str) -> None:
    model = build(name, spec).train()
    unused = {"prefix_table", "digit_table", "slot_table"}  # of prefix tokens, which there are none of, or wider maps
    for size in SIZES:
        model(image(*size)).square().sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is None:
            assert key.rsplit(".", 1)[-1] in unused, key
        else:
            assert parameter.grad.isfinite().all(), key


@every_family
def test_names(name: str) -> None:
    """One for every encoding that can work where queries and keys differ; the others are refused by name."""
    for encoding in ENCODINGS:
        known = [timm.is_model(f"{prefix}_{name}") for prefix in names_of(encoding)]
        assert all(known) == any(known) == (encoding in WORKING)
        if encoding not in WORKING:
            why = ", as it is built, needs queries and keys" if encoding in ELSEWHERE else " has positions of its own"
            with pytest.raises(ValueError, match=f"pos_encoding='{encoding}'{why}"):
                build(name, encoding)
    assert {"lepe", "irpe", "lookhere"} <= set(ENCODINGS) - set(WORKING)
    assert {"rope_mixed", "rpb", "ape", "cpe", "none", "fire"} <= set(WORKING)


@every_family
@pytest.mark.parametrize("spec", [None, "rpb+ape", "rope_mixed"])
def test_nothing_follows_the_size_but_policies(name: str, spec: str | None) -> None:
    model, x = build(name, spec), image(48, 80)
    before = {key: value.shape for key, value in model.state_dict().items()}
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".attn." in key:  # so that it matters who is attended to
                parameter.mul_(8)
        wanted = model(x)
        assert {key: value.shape for key, value in model.state_dict().items()} == before
        model.set_input_size((48, 80))
        tables = [value for key, value in model.state_dict().items() if key.endswith("map.ape.table")]
        assert all(table.shape[:2] == (12, 20) for table in tables)
        torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)
        if spec == "rope_mixed":
            visionpe.set_policy(model, "interpolate")
            assert (model(x) - wanted).abs().max() > 1e-3
            model.set_trained_size((48, 80), (4, 4))
            torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)


@every_family
def test_features_and_classifier(name: str) -> None:
    model, x = build(name), image(70, 100)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x)
        torch.testing.assert_close(final, model.forward_features(x))
        torch.testing.assert_close(model.forward_head(final), model(x))
        for each, info in zip(maps, model.feature_info):
            assert each.shape[1] == info["num_chs"]
            assert all(abs(n - side / info["reduction"]) < 1 for n, side in zip(each.shape[2:], (70, 100)))
        extractor = timm.create_model(name, features_only=True, out_indices=(0, 2), **TINY[name]).eval()
        extractor.load_state_dict(model.state_dict())
        for ours, i in zip(extractor(x), (0, 2)):
            torch.testing.assert_close(ours, maps[i])
        first = timm.create_model(name, features_only=True, out_indices=(1,), **TINY[name]).eval()
        first.load_state_dict(model.state_dict())  # of which the last stage is left out
        torch.testing.assert_close(first(x)[0], maps[1])
        model.reset_classifier(3)
        assert model(x).shape == (2, 3)
        model.reset_classifier(0)
        assert model(x).shape == (2, model.num_features)


@every_family
def test_copies_checkpointing_autocast(name: str) -> None:
    model, x = build(name, "rpb+cpe"), image(40, 56)
    with torch.no_grad():
        wide = model.forward_features(x)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin.forward_features(x), wide)
        with torch.autocast("cpu", torch.bfloat16):
            assert (model.forward_features(x) - wide).norm() / wide.norm() < 0.04
        torch.testing.assert_close(
            model.to(memory_format=torch.channels_last).forward_features(x), wide, atol=1e-5, rtol=1e-5
        )
    with torch.inference_mode():
        model(x)
    plain = gradients(model, model(x))
    model.set_grad_checkpointing()
    model.train()  # where nothing is dropped
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for ours, theirs in zip(gradients(model, model(x)), plain):
        torch.testing.assert_close(ours, theirs)


@every_family
def test_conventions_of_optimisers(name: str) -> None:
    model = build(name, "rpb+ape")
    names = dict(model.named_parameters())
    spared = model.no_weight_decay()
    assert spared <= set(names)
    assert {key.rsplit(".", 1)[-1] for key in spared} == {"table", *(["cls_token"] if name == "cvt_13" else [])}
    groups = param_groups_layer_decay(model, 0.05, no_weight_decay_list=spared)
    assert sum(len(group["params"]) for group in groups) == len(names)


@every_family
def test_every_encoding_starts_from_the_same_body(name: str) -> None:
    states = []
    for spec in ("none", "rpb", "cpe+ape"):
        torch.manual_seed(0)
        model = timm.create_model(name, **TINY[name], pos_encoding=spec)
        states.append({k: v for k, v in model.state_dict().items() if ".pos_encoding." not in k})
    for state in states[1:]:
        assert all(torch.equal(state[key], value) for key, value in states[0].items())


@every_family
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": (1, 0, 1)}, r"depths=\(1, 0, 1\)"),
        ({"embed_dim": (16, 32)}, r"embed_dim=\(16, 32\) must be 3 numbers"),
        ({"num_heads": (1, 2, 5)}, "num_heads=5 of stage 2 must divide its width, 32"),
        ({"mlp_ratios": (1, 2)}, r"mlp_ratios=\(1, 2\) holds 2"),
        ({"mlp_ratios": (1, 2, 0.001)}, r"mlp_ratios=\(1, 2, 0\.001\) leave no channels"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0"),
        ({"pos_encoding": "nope"}, "'nope' is unknown"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm.create_model(name, **{**TINY[name], **options})


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("cpvt_v2_s", marks=pytest.mark.long), *LONG])
def test_compile(name: str) -> None:
    """No graph break, forward and backward."""
    torch._dynamo.reset()
    model, x = build(name, "rope_axial", **SHALLOW, **REDUCED[name]), image(40, 56)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(gradients(model, compiled(x)), gradients(model, model(x))):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpvt_v2_s", *LONG])
def test_export(name: str) -> None:
    """One exported graph serves every number of images, height and width, of two cells or more."""
    model = build(name, "rope_axial", **SHALLOW, **REDUCED[name])
    height, width = (8 * Dim(side, min=4, max=32) for side in ("height", "width"))
    shapes = ({0: Dim("batch", min=1, max=64), 2: height, 3: width},)
    program = torch.export.export(model, (image(48, 80),), dynamic_shapes=shapes).module()
    with torch.no_grad():
        for batch, size in ((2, (48, 80)), (1, (64, 64)), (3, (136, 32))):
            x = torch.randn(batch, 3, *size)
            torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=1e-5)
