"""The adapted Hiera is timm's, and the published one."""

from __future__ import annotations

from typing import Any

import adapted_pyramids as pyramids
import pytest
import timm
import torch
from adapted_models import check_files, check_parity, check_sizes, check_swaps, difference, images, original
from reference_files import close, read
from timm.models.hiera import Hiera, checkpoint_filter_fn

import visionpe

SMALL: dict[str, Any] = {"embed_dim": 16, "num_heads": 2, "stages": (1, 2, 2, 1), "img_size": (64, 96)}
# name: keywords that make it small
CASES: dict[str, dict[str, Any]] = {
    "hiera_tiny_224": SMALL,
    "hiera_small_abswin_256": {**SMALL, "global_pos_size": (5, 6)},  # the shortcut pools by maxima and by means
    "hiera_base_abswin_256": {**SMALL, "mask_unit_attn": (True, True, True, False)},
}
TRAINED = (64, 96)
SIZES = [(320, 480), (12, 20), (37, 51), (8, 100), (3, 2)]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, CASES[request.param]


def test_parity(case: tuple[str, dict[str, Any]]) -> None:
    model = original(*case)
    check_parity(model, visionpe.adapt(model), TRAINED)
    pairs = zip(
        *(m.forward_features(images(TRAINED), return_intermediates=True)[1] for m in (model, visionpe.adapt(model)))
    )
    for theirs, own in pairs:
        torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-5)


def test_published() -> None:
    weights, inputs, outputs, metadata = read("hiera_image")
    given = metadata["kwargs"]
    keywords = {key: given[key] for key in ("embed_dim", "num_heads", "stages", "num_classes")}
    eps = {"norm_layer": lambda *a, **k: torch.nn.LayerNorm(*a, 1e-6)}
    model = timm.create_model("hiera_tiny_224", img_size=tuple(given["input_size"]), **keywords, **eps).eval()
    model.load_state_dict(checkpoint_filter_fn(weights))
    adapted = visionpe.adapt(model)
    close(adapted(inputs["native"]), outputs["native.logits"])
    features = adapted.forward_intermediates(inputs["native"], intermediates_only=True, output_fmt="NHWC")
    for index, feature in enumerate(features):
        close(feature, outputs[f"native.feat{index}"])


def test_tables_stretch_as_those_of_timm() -> None:
    """The small table over the map, and that of a mask unit; timm does it for the size that a model is built with."""
    name, keywords = "hiera_small_abswin_256", CASES["hiera_small_abswin_256"]
    model = original(name, keywords)
    larger = timm.create_model(name, **{"num_classes": 5, **keywords, "img_size": (128, 96)}).eval()
    larger.load_state_dict(model.state_dict())
    assert difference(larger, visionpe.adapt(model), (128, 96)) <= 1e-5


def test_table_of_every_policy() -> None:
    adapted = visionpe.adapt(original("hiera_tiny_224", SMALL))
    assert visionpe.policies(adapted)[0] == "bicubic_antialias"
    with torch.inference_mode():
        first = adapted(images((96, 64)))
        for policy in ("bicubic", "bilinear", "nearest", "fourier", "window_aware"):
            visionpe.set_policy(adapted, policy)
            assert (adapted(images((96, 64))) - first).abs().max() > 1e-4


def test_padding_is_seen_by_nobody() -> None:
    """A map inside one mask unit is as if all attention were global."""
    model = original("hiera_tiny_224", SMALL)
    everywhere = timm.create_model("hiera_tiny_224", num_classes=5, **SMALL, mask_unit_attn=(False,) * 4).eval()
    everywhere.load_state_dict(model.state_dict())
    for size in ((20, 28), (12, 32), (1, 5)):
        assert difference(visionpe.adapt(everywhere), visionpe.adapt(model), size) <= 1e-6
    assert difference(visionpe.adapt(everywhere), visionpe.adapt(model), (36, 28)) > 1e-4


