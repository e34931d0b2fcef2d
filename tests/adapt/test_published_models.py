"""Our names for timm's pretrained backbones: what timm states of them, features, files of both, saved and back."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from adapted_models import TOLERANCE, difference, images, mostly_long, original
from conftest import randomize
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

import visionpe
from visionpe.backbones.adapt.published_models import NAMES, quarters

VARIANTS = list(dict.fromkeys(name.split(".")[0] for name in NAMES))
SMALL: dict[str, Any] = {"embed_dim": 96, "num_heads": 3, "depth": 5}
# One of each family, with the size at which positions are as trained, pixels.
FAMILIES = {
    "dinov3_vit_sp": ({"img_size": 64}, (80, 48)),
    "dinov2_vit_s": ({"img_size": 56}, (56, 56)),
    "dinov2_reg_vit_g": ({"img_size": 56}, (56, 56)),
    "siglip2_vit_b.patch32_256": ({"img_size": 64}, (64, 64)),
    "pe_core_vit_l": ({"img_size": 56}, (56, 56)),
    "pe_lang_vit_g.fb_tiling": ({"img_size": 56}, (56, 56)),
    "pe_spatial_vit_ti": ({"img_size": 64}, (64, 64)),
    "eva02_vit_l.mim_in22k": ({"img_size": 56}, (56, 56)),
}


def timm_name(name: str) -> str:
    return NAMES[name] if name in NAMES else next(full for own, full in NAMES.items() if own.startswith(f"{name}."))


def test_names_are_listed_with_what_timm_states_of_their_weights() -> None:
    listed = timm.list_models(module="published_models", pretrained=True)
    assert sorted(listed) == sorted(NAMES)
    assert set(timm.list_models("dinov3_*", pretrained=True)) == {n for n in NAMES if n.startswith("dinov3_")}
    assert {f"dinov3_vit_{size}" for size in ("s", "sp", "b", "l", "hp", "7b")} <= set(VARIANTS)
    for name, theirs in NAMES.items():
        own, stated = timm.get_pretrained_cfg(name), timm.get_pretrained_cfg(theirs)
        assert own is not None
        assert stated is not None
        assert stated.has_weights
        assert own.hf_hub_id == f"timm/{theirs}"
        for key in ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation", "license", "num_classes"):
            assert getattr(own, key) == getattr(stated, key), (name, key)
        assert own.license
        assert not own.fixed_input_size


@pytest.mark.parametrize(
    "name", mostly_long(VARIANTS, "dinov3_vit_s", "dinov2_reg_vit_b", "siglip2_vit_b", "pe_core_vit_s", "eva02_vit_ti")
)
def test_every_name_builds_with_features_of_four_depths(name: str) -> None:
    with torch.device("meta"):
        model: Any = timm.create_model(name, features_only=True)
        theirs: Any = timm.create_model(timm_name(name))
    depth, stride = len(theirs.blocks), theirs.patch_embed.patch_size[0]
    assert f"patch{stride}" in timm_name(name)
    assert model.out_indices == list(quarters(depth))
    assert model.feature_info.reduction() == [stride] * 4
    assert model.feature_info.channels() == [theirs.embed_dim] * 4
    assert not [key for key, p in model.named_parameters() if p.device.type != "meta"]
    assert visionpe.policies(model)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(12, (2, 5, 8, 11)), (24, (4, 11, 17, 23)), (40, (9, 19, 29, 39)), (32, (7, 15, 23, 31)), (27, (6, 13, 20, 26)),
     (23, (5, 11, 17, 22)), (4, (0, 1, 2, 3)), (2, (0, 1)), (1, (0,))],
)  # fmt: skip
def test_depths_of_features(depth: int, expected: tuple[int, ...]) -> None:
    """Those of DINOv2's and DINOv3's heads for 12, 24, 32 and 40 blocks."""
    assert quarters(depth) == expected


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("way", ["overlay", "checkpoint_path"])
def test_weights_of_timm_load(name: str, way: str, tmp_path: Any) -> None:
    keywords, size = FAMILIES[name]
    keywords = {**SMALL, **keywords}
    theirs = original(timm_name(name), keywords)
    file = tmp_path / "model.safetensors"
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, file)
    overlay = {"file": str(file), "num_classes": 5}
    given: dict[str, Any] = (
        {"pretrained": True, "pretrained_cfg_overlay": overlay} if way == "overlay" else {"checkpoint_path": str(file)}
    )
    own: nn.Module = timm.create_model(name, num_classes=5, **keywords, **given).eval()
    assert difference(theirs, own, size) <= TOLERANCE
    features: Any = timm.create_model(name, features_only=True, num_classes=5, **keywords, **given).eval()
    assert features.out_indices == [1, 2, 3, 4]
    x = images(size)
    with torch.inference_mode():
        wanted = theirs.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
        for got, feature in zip(features(x), wanted, strict=True):
            torch.testing.assert_close(got, feature, atol=TOLERANCE * feature.abs().max().item(), rtol=0)


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_built_again(name: str, features: bool, tmp_path: Any) -> None:
    keywords, size = FAMILIES[name]
    given = {"pos_encoding": "rope_axial+ape", "policy": "yarn", "num_classes": 5, "features_only": features}
    model: Any = randomize(timm.create_model(name, **given, **SMALL, **keywords))
    save_for_hf(model, str(tmp_path))
    again: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = images((size[0] * 2, size[1] * 3), batch=1)
    with torch.inference_mode():
        pairs = zip(model(x), again(x), strict=True) if features else [(model(x), again(x))]
        for a, b in pairs:
            assert torch.equal(a, b)
    assert visionpe.policies(again)[0] == visionpe.policies(model)[0]
    if features:
        assert again.out_indices == model.out_indices == [1, 2, 3, 4]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"dinov3_vit_l\.web: tag 'web' is unknown; allowed: lvd1689m, sat493m"):
        timm.create_model("dinov3_vit_l.web")
    with pytest.raises(ValueError, match=r"feature_cls='hook' cannot hand positions on; allowed: None, 'getter'"):
        timm.create_model("dinov2_vit_s", features_only=True, feature_cls="hook", **SMALL)
    with pytest.raises(TypeError, match="no_such_option"):
        timm.create_model("dinov2_vit_s", no_such_option=1)
    with pytest.raises(ValueError, match="encoding 'nonsense' is unknown"):
        timm.create_model("dinov2_vit_s", pos_encoding="nonsense", **SMALL)
