"""CPVT v2, which is Twins-PCPVT: parity with the official code, its files, and CPVT of the paper by its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import randomize
from reference_files import close, read

from visionpe.backbones.cpvt.cpvt_models import SIZES

OFFICIAL: dict[str, Any] = dict(
    img_size=32,
    embed_dim=(16, 24, 32, 48),
    num_heads=(1, 2, 2, 4),
    mlp_ratios=(4, 4, 2, 2),
    depths=(2, 1, 2, 1),
    sr_ratios=(4, 2, 1, 1),
    num_classes=5,
)


def saved(state: Any, path: Path) -> str:
    torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_official(wrapper: str | None, tmp_path: Path) -> None:
    weights, inputs, outputs, _ = read("cpvt_v2")
    path = saved({wrapper: weights} if wrapper else weights, tmp_path / "pcpvt.pth")
    model = timm.create_model("cpvt_v2_s", checkpoint_path=path, **OFFICIAL).eval()
    with torch.no_grad():
        for run, x in inputs.items():
            final, maps = model.forward_intermediates(x, output_fmt="NHWC")
            close(model.forward_head(final, pre_logits=True), outputs[f"{run}.pooled"])
            close(model(x), outputs[f"{run}.logits"])
        _, maps = model.forward_intermediates(inputs["native"], output_fmt="NHWC")
        for index, stage in enumerate(maps):
            close(stage.flatten(1, 2), outputs[f"native.stage{index}"])


def test_the_same_as_timm() -> None:
    """At a size that neither patches nor cells divide, with the published widths; timm cannot run odd ones."""
    small: dict[str, Any] = {"depths": (1, 1, 1, 1), "num_classes": 3, "img_size": 64}
    theirs = randomize(timm.create_model("twins_pcpvt_small", **small))
    ours = timm.create_model("cpvt_v2_s", **small).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 84, 100)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_a_file_of_a_detector_and_features(tmp_path: Path) -> None:
    weights, inputs, outputs, _ = read("cpvt_v2")
    state = {f"backbone.{key}": value for key, value in weights.items() if not key.startswith(("head", "norm."))}
    path = saved({"state_dict": state | {"neck.conv.weight": torch.zeros(3)}}, tmp_path / "retinanet.pth")
    features = timm.create_model("cpvt_v2_s", features_only=True, checkpoint_path=path, **OFFICIAL).eval()
    with torch.no_grad():
        for index, ours in enumerate(features(inputs["native"])):
            close(ours.flatten(2).transpose(1, 2), outputs[f"native.stage{index}"])
    classifier = timm.create_model("cpvt_v2_s", **OFFICIAL)
    with pytest.raises(RuntimeError, match=r"CPVT with pos_encoding='cpe'; missing from the file: norm\.bias"):
        classifier.load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_encoding": "rope_mixed"}, r"missing.*freqs.*; not in the model: .*cpe"),
        ({"depths": (2, 1, 3, 1)}, r"missing from the file: stages\.2\.blocks\.2"),
        ({"sr_ratios": (4, 2, 2, 1)}, r"missing from the file: stages\.2\.blocks\.0\.attn\.norm"),
        ({"qkv_bias": False}, r"not in the model: stages\.0\.blocks\.0\.attn\.kv\.bias"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    model = timm.create_model("cpvt_v2_s", **{**OFFICIAL, **changes})
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(read("cpvt_v2")[0])


def test_published_sizes() -> None:
    """Parameters as published in Twins' table of ImageNet results, millions, and a source for every size."""
    for size, millions in (("s", 24.1), ("b", 43.8), ("l", 60.9)):
        with torch.device("meta"):
            model = timm.create_model(f"cpvt_v2_{size}")
        assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - millions) < 0.3
        assert timm.get_pretrained_cfg(f"cpvt_v2_{size}").hf_hub_id.startswith("timm/twins_pcpvt")
        assert not timm.get_pretrained_cfg(f"rope_cpvt_v2_{size}").has_weights
    assert [SIZES[size]["depths"] for size in "sbl"] == [(3, 4, 6, 3), (3, 4, 18, 3), (3, 8, 27, 3)]


def test_convolutions_that_tell_positions_do_not_decay() -> None:
    model = timm.create_model("cpvt_v2_s", **OFFICIAL)
    where = [f"stages.{stage}.pos_encoding.map.cpe.convs.0" for stage in range(4)]
    assert model.no_weight_decay() == {f"{each}.{name}" for each in where for name in ("weight", "bias")}


def test_cpvt_of_the_paper() -> None:
    """DeiT with a convolution after the first block, with a class token, or averaged."""
    small = dict(img_size=32, depth=2, num_classes=3)
    for size, dim, millions in (("ti", 192, 5.7), ("s", 384, 22.1), ("b", 768, 86.6)):
        for name in ("cpvt", "cpvt_gap"):
            with torch.device("meta"):
                model = timm.create_model(f"{name}_{size}")
            assert (model.embed_dim, len(model.blocks)) == (dim, 12)
            assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - millions) < 0.2
    x = torch.randn(1, 3, 40, 56).round(decimals=1)[..., :48]
    x = torch.nn.functional.pad(x, (0, 0, 0, 8))
    for name, options in (("cpvt_ti", {}), ("cpvt_gap_ti", {"class_token": False, "global_pool": "avg"})):
        model = randomize(timm.create_model(name, **small))
        twin = timm.create_model(
            "cpe_vit_ti", init_values=0.0, **small, **options, **({"fc_norm": False} if options else {})
        )
        twin.load_state_dict(model.state_dict())
        tokens = model.forward_features(x)
        pooled = tokens[:, 0] if name == "cpvt_ti" else tokens.mean(1)
        torch.testing.assert_close(model(x), twin.eval()(x))
        torch.testing.assert_close(model(x), model.head(pooled))
        assert model.pos_encoding.parts[0].layers == (0,)
