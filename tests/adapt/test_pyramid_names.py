"""Names of our own for timm's pyramids: as published, loaded from files of the authors, with every encoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from adapted_models import images
from reference_files import close, read
from torch import Tensor

import visionpe
from visionpe.backbones.adapt.originals import build_original
from visionpe.backbones.adapt.pyramids import FAMILIES, AdaptedFamily

NARROW: dict[str, Any] = {"embed_dims": (16, 32, 32, 32), "num_heads": (1, 2, 2, 2), "depths": (2, 2, 2, 1)}
HIERA: dict[str, Any] = {"embed_dim": 16, "num_heads": 2, "stages": (1, 2, 2, 1)}
# family: keywords that make it small
SMALL: dict[str, dict[str, Any]] = {
    "hiera": {**HIERA, "img_size": (64, 96)},
    "hiera_abswin": {**HIERA, "img_size": (64, 96), "global_pos_size": (5, 6)},
    "sam2_hiera": {**HIERA, "global_att_blocks": (4,), "window_spec": (8, 4, 6, 3)},
    "mvitv2": {"depths": (1, 2, 1, 2), "embed_dim": 8, "img_size": 64},
    "mvitv2_cls": {"depths": (1, 2, 1, 2), "embed_dim": 8, "img_size": 64},
    "twins_pcpvt": {**NARROW, "img_size": 64},
    "twins_svt": {**NARROW, "img_size": 64},
    "levit": {"img_size": 64, "embed_dim": (32, 48, 64), "key_dim": 16, "num_heads": (2, 3, 4), "depth": (2, 1, 2)},
}


def first_name(family: AdaptedFamily, prefix: str = "") -> str:
    size = next(iter(family.sizes))
    prefix = prefix or ("" if family.bare else family.own)
    return f"{prefix}_{family.name}_{size}" if prefix else f"{family.name}_{size}"


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> AdaptedFamily:
    return request.param


def build(name: str, family: AdaptedFamily, **more: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, **{**SMALL[family.name], "num_classes": 5, **more}).eval()


def test_every_name_is_known(family: AdaptedFamily) -> None:
    listed = set(timm.list_models(module="pyramids"))
    for size, original in family.sizes.items():
        if family.bare:
            assert f"{family.name}_{size}" in listed
        assert f"{family.own}_{family.name}_{size}" in listed
        assert f"none_{family.name}_{size}" in listed
        assert timm.is_model(original)


def test_weights_are_those_of_timm(family: AdaptedFamily) -> None:
    for size, original in family.sizes.items():
        name = f"{family.name}_{size}" if family.bare else f"{family.own}_{family.name}_{size}"
        theirs, own = (timm.get_pretrained_cfg(n, allow_unregistered=False) for n in (original, name))
        assert (own.hf_hub_id, own.input_size, own.license) == (theirs.hf_hub_id, theirs.input_size, theirs.license)
        assert own.tag == theirs.tag or not theirs.has_weights
        assert len(timm.list_models(f"{name}.*")) == len(timm.list_models(f"{original}.*"))
        assert not timm.get_pretrained_cfg(f"none_{family.name}_{size}").has_weights
    assert timm.get_pretrained_cfg("hiera_b").tag == "mae_in1k_ft_in1k"


def test_an_encoding_has_a_name_where_it_can_work(family: AdaptedFamily) -> None:
    size = next(iter(family.sizes))
    for encoding in visionpe.list_encodings():
        name = f"{encoding}_{family.name}_{size}"
        if timm.is_model(name):
            model = build(name, family)
            if encoding not in ("prope", "gta", "rays"):  # which want cameras
                with torch.inference_mode():
                    assert model(images((37, 51))).isfinite().all(), encoding
        else:
            with pytest.raises(ValueError, match=f"pos_encoding='{encoding}"):
                build(first_name(family), family, pos_encoding=encoding)


def test_it_is_timms_model(family: AdaptedFamily) -> None:
    name = next(iter(family.sizes.values()))
    original = build_original(name, num_classes=5, **SMALL[family.name]).eval()
    model = build(first_name(family), family)
    model.load_state_dict(original.state_dict())
    x = images((64, 96) if "hiera" in family.name else (64, 64))
    with torch.inference_mode():
        torch.testing.assert_close(model(x), original(x), atol=1e-5, rtol=1e-5)


def test_features_and_files(family: AdaptedFamily, tmp_path: Path) -> None:
    name = first_name(family)
    features = build(name, family, features_only=True)
    maps = features(images((72, 100)))
    up = 0 if "twins" in name else 1  # whose patches leave out what does not fit, as published
    reductions = features.feature_info.reduction()
    assert [tuple(m.shape[2:]) for m in maps] == [((72 - up) // r + up, (100 - up) // r + up) for r in reductions]
    assert len(maps) == (3 if family.name == "levit" else 4)
    model = build(name, family)
    torch.save({"model": model.state_dict()}, tmp_path / "own.pth")
    other = build(name, family, checkpoint_path=str(tmp_path / "own.pth"))
    with torch.inference_mode():
        assert torch.equal(other(images((72, 100))), model(images((72, 100))))


def test_a_saved_one_is_built_again(family: AdaptedFamily, tmp_path: Path) -> None:
    model = build(first_name(family, "rope_axial"), family)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.inference_mode():
        assert torch.equal(other(images((72, 100))), model(images((72, 100))))


def saved(weights: dict[str, Tensor], wrapper: str, folder: Path, prefix: str = "") -> str:
    torch.save({wrapper: {prefix + key: value for key, value in weights.items()}}, folder / "published.pth")
    return str(folder / "published.pth")


def test_published_hiera(tmp_path: Path) -> None:
    weights, inputs, outputs, metadata = read("hiera_image")
    given = metadata["kwargs"]
    keywords = {key: given[key] for key in ("embed_dim", "num_heads", "stages", "num_classes")}
    model = timm.create_model(
        "hiera_t",
        checkpoint_path=saved(weights, "model_state", tmp_path),
        img_size=tuple(given["input_size"]),
        **keywords,
    ).eval()
    close(model(inputs["native"]), outputs["native.logits"])
    features = model.forward_intermediates(inputs["native"], intermediates_only=True, output_fmt="NHWC")
    for index, feature in enumerate(features):
        close(feature, outputs[f"native.feat{index}"])


@pytest.mark.parametrize("prefix", ["image_encoder.trunk.", "trunk.", ""])
def test_published_sam2(prefix: str, tmp_path: Path) -> None:
    weights, inputs, outputs, metadata = read("hiera_abswin_sam2")
    keywords = dict(metadata["kwargs"])
    keywords["global_pos_size"] = keywords.pop("window_pos_embed_bkg_spatial_size")
    beside = {"sam_mask_decoder.weight": torch.zeros(2)} if prefix == "image_encoder.trunk." else {}
    path = saved(weights, "model", tmp_path, prefix)
    torch.save({"model": {**torch.load(path)["model"], **beside}}, path)
    for form in ({}, {"features_only": True}):
        model = timm.create_model("sam2_hiera_t", checkpoint_path=path, **keywords, **form).eval()
        for run in ("native", "nonsquare"):
            x = inputs[run]
            features = model(x) if form else model.forward_intermediates(x, intermediates_only=True)
            for index, feature in enumerate(features):
                close(feature, outputs[f"{run}.feat{index}"])


def test_published_mvitv2(tmp_path: Path) -> None:
    weights, inputs, outputs, metadata = read("mvitv2")
    given = metadata["kwargs"]["MVIT"]
    model = timm.create_model(
        "mvitv2_t",
        checkpoint_path=saved(weights, "model_state", tmp_path),
        img_size=metadata["kwargs"]["crop_size"],
        num_classes=5,
        depths=(1, 2, 1),
        embed_dim=given["EMBED_DIM"],
        num_heads=given["NUM_HEADS"],
        stride_kv_adaptive=tuple(given["POOL_KV_STRIDE_ADAPTIVE"]),
    ).eval()
    x = inputs["native"]
    close(model(x), outputs["native.logits"])
    close(model.forward_features(x), outputs["native.tokens"])


def test_published_mvitv2_whose_mlp_widens(tmp_path: Path) -> None:
    """Of the large one the shortcut, `proj` of the authors, stands around the MLP."""
    sizes = {**SMALL["mvitv2"], "num_heads": 2, "num_classes": 5}
    model = build_original("mvitv2_large", **sizes).eval()
    first = {"0": 0, "1": 1, "2": 3, "3": 4}  # block of each stage
    original = {}
    for key, value in model.state_dict().items():
        parts = key.split(".")
        if parts[0] == "stages":
            number = first[parts[1]] + int(parts[3])
            key = f"blocks.{number}.{'.'.join(parts[4:]).replace('shortcut_proj_mlp', 'proj')}"
        original[key.replace("head.fc", "head.projection")] = value
    assert "blocks.0.proj.weight" in original
    path = saved(original, "model_state", tmp_path)
    with torch.inference_mode():
        x = images((64, 64))
        own = timm.create_model("mvitv2_l", checkpoint_path=path, **sizes).eval()
        torch.testing.assert_close(own(x), model(x), atol=1e-5, rtol=1e-5)


def test_published_levit(tmp_path: Path) -> None:
    """The authors' code numbers attentions and MLPs through all stages; their files hold indices besides."""
    model = build("attention_bias_levit_128s", FAMILIES[-1])
    original, places = {"blocks.0.m.attention_bias_idxs": torch.zeros(16, 16, dtype=torch.int64)}, []
    for index, stage in enumerate(model.stages):
        places += [f"stages.{index}.downsample."] if index else []
        places += [f"stages.{index}.blocks.{i}." for i in range(len(stage.blocks))]
    theirs = build_original("levit_128s", num_classes=5, **SMALL["levit"]).state_dict()
    for key, value in theirs.items():
        place = next((place for place in places if key.startswith(place)), None)
        if place is not None:
            number, rest = 2 * places.index(place), key.removeprefix(place)
            if rest.startswith("mlp."):
                key = f"blocks.{number + 1}.m.{rest.replace('mlp.ln1.', '0.').replace('mlp.ln2.', '2.')}"
            elif rest.startswith("attn."):
                key = f"blocks.{number}.m.{rest.removeprefix('attn.')}"
            else:
                key = f"blocks.{number}.{rest.removeprefix('attn_downsample.')}"
            key = key.replace("proj.ln.", "proj.1.").replace("q.ln.", "q.1.")
        for i in range(4):
            key = key.replace(f"stem.conv{i + 1}.", f"patch_embed.{2 * i}.")
        original[key.replace(".linear.", ".l." if key.startswith("head") else ".c.")] = value
    assert {"blocks.2.m.qkv.c.weight", "blocks.4.q.1.c.weight", "head_dist.l.bias"} <= set(original)
    model.load_state_dict({"model": original})
    expected = build("attention_bias_levit_128s", FAMILIES[-1])
    expected.load_state_dict(theirs)
    with torch.inference_mode():
        assert torch.equal(model(images((64, 64))), expected(images((64, 64))))
        assert not torch.equal(
            model(images((64, 64))), build("attention_bias_levit_128s", FAMILIES[-1])(images((64, 64)))
        )


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"embed_dim=\(8, 16\): allowed: one for each of 4 stages"):
        timm.create_model("mvitv2_t", embed_dim=(8, 16))
    with pytest.raises(ValueError, match="tag 'none' is unknown; allowed: mae_in1k_ft_in1k, mae"):
        timm.create_model("hiera_t.none")
    with pytest.raises(RuntimeError, match=r"head\.fc\.weight|Missing"):
        timm.create_model("hiera_t", **SMALL["hiera"]).load_state_dict({"blocks.0.norm1.weight": torch.zeros(16)})
