"""The adapted image encoder of SAM 2 is timm's, and the published one at sizes that are no squares."""

from __future__ import annotations

from typing import Any

import adapted_pyramids as pyramids
import pytest
import timm
import torch
from adapted_models import check_files, check_parity, check_sizes, check_swaps, difference, images, original
from reference_files import close, read
from timm.models.hieradet_sam2 import checkpoint_filter_fn

import visionpe

SMALL: dict[str, Any] = {"embed_dim": 16, "num_heads": 2, "stages": (1, 2, 2, 1), "global_att_blocks": (4,)}
# name: keywords that make it small
CASES: dict[str, dict[str, Any]] = {
    "sam2_hiera_tiny": {**SMALL, "window_spec": (8, 4, 6, 3)},
    "hieradet_small": {**SMALL, "window_spec": (4, 4, 6, 2), "patch_size": (8, 8), "q_pool": 2},
}
TRAINED = (64, 96)
SIZES = [(320, 480), (12, 20), (37, 51), (8, 100), (3, 2)]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, CASES[request.param]


def test_parity_at_every_size(case: tuple[str, dict[str, Any]]) -> None:
    """timm resizes both tables and pads windows with tokens, in all maps that strides divide."""
    model = original(*case)
    adapted = visionpe.adapt(model)
    check_parity(model, adapted, TRAINED)
    for size in ((96, 160), (224, 224), (320, 480)):  # of windows that do not fit
        assert difference(model, adapted, size) <= 1e-5
    check_sizes(adapted, [TRAINED, *SIZES])
    check_swaps(model, [TRAINED, (37, 51)])
    check_files(*case, TRAINED)


@pytest.mark.parametrize("run", ["native", "nonsquare"])
def test_published(run: str) -> None:
    weights, inputs, outputs, metadata = read("hiera_abswin_sam2")
    keywords = dict(metadata["kwargs"])
    keywords["global_pos_size"] = keywords.pop("window_pos_embed_bkg_spatial_size")
    model = timm.create_model("sam2_hiera_tiny", **keywords, norm_layer=lambda *a, **k: torch.nn.LayerNorm(*a, 1e-6))
    missing, extra = model.load_state_dict(checkpoint_filter_fn(weights), strict=False)
    assert set(missing) == {"head.norm.weight", "head.norm.bias"}  # timm's own
    assert not extra
    features = visionpe.adapt(model.eval()).forward_intermediates(inputs[run], intermediates_only=True)
    for index, feature in enumerate(features):
        close(feature, outputs[f"{run}.feat{index}"])


def test_nothing_is_left_out_of_odd_maps() -> None:
    """What the stride leaves over is pooled too, so that features are as large as the image asks for."""
    keywords = {**SMALL, "window_spec": (8, 4, 4, 2)}
    adapted = visionpe.adapt(original("sam2_hiera_tiny", keywords))
    features = adapted.forward_intermediates(images((4, 52)), intermediates_only=True)
    assert [tuple(f.shape[2:]) for f in features] == [(1, 13), (1, 7), (1, 4), (1, 2)]


def test_methods_copies_and_training(case: tuple[str, dict[str, Any]]) -> None:
    name, keywords = case
    model = original(name, keywords)
    adapted = visionpe.adapt(model)
    pyramids.check_methods(adapted, TRAINED)
    pyramids.check_copies(adapted, [TRAINED, (37, 51)])
    pyramids.check_training(adapted, TRAINED)
    pyramids.check_training(visionpe.adapt(model, pos_encoding="rope_mixed+rpb"), (37, 51))
    pyramids.check_frozen(name, keywords, "rpb")
    pyramids.check_precision(model, adapted, TRAINED)
    if "patch_size" not in keywords:  # of which timm tells wrong reductions
        pyramids.check_features(name, keywords, [TRAINED, (37, 51)])


def test_refused() -> None:
    model = original("sam2_hiera_tiny", CASES["sam2_hiera_tiny"])
    for spec in ("lepe", "irpe", "comrope", "lookhere", "+manhattan(form=axial)", "seqpe(site=logits)"):
        with pytest.raises(ValueError, match=r"attention pools them here; allowed: .*alibi.*rope_axial"):
            visionpe.adapt(model, pos_encoding=spec)
    with pytest.raises(ValueError, match="whose width changes"):
        visionpe.adapt(model, pos_encoding="lape(ape)")
    with pytest.raises(ValueError, match="in windows of"):
        visionpe.adapt(original("sam2_hiera_tiny", {**SMALL, "window_spec": (7, 4, 4, 2)}))


@pytest.mark.long
def test_compile_and_export() -> None:
    keywords = {**SMALL, "stages": (1, 1), "window_spec": (4, 2), "q_pool": 1}
    adapted = visionpe.adapt(original("sam2_hiera_tiny", keywords))
    pyramids.check_exported(adapted, [(72, 104), TRAINED, (37, 51), (160, 64)])
    pyramids.check_compiled(adapted, [TRAINED, (36, 52)])
