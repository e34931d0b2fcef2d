"""What a model was trained at is saved beside its weights: timm's ``save_for_hf`` and back gives the same outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import randomize
from reference_files import close, read
from safetensors.torch import save_file

import visionpe
from visionpe.backbones.shared.loading import size_of_weights
from visionpe.policy.sizes import trained_size

# timm writes the keywords of a model beside its weights since then.
saves_keywords = pytest.mark.skipif(not hasattr(timm.models, "get_model_args"), reason="needs timm 1.0.31")

PLAIN = dict(embed_dim=32, depth=2, num_heads=2)
STAGES = dict(embed_dim=32, depths=(1, 1), num_heads=(2, 2))
MODELS = {
    "vit": ("none_vit_ti", PLAIN),
    "vitdet": ("none_vitdet_b", PLAIN | dict(window_size=3)),
    "swin": ("none_swin_t", STAGES | dict(window_size=4)),
    "cswin": ("none_cswin_t", STAGES),
    "crossformer": ("none_crossformer_t", STAGES),
    "rmt": ("none_rmt_t", STAGES | dict(embed_dim=(32, 32), mlp_ratio=2.0, decomposed=(True, False), decay_range=4.0)),
}
SPECS = {
    "sincos": "interpolate",
    "dropped(sincos)": "rescale(0.3)",
    "lape(sincos)": "interpolate",
    "dropped(lape(sincos))": "interpolate",
    "cropped(fourier)": "extrapolate",
    "ape": "nearest",
    "rope_mixed+ape": "yarn+bilinear",
    "randomised(rope_axial)": "ntk+temperature",
    "rope_axial": "interpolate+decay",
    "cropped(alibi)": "rescale(0.7)",
    "cpe": "native",
    "decomposed": "geometric",
    "rpb": "clamp",
}
SIZE = (96, 128)


def same(a: torch.nn.Module, b: torch.nn.Module, sizes: Any = (SIZE, (192, 192), (64, 64))) -> None:
    for size in sizes:
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(b(x), a(x), atol=1e-6, rtol=1e-5)


def hub(model: torch.nn.Module, folder: Path, **kwargs: Any) -> torch.nn.Module:
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **kwargs).eval()


def built(backbone: str, spec: str, **kwargs: Any) -> torch.nn.Module:
    name, shape = MODELS[backbone]
    return randomize(
        timm.create_model(name, pos_encoding=spec, **{"img_size": SIZE, "num_classes": 3, **shape, **kwargs})
    )


# In every backbone: wrappers, tables inside and outside, and rotations. In the ViT every one.
OFTEN = ("dropped(lape(sincos))", "rope_mixed+ape", "rpb")
TRIPS = [
    (backbone, spec) if backbone == "vit" or spec in OFTEN else pytest.param(backbone, spec, marks=pytest.mark.long)
    for backbone in MODELS
    for spec in SPECS
]


@saves_keywords
@pytest.mark.parametrize(("backbone", "spec"), TRIPS)
def test_round_trip(backbone: str, spec: str, tmp_path: Path) -> None:
    """Under a policy from construction, and under one set later; and from there once more."""
    model = built(backbone, spec, policy=SPECS[spec])
    again = hub(model, tmp_path / "a")
    same(model, again)
    later = visionpe.set_policy(built(backbone, spec), SPECS[spec])
    again = hub(later, tmp_path / "b")
    same(later, again)
    same(later, hub(again, tmp_path / "c"))
    visionpe.set_policy(again, "default")  # what it came back with is what it was built with
    same(later, again)


@saves_keywords
@pytest.mark.parametrize("backbone", MODELS)
@pytest.mark.parametrize("spec", ["sincos", "lape(sincos)", "rope_axial", "dropped(rope_axial)"])
def test_another_img_size_measures_from_the_same(backbone: str, spec: str, tmp_path: Path) -> None:
    model = built(backbone, spec, policy="interpolate")
    keys = {"stripe_widths": (1, 3)} if backbone == "cswin" else {}  # the default follows the size
    model = built(backbone, spec, policy="interpolate", **keys)
    larger = hub(model, tmp_path, img_size=(192, 160))
    assert trained_size(larger) == larger.trained_img_size == SIZE
    if backbone != "vitdet" or "sincos" not in spec:  # whose tables are of pretraining
        same(model, larger)


@saves_keywords
@pytest.mark.parametrize("backbone", MODELS)
@pytest.mark.parametrize("spec", ["sincos+rope_axial", "ape", "rpb"])
def test_after_set_input_size(backbone: str, spec: str, tmp_path: Path) -> None:
    """The nominal size has changed, what policies measure from has not; and once more, with weights that know it."""
    policy = {"rpb": "bicubic", "ape": "bilinear"}.get(spec, "interpolate")
    model = built(backbone, spec, policy=policy)
    model.set_input_size((160, 128))
    same(model, hub(model, tmp_path))


@pytest.mark.parametrize("backbone", MODELS)
@pytest.mark.parametrize("spec", ["sincos", "dropped(lape(sincos))", "rope_axial"])
def test_overlay(backbone: str, spec: str, tmp_path: Path) -> None:
    """A file of one's own has the size of the model, not that of the published weights; or the one told."""
    model = built(backbone, spec, policy="interpolate")
    save_file({k: v.clone() for k, v in model.state_dict().items()}, tmp_path / "m.safetensors")
    name, shape = MODELS[backbone]
    options = dict(pos_encoding=spec, num_classes=3, pretrained=True, policy="interpolate", **shape)
    overlay = {"file": str(tmp_path / "m.safetensors"), "num_classes": 3}
    same(model, timm.create_model(name, img_size=SIZE, pretrained_cfg_overlay=overlay, **options).eval())
    overlay = overlay | {"input_size": (3, *SIZE)}
    wide = timm.create_model(name, img_size=160, trained_size=SIZE, pretrained_cfg_overlay=overlay, **options).eval()
    told = timm.create_model(name, img_size=SIZE, trained_size="96x128", **options | dict(pretrained=False)).eval()
    assert wide.trained_img_size == told.trained_img_size == SIZE