def test_sizes_swaps_and_files(case: tuple[str, dict[str, Any]]) -> None:
    model = original(*case)
    check_sizes(visionpe.adapt(model), [TRAINED, *SIZES])
    check_swaps(model, [TRAINED, (37, 51)])
    check_files(*case, TRAINED)
    for spec in ("rope_mixed+ape", "rope_norm", "cpb", "rpb", "decomposed", "cpe", "abswin", "attention_bias"):
        assert visionpe.adapt(model, pos_encoding=spec)(images((37, 51))).isfinite().all()


def test_file_of_another_size() -> None:
    """Its table is resized by the policy."""
    model = original("hiera_tiny_224", SMALL)
    square = original("hiera_tiny_224", {**SMALL, "img_size": (128, 128)}, seed=1)
    adapted = visionpe.adapt(model)
    adapted.load_state_dict(square.state_dict())
    assert difference(visionpe.adapt(square), adapted, TRAINED) <= 1e-6


def test_methods_copies_and_training(case: tuple[str, dict[str, Any]]) -> None:
    name, keywords = case
    model = original(name, keywords)
    adapted = visionpe.adapt(model)
    pyramids.check_features(name, keywords, [TRAINED, (37, 51)])
    pyramids.check_methods(adapted, TRAINED)
    pyramids.check_copies(adapted, [TRAINED, (37, 51)])
    pyramids.check_training(adapted, (37, 51))
    pyramids.check_training(visionpe.adapt(model, pos_encoding="rope_mixed+rpb"), (37, 51))
    pyramids.check_frozen(name, keywords, "rpb")
    if "abswin" not in name:  # which timm cannot run in bfloat16
        pyramids.check_precision(model, adapted, TRAINED)


def test_cut_down_before() -> None:
    """To the features of its first stages, or to blocks in the middle of one."""
    asked = {**SMALL, "stages": (1, 3, 1, 1), "num_classes": 5}
    for wanted in ((0,), (1, 0)):
        features = timm.create_model("hiera_tiny_224", **asked, features_only=True, out_indices=wanted).eval()
        adapted = visionpe.adapt(features)
        assert len(adapted.model.pos_encoding) == max(wanted) + 1
        with torch.inference_mode():
            own, theirs = adapted(images(TRAINED)), dict(zip(sorted(wanted), features(images(TRAINED)), strict=True))
        for index, feature in zip(wanted, own):
            torch.testing.assert_close(feature, theirs[index], atol=1e-5, rtol=1e-5)
    model = timm.create_model("hiera_tiny_224", **asked).eval()
    model.prune_intermediate_layers([2], coarse=False)
    asked = {"indices": [2], "coarse": False, "intermediates_only": True}
    with torch.inference_mode():
        (theirs,), (own,) = (m.forward_intermediates(images(TRAINED), **asked) for m in (model, visionpe.adapt(model)))
    torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-5)


def test_refused() -> None:
    model = original("hiera_tiny_224", SMALL)
    adapted = visionpe.adapt(model)
    with pytest.raises(ValueError, match="mask: an adapted Hiera sees every mask unit"):
        adapted(images(TRAINED), mask=torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="patch_drop_rate=0"):
        visionpe.adapt(original("hiera_tiny_224", {**SMALL, "patch_drop_rate": 0.5}))
    axes = {"q_stride": (1, 2, 2), "mask_unit_size": (1, 8, 8), "img_size": (4, 64, 64)}
    patches = {"patch_kernel": (3, 7, 7), "patch_stride": (2, 4, 4), "patch_padding": (1, 3, 3)}
    video = Hiera(**{**SMALL, **axes, **patches}, sep_pos_embed=True)
    for spec in (None, "rope_axial"):
        with pytest.raises(ValueError, match="Hiera for video"):
            visionpe.adapt(video, pos_encoding=spec)


@pytest.mark.long
def test_compile_and_export() -> None:
    keywords = {**SMALL, "stages": (1, 1), "mask_unit_size": (4, 4), "mask_unit_attn": (True, False), "q_pool": 1}
    model = original("hiera_tiny_224", keywords)
    for spec in (None, "rope_axial+alibi"):
        adapted = visionpe.adapt(model, pos_encoding=spec)
        pyramids.check_exported(adapted, [(72, 104), TRAINED, (37, 51), (160, 64)])
        pyramids.check_compiled(adapted, [TRAINED, (36, 52)])
