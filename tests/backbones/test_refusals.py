"""Backbones refuse keywords, images and voxels by name, before timm or torch stumble over them; batches of none run."""

from __future__ import annotations

import time
from math import inf, nan
from typing import Any

import pytest
import timm
import torch

import visionpe

TINY: dict[str, dict[str, Any]] = {
    "none_vit_ti": {"img_size": 24, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "vitdet_b": {"img_size": 24, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "window_size": 3},
    "swin_t": {"img_size": 32, "embed_dim": 16, "depths": (2, 1), "num_heads": (2, 2), "window_size": 3},
    "cswin_t": {"img_size": 32, "embed_dim": 16, "depths": (1, 2, 1), "num_heads": (2, 2, 2)},
    "crossformer_t": {"img_size": 32, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)},
    "rmt_t": {
        "img_size": 32,
        "embed_dim": (16, 16),
        "depths": (1, 1),
        "num_heads": (2, 2),
        "mlp_ratio": 2.0,
        "decomposed": (True, False),
        "decay_range": 4.0,
        "projection": 16,
    },
    "cpvt_v2_s": {"img_size": 32, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)},
    "mit_b0": {"img_size": 32, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)},
    "cvt_13": {"img_size": 32, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)},
    "swin3d_s": {"embed_dims": (24, 24), "depths": (2, 1), "num_heads": (2, 2), "window_size": 3},
    "swin3d_s_unet": {"embed_dims": (24, 24), "depths": (1, 1), "num_heads": (2, 2), "window_size": 3},
    "ptv3_b": {"embed_dims": (24, 24), "depths": (1, 1), "num_heads": (2, 2), "patch_size": 16, "strides": (2,)},
}
REDUCED = ("cpvt_v2_s", "mit_b0", "cvt_13")  # keys are other tokens than queries there
IMAGES = ("none_vit_ti", "vitdet_b", "swin_t", "cswin_t", "crossformer_t", "rmt_t", *REDUCED)
RATE, COUNT = (-0.1, 1, nan, inf, "0", True), (0, -1, 0.5, nan, "2", True, 99999)
EVERY = {"in_chans": COUNT, "num_classes": (-1, 0.5, nan, "2"), "mlp_ratio": (0, -1, nan, inf, 1e-3, 99999, "4")}
EVERY |= {"drop_rate": RATE, "drop_path_rate": RATE, "qkv_bias": ("no", nan), "dtype": ("float32", torch.long)}
SIZES = {"img_size": (0, -1, 2, 0.5, nan, "24", (24, 2), (24,), 99999), "patch_size": (0, -1, 0.5, nan, "4", 99999)}
VIT = {
    "embed_dim": COUNT,
    "depth": COUNT,
    "num_heads": (*COUNT, 3),
    "reg_tokens": (-1, 0.5, nan, 99999),
    **dict.fromkeys(("pos_drop_rate", "patch_drop_rate", "attn_drop_rate", "proj_drop_rate"), RATE),
    "init_values": (-1e-4, nan, inf, "1"),
    "global_pool": ("mean", 3),
    "weight_init": ("kaiming",),
    "norm_layer": ("nonsense", 3),
    "attn_layer": (torch.nn.Linear,),
    "class_token": ("no",),
    "constant_drop_path": ("no", nan),
}
PYRAMID = {"embed_dim": COUNT, "depths": ((0, 1), (1, 0.5), (), 3, "12", (1,) * 30)}
PYRAMID |= {"num_heads": (0, (0, 2), (2, nan), "22")}
PYRAMID |= {"attn_drop_rate": RATE, "proj_drop_rate": RATE, "global_pool": ("mean", ""), "norm_layer": ("ln",)}
IMAGE, STEPS, RATIOS = (
    {"img_size": SIZES["img_size"]},
    ((1, 0), (1,), "12", (1, nan)),
    {"mlp_ratios": ((1,), (0, 1), 2)},
)
REFUSED: dict[str, dict[str, tuple[Any, ...]]] = {
    "none_vit_ti": {**EVERY, **SIZES, **VIT},
    "vitdet_b": {
        **EVERY,
        **SIZES,
        "depth": COUNT,
        "num_heads": COUNT,
        "norm_eps": (0, -1, nan, "1"),
        "window_size": (-1, 0.5, nan, (3, 0), 99999),
        "pretrain_img_size": (0, nan, "a"),
        "global_pool": ("token",),
        "global_blocks": ((7,), (0.5,), (0, 0)),
        "neck_channels": (-1, 0.5, nan),
    },
    "swin_t": {**EVERY, **SIZES, **PYRAMID, "window_size": (0, 0.5, nan, "7", (3, 3, 3), 99999)},
    "cswin_t": {**EVERY, **SIZES, **PYRAMID, "stripe_widths": (0, (1, 0, 1), (1, 0.5, 1), "111")},
    "crossformer_t": {
        **EVERY,
        **IMAGE,
        **PYRAMID,
        "patch_size": (0, -1, nan, "4", (4, 7), (4, 0), ()),
        "group_size": (0, -1, nan, "7", (7,)),
        "group_type": ("fixed",),
        "crs_interval": (0, (1,), (1, 0), "11"),
        "merge_size": (0, (), (2, 0), (2, 3), "24"),
        "mlp_ratio": (0, -1, nan, "4", (4.0,), (4.0, 0)),
        "pad_type": (2, "0"),
        "group_fit": ("square",),
        "qk_scale": (0, nan, "1"),
        **dict.fromkeys(("adaptive_interval", "use_acl", "no_mask", "patch_norm"), ("no", nan)),
    },
    "rmt_t": {
        **EVERY,
        **PYRAMID,
        "img_size": SIZES["img_size"],
        "embed_dim": (0, (0, 16), (16, 0.5), 16, (1, 16)),
        "mlp_ratio": (0, -1, nan, inf, 1e-3, 99999, "4", (2.0,), (2.0, 0)),
        "decomposed": ((True,), (True, 3), "no", nan),
        "decay_init": (0, -1, nan, "2", (2.0,), (2.0, 0)),
        "decay_range": (-1, nan, 99, "4", (4.0, 4.0, 4.0)),
        "init_values": (-1e-4, nan, inf, "1", (None,), (None, -1)),
        "projection": COUNT,
        "token_label": ("no", 3, nan),
    },
    "cpvt_v2_s": {**EVERY, **SIZES, **PYRAMID, **RATIOS, "sr_ratios": STEPS},
    "mit_b0": {**EVERY, **IMAGE, **PYRAMID, **RATIOS, "sr_ratios": STEPS, "strides": STEPS, "embed_norm_eps": (0, nan)},
    "cvt_13": {
        **EVERY,
        **IMAGE,
        **PYRAMID,
        **RATIOS,
        "stride_kv": (0, *STEPS),
        "qkv_kernel": (2, 0, nan),
        "paddings": (1,),
    },
    "swin3d_s": {
        **EVERY,
        "embed_dims": ((0, 24), (24, nan), 24),
        "depths": ((0, 1), (2, 0.5), 2),
        "num_heads": ((0, 2), (5, 2)),
        "window_size": (0, 0.5, nan, (3,)),
        "down_k": COUNT,
        "first_down_stride": COUNT,
        "global_pool": ("max",),
        "cloud_size": (0, 0.5, nan),
        "signals": (None, "RBG"),
        "knn_down": ("no",),
        "quant_size": (0, nan),
    },
    "ptv3_b": {
        **EVERY,
        "embed_dims": ((0, 24), (24, nan), 24),
        "depths": ((0, 1), (1, 0.5), 1),
        "num_heads": ((0, 2), (5, 2)),
        "patch_size": (0, 0.5, nan, (16,)),
        "strides": (0, (0,), (2, 2)),
        "orders": ("zigzag", ("spiral",), ()),
        "curve_margin": (-1, 9, 0.5),
        "form": ("convolutions",),
        "init_values": (-1e-4, nan, "1"),
        "cloud_size": (0, 0.5, nan),
        "signals": (None, "RBG"),
        "global_pool": ("max",),
        **dict.fromkeys(("attn_drop_rate", "proj_drop_rate"), RATE),
        **dict.fromkeys(("shuffle_orders", "equal_patches"), ("no", nan)),
    },
    "swin3d_s_unet": {"up_k": COUNT, "decoder_attn": ("no",), "num_classes": (-1, nan), "global_pool": ("max",)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_keywords(name: str) -> None:
    started = time.perf_counter()
    for keyword, values in REFUSED[name].items():
        for value in values:
            if value is None:  # which timm takes for a default
                continue
            with pytest.raises((ValueError, TypeError), match=rf"{keyword}=.*|{keyword}: ") as caught:
                timm.create_model(name, **{**TINY[name], keyword: value})
            frame = caught.traceback[-1]
            assert "visionpe" in str(frame.frame.f_globals["__name__"]), (keyword, value)
    assert time.perf_counter() - started < 20
    with pytest.raises(TypeError, match="takes no keyword 'num_clases'; did you mean num_classes"):
        timm.create_model(name, **TINY[name], num_clases=3)
    with pytest.raises(TypeError, match="takes no keyword 'pos_encodin'; did you mean pos_encoding"):  # of our own
        timm.create_model(name, **TINY[name], pos_encodin="ape")


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 24, 24, dtype=torch.uint8), r"images: torch\.uint8 is no batch of normalised images"),
        (torch.zeros(2, 3, 24, 24, dtype=torch.float64), r"images: torch\.float64; allowed: torch\.float32"),
        (torch.zeros(3, 24, 24), r"images: shape \(3, 24, 24\); allowed: floating point \(B, 3, height, width\)"),
        (torch.zeros(2, 1, 24, 24), r"images: shape \(2, 1, 24, 24\); allowed"),
        (torch.zeros(2, 3, 0, 24), "images: 0 x 24 pixels are too few"),
        ([[1.0]], r"images: list is no batch of normalised images|images\[0\]: list; allowed: tensors"),
    ],
)
def test_images(name: str, x: Any, message: str) -> None:
    model = timm.create_model(name, **TINY[name])
    for call in (model, model.forward_features, model.forward_intermediates):
        with pytest.raises((ValueError, TypeError), match=message):
            call(x)