@saves_keywords
@pytest.mark.parametrize("backbone", ["swin", "cswin"])
@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("window_in_step", [False, True])
def test_windows_that_grow(backbone: str, chosen: bool, window_in_step: bool, tmp_path: Path) -> None:
    """They measure from the size at which they were chosen, whatever the nominal size has become."""
    windows = {"swin": "window_size", "cswin": "stripe_widths"}[backbone]
    kwargs = {windows: (3, 5) if chosen else None}
    policy = {"swin": "window_policy", "cswin": "stripe_policy"}[backbone]
    spec = "cpe" if window_in_step else "rope_axial"  # which measures from the windows of training
    model = built(backbone, spec, policy="interpolate", **kwargs, **{policy: "grow"})
    model.set_input_size((160, 128), **({windows: (4, 6)} if window_in_step else {}))
    same(model, hub(model, tmp_path))


@saves_keywords
@pytest.mark.parametrize("backbone", ["swin", "cswin"])
@pytest.mark.parametrize("spec", ["rpb", "decomposed", "dropped(ape)+attention_bias"])
def test_tables_of_windows_that_grew(backbone: str, spec: str, tmp_path: Path) -> None:
    """Resized once, with the windows, and not once more on the way back."""
    windows, policy = {"swin": ("window_size", "window_policy"), "cswin": ("stripe_widths", "stripe_policy")}[backbone]
    model = built(backbone, spec, **{windows: (12, 5), policy: "grow"})
    model.set_input_size((192, 256))
    again = hub(model, tmp_path)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in model.state_dict().items())
    same(model, again)


@saves_keywords
def test_a_policy_for_every_size(tmp_path: Path) -> None:
    model = visionpe.set_policy(built("vit", "rope_axial"), {"96x128": "default", "192x192": "interpolate", 64: "ntk"})
    same(model, hub(model, tmp_path))


@saves_keywords
@pytest.mark.parametrize(
    ("backbone", "kwargs", "change"),
    [
        ("vitdet", {}, lambda m: setattr(m, "padding", "tokens")),
        ("cswin", {}, lambda m: m._set_padding("values")),
        ("cswin", {}, lambda m: m.set_stripe_policy("grow")),
        ("swin", {}, lambda m: m.set_window_fit("shorter_side", chosen=False)),
        ("swin", {}, lambda m: m.set_window_policy("grow")),
    ],
)
def test_what_the_loader_of_published_files_sets(backbone: str, kwargs: dict, change: Any, tmp_path: Path) -> None:
    """Padding and windows of the code that a file comes from are no part of the state dict, but of what is saved."""
    model, before = built(backbone, "rpb", **kwargs), built(backbone, "rpb", **kwargs)
    change(model)
    x = torch.randn(1, 3, 32, 200)
    with torch.no_grad():
        assert (model(x) - before(x)).abs().max() > 1e-4
    same(model, hub(model, tmp_path), sizes=(SIZE, (32, 200), (240, 72)))


