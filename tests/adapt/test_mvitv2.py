"""The adapted MViTv2 is timm's, and the published one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import adapted_pyramids as pyramids
import pytest
import timm
import torch
from adapted_models import check_files, check_parity, check_sizes, check_swaps, difference, images, original
from reference_files import close, read
from timm.models.mvitv2 import MultiScaleVitCfg, checkpoint_filter_fn, model_cfgs

import visionpe

NAME, TRAINED = "mvitv2_tiny", (64, 64)
SMALL: dict[str, Any] = {"depths": (1, 2, 1, 2), "embed_dim": 8}
# What differs: a class token and a table of absolute positions; widths that change behind attention; pooling by means.
CASES = {
    "plain": MultiScaleVitCfg(**SMALL),
    "cls": MultiScaleVitCfg(**SMALL, use_cls_token=True, use_abs_pos=True),
    "large": MultiScaleVitCfg(**SMALL, num_heads=2, expand_attn=False, stride_kv_adaptive=(2, 2)),
    "mean": MultiScaleVitCfg(**SMALL, mode="avg", residual_pooling=False, rel_pos_type=""),
}
SIZES = [(320, 480), (37, 51), (4, 8), (1, 3), (8, 100)]


@pytest.fixture(autouse=True)
def small_models() -> Iterator[None]:
    model_cfgs.update(CASES)
    yield
    for key in CASES:
        del model_cfgs[key]


def keywords(case: str, size: int = 64) -> dict[str, Any]:
    return {"cfg_variant": case, "img_size": size}


def resampled(model: Any, case: str, size: int) -> Any:
    """timm's model at another size, with the tables that timm makes for it."""
    other = timm.create_model(NAME, num_classes=5, **keywords(case, size)).eval()
    other.load_state_dict(checkpoint_filter_fn(dict(model.state_dict()), other))
    return other


@pytest.mark.parametrize("case", CASES)
def test_parity(case: str) -> None:
    model = original(NAME, keywords(case))
    check_parity(model, visionpe.adapt(model), TRAINED)


@pytest.mark.parametrize("case", ["plain", "large"])
def test_other_sizes_are_those_of_timm(case: str) -> None:
    model = original(NAME, keywords(case))
    adapted = visionpe.adapt(model)
    for size in (32, 96, 160):
        assert difference(resampled(model, case, size), adapted, (size, size)) <= 1e-5


def test_maps_that_are_no_squares() -> None:
    """timm runs them where each axis is given its own table."""
    model = original(NAME, keywords("plain"))
    adapted, mixed = visionpe.adapt(model), resampled(model, "plain", 160)
    tall = resampled(model, "plain", 96)
    with torch.no_grad():
        for name, module in mixed.named_modules():
            if hasattr(module, "rel_pos_h"):
                module.rel_pos_h = tall.get_submodule(name).rel_pos_h
    assert difference(mixed, adapted, (96, 160)) <= 1e-5


def test_published() -> None:
    weights, inputs, outputs, metadata = read("mvitv2")
    given = metadata["kwargs"]["MVIT"]
    model_cfgs["plain"] = MultiScaleVitCfg(
        depths=(1, 2, 1),
        embed_dim=given["EMBED_DIM"],
        num_heads=given["NUM_HEADS"],
        stride_q=((1, 1), (2, 2), (2, 2)),
        stride_kv_adaptive=tuple(given["POOL_KV_STRIDE_ADAPTIVE"]),
    )
    model = timm.create_model(NAME, num_classes=5, **keywords("plain", metadata["kwargs"]["crop_size"])).eval()
    model.load_state_dict(checkpoint_filter_fn(weights, model))
    adapted = visionpe.adapt(model)
    x = inputs["native"]
    close(adapted(x), outputs["native.logits"])
    close(adapted.forward_features(x), outputs["native.tokens"])
    features = adapted.forward_intermediates(x, output_fmt="NLC", intermediates_only=True)
    for feature, block in zip(features, (0, 2, 3), strict=True):
        close(feature, outputs[f"native.block{block}"])


@pytest.mark.parametrize("case", CASES)
def test_sizes_swaps_and_files(case: str) -> None:
    model = original(NAME, keywords(case))
    adapted = visionpe.adapt(model)
    check_sizes(adapted, [TRAINED, *SIZES])
    if case != "mean":  # which has no positions
        check_swaps(model, [TRAINED, (37, 51)])
        check_files(NAME, keywords(case), TRAINED)
    for spec in ("rope_norm", "rope_mixed+ape", "rpb", "cpb", "abswin", "attention_bias", "fire"):
        assert visionpe.adapt(model, pos_encoding=spec)(images((37, 51))).isfinite().all()


def test_policies() -> None:
    adapted = visionpe.adapt(original(NAME, keywords("cls")))
    names = visionpe.policies(adapted)
    assert {"interpolate", "clamp", "geometric", "bicubic_antialias", "temperature", "decay"} <= set(names)
    with torch.inference_mode():
        first = adapted(images((96, 160)))
        for policy in ("clamp", "geometric", "temperature", "decay(0.5)", "bilinear"):
            visionpe.set_policy(adapted, policy)
            assert (adapted(images((96, 160))) - first).abs().max() > 1e-5, policy
            visionpe.set_policy(adapted, "default")
        assert torch.equal(adapted(images((96, 160))), first)


@pytest.mark.parametrize("case", ["plain", "cls", "large"])
def test_methods_copies_and_training(case: str) -> None:
    model = original(NAME, keywords(case))
    adapted = visionpe.adapt(model)
    if case != "large":  # whose features are large numbers
        pyramids.check_features(NAME, keywords(case), [TRAINED, (37, 51)])
    pyramids.check_methods(adapted, TRAINED)
    pyramids.check_copies(adapted, [TRAINED, (37, 51)])
    pyramids.check_training(adapted, (37, 51))
    pyramids.check_training(visionpe.adapt(model, pos_encoding="rope_mixed+rpb"), (37, 51))
    pyramids.check_frozen(NAME, keywords(case), "rpb")
    pyramids.check_precision(model, adapted, TRAINED)


def test_refused() -> None:
    refused = {
        "plain": [("lape(ape)", "input of every attention"), ("lepe", "pools them")],
        "large": [("cpe", "output of every block"), ("irpe", "pools them")],
    }
    taken = {"plain": "cpe", "large": "lape(ape)"}
    for case, specs in refused.items():
        model = original(NAME, keywords(case))
        for spec, message in specs:
            with pytest.raises(ValueError, match=message):
                visionpe.adapt(model, pos_encoding=spec)
        assert visionpe.adapt(model, pos_encoding=taken[case])(images((37, 51))).isfinite().all()
    model_cfgs["plain"] = MultiScaleVitCfg(**SMALL, pool_first=True)
    with pytest.raises(ValueError, match="pool_first=False"):
        visionpe.adapt(timm.create_model(NAME, **keywords("plain")))


@pytest.mark.long
@pytest.mark.parametrize("spec", [None, "rope_axial+alibi"])
def test_compile_and_export(spec: str | None) -> None:
    model_cfgs["plain"] = MultiScaleVitCfg(depths=(1, 1), embed_dim=8, stride_q=((1, 1), (2, 2)))
    adapted = visionpe.adapt(original(NAME, keywords("plain")), pos_encoding=spec)
    pyramids.check_exported(adapted, [(72, 104), TRAINED, (37, 51), (160, 64)])
    pyramids.check_compiled(adapted, [TRAINED, (36, 52)])