def test_images_that_the_patch_does_not_divide() -> None:
    model = timm.create_model("none_vit_ti", **TINY["none_vit_ti"])
    with pytest.raises(
        ValueError, match=r"images: 23 x 24 pixels are no multiple of patch_size=\(4, 4\); allowed: mult"
    ):
        model(torch.zeros(1, 3, 23, 24))


def test_autocast_takes_other_dtypes() -> None:
    model = timm.create_model("none_vit_ti", **TINY["none_vit_ti"])
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.zeros(1, 3, 24, 24, dtype=torch.float16)).isfinite().all()
        with pytest.raises(TypeError, match=r"images: torch\.float64"):
            model(torch.zeros(1, 3, 24, 24, dtype=torch.float64))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("spec", ["decomposed+ape", "rpb", "comrope+rope_axial", {"name": "irpe", "on": "qkv"}])
def test_batches_of_none(name: str, spec: Any) -> None:
    if name in REDUCED and spec not in ("decomposed+ape", "rpb"):
        pytest.skip("cannot work where queries and keys are different tokens")
    model = timm.create_model(name, **TINY[name], pos_encoding=spec, num_classes=5)
    for size in (24, 32):
        y = model.train()(torch.zeros(0, 3, size, size))
        assert y.shape == (0, 5)
        y.sum().backward()
        with torch.no_grad():
            assert model.eval()(torch.zeros(0, 3, size, size)).shape == (0, 5)