@saves_keywords
def test_the_resize_of_the_official_code(tmp_path: Path) -> None:
    model = built("vit", "ape")
    file = {
        k.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2"): v for k, v in model.state_dict().items()
    }
    file["pos_embed"] = file.pop("pos_encoding.ape.table").flatten(0, 1)[None]
    model.load_state_dict(file)
    again = hub(model, tmp_path)
    assert again.pos_encoding.ape.policy == "bicubic"
    same(model, again)


@saves_keywords
@pytest.mark.parametrize("backbone", MODELS)
@pytest.mark.parametrize(
    "spec",
    [
        "rope_axial+sincos",
        [{"name": "rope_axial", "theta": 50}, {"name": "dropped", "over": "lape(sincos)"}],
        "randomised(rope_axial)+lape(sincos)",
    ],
)
def test_policies_that_differ(backbone: str, spec: Any, tmp_path: Path) -> None:
    """Encodings that share a policy and have another each are saved with it, each in the specification."""
    model = built(backbone, spec, policy="interpolate")
    for part in model.modules():
        if isinstance(part, visionpe.PositionEncoding) and part.name == "rope_axial":
            part.set_policy("extrapolate")
    if backbone == "vit":
        visionpe.set_policy(model.pos_encoding, "temperature")
        model.pos_encoding["rope_axial"].set_policy("rescale(0.7)")
    again = hub(model, tmp_path / "a")
    same(model, again)
    same(model, hub(again, tmp_path / "b"))


def parted() -> torch.Tensor:
    """Multipliers with which the linearly dependent form turns block j along axis ``j mod 2`` alone."""
    return (torch.arange(4) % 2 == torch.arange(2)[:, None]).float()[None, :, :, None, None]


@saves_keywords
@pytest.mark.parametrize("spec", ["comrope+ape", "dropped(ape)+comrope", None])
def test_options_that_loading_sets(spec: str | None, tmp_path: Path) -> None:
    """ComRoPE's code turns the class token and reads a table by rows: so does a saved model, and the next."""
    name = "comrope_ld" if spec else "comrope_ap"  # without a table, and an encoding by the name of the model alone
    weights, inputs, outputs, _ = read(name)
    if spec is None:
        ones = {f"vision_model.encoder.layers.{i}.self_attn.multiplier": parted() for i in range(2)}
        weights |= ones
    body = dict(img_size=24, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=5, mlp_ratio=2)
    clip = dict(pre_norm=True, act_layer="quick_gelu", norm_eps=1e-5)
    options = {} if spec is None else {"pos_encoding": spec}
    model = timm.create_model("comrope_vit_ti", **options, **body, **clip).eval()
    model.load_state_dict(weights)
    again = hub(model, tmp_path / "a", img_size=32)
    for each in (again, hub(again, tmp_path / "b")):
        with torch.no_grad():
            close(each(inputs["native"]), outputs["native.logits"])
            close(each(inputs["larger"]), outputs["larger.logits"])
    if spec is None:
        return
    with pytest.raises(ValueError, match="reads between its entries at every size"):
        visionpe.set_policy(again, "bicubic")


def test_published_weights_are_measured_from_their_size() -> None:
    assert size_of_weights("ape_vit_b", "deit3_384_in1k") == (384, 384)
    assert size_of_weights("ape_vit_b") == (224, 224)
    assert size_of_weights("ape_vit_b", None, {"file": "mine.pth"}) is None
    assert size_of_weights("ape_vit_b", None, {"file": "mine.pth", "input_size": (3, 96, 128)}) == (96, 128)
    assert size_of_weights("ape_vit_b", {"input_size": [3, 96, 128]}) == (96, 128)
    assert size_of_weights("ape_vit_b", {"file": "mine.pth"}) is None
    assert size_of_weights("ape_vit_b", None, None, {"img_size": 96}) == (96, 96)
    assert size_of_weights("ape_vit_b", None, None, {"img_size": 160, "trained_size": [96, 128]}) == (96, 128)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"trained_size='wide' is no image size"):
        built("vit", "ape", trained_size="wide")
    with pytest.raises(ValueError, match=r"trained_size=64: none_swin3d_s has no images"):
        timm.create_model("none_swin3d_s", trained_size=64)


@pytest.mark.parametrize("backbone", MODELS)
def test_keywords_that_the_user_saves(backbone: str, tmp_path: Path) -> None:
    """As older releases of timm have it: the size of the model is in the keywords alone."""
    name, shape = MODELS[backbone]
    kwargs = dict(pos_encoding="rope_axial+sincos", img_size=SIZE, policy="interpolate", **shape)
    model = randomize(timm.create_model(name, num_classes=3, **kwargs))
    timm.models.save_for_hf(model, tmp_path, model_args=kwargs)
    same(model, timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval())