def test_commuting_matrices_beside_angles_in_stripes() -> None:
    for spec in ("comrope+rope_axial", "comrope+rope_mixed"):
        model = timm.create_model("cswin_t", **TINY["cswin_t"], pos_encoding=spec).eval()
        assert model(torch.randn(1, 3, 40, 32)).isfinite().all()


@pytest.mark.parametrize("name", IMAGES)
def test_indices(name: str) -> None:
    model = timm.create_model(name, **TINY[name])
    for indices in (99, (0, 99), 0.5, (0.5,), "0", ()):
        with pytest.raises((ValueError, TypeError), match=r"indices=.*; allowed: "):
            model.forward_intermediates(torch.zeros(1, 3, 24, 24), indices=indices)
        with pytest.raises((ValueError, TypeError), match=r"indices=.*; allowed: "):
            model.prune_intermediate_layers(indices)


@pytest.mark.parametrize("name", IMAGES)
def test_features_in_the_order_asked_for(name: str) -> None:
    model = timm.create_model(name, **TINY[name], features_only=True, out_indices=(1, 0)).eval()
    x = torch.randn(1, 3, 24, 24)
    wanted = model.model.forward_intermediates(x, indices=[0, 1], intermediates_only=True)[::-1]
    for got, feature, channels in zip(model(x), wanted, model.feature_info.channels(), strict=True):
        torch.testing.assert_close(got, feature)
        assert got.shape[1] == channels


@pytest.mark.parametrize("name", REFUSED)
def test_changes_afterwards(name: str) -> None:
    model = timm.create_model(name, **TINY[name])
    for keyword, value in (("num_classes", -1), ("num_classes", 0.5), ("global_pool", "mean"), ("global_pool", 3)):
        with pytest.raises((ValueError, TypeError), match=f"{keyword}="):
            model.reset_classifier(**{"num_classes": 3, keyword: value})
    for size in (0, 2, 0.5, "axb", (24, 24, 24), nan, 99999) if name in IMAGES else ():
        with pytest.raises((ValueError, TypeError), match="img_size="):
            model.set_input_size(img_size=size)
        with pytest.raises((ValueError, TypeError), match="trained_size="):
            timm.create_model(name, **TINY[name], trained_size=size)
    if name not in ("swin_t", "cswin_t"):
        with pytest.raises(ValueError, match=r"window_img_size=32: .* has no such windows"):
            timm.create_model(name, **TINY[name], window_img_size=32)


def test_policies_that_are_no_text() -> None:
    for value in (["yarn"], ("yarn", "p"), 3):
        with pytest.raises(TypeError, match=r"policy=.* is no name"):
            timm.create_model("none_vit_ti", pos_encoding={"name": "rope_axial", "policy": value})
        with pytest.raises(ValueError, match=r"policy=.* is no policy"):
            visionpe.set_policy(timm.create_model("none_vit_ti", **TINY["none_vit_ti"]), value)
