"""Swin3D's files: published keys, prefixes, filtered loading, sizes."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from conftest import randomize
from tiny_voxels import TINY, cloud, double, tiny


def test_weights_of_others(tmp_path: Any) -> None:
    x, own = double(cloud()), tiny()
    state = own.state_dict()
    with torch.no_grad():
        wanted = own(x)
        for prefix in ("", "module.", "backbone.", "module.backbone."):
            file = tmp_path / "weights.pth"
            torch.save({"state_dict": {prefix + k: v for k, v in state.items()}, "epoch": 3}, file)
            again = timm.create_model("swin3d_s_unet", checkpoint_path=file, **TINY, num_classes=5).double().eval()
            torch.testing.assert_close(again(x), wanted)
            nested = torch.nn.ModuleDict({"net": tiny()})
            nested.load_state_dict({f"net.{k}": v for k, v in state.items()})
            torch.testing.assert_close(nested["net"](x), wanted)
            assert nested.state_dict().keys() == {f"net.{k}" for k in state}
    with pytest.raises(RuntimeError, match=r"not in the model: layers.0.blocks.0.attn.key_rgb_table"):
        tiny("rope_mixed").load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"of another shape: .*xyz_table \(file \(3, 32, 2, 12\)"):
        tiny(window_size=(5, 5, 5)).load_state_dict(state)


@pytest.mark.parametrize("skip", [True, False])
def test_filtered_load(skip: bool, tmp_path: Any) -> None:
    pretrained = randomize(timm.create_model("swin3d_s_unet", **TINY, num_classes=9, decoder_attn=False), seed=1)
    torch.save({"state_dict": {f"module.{k}": v for k, v in pretrained.state_dict().items()}}, tmp_path / "a.pth")
    model = tiny(window_size=(4, 5, 4)).float()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    done = model.load_filtered(tmp_path / "a.pth", skip_first_conv=skip)
    given, after = pretrained.state_dict(), model.state_dict()
    assert ("stem_layer.conv_layers.0.kernel" in done.loaded) != skip
    assert "layers.2.blocks.0.attn.key_xyz_table" in done.skipped  # of another window
    assert "classifier.3.weight" in done.skipped
    assert "upsamples.0.block.blocks.0.attn.qkv.weight" in done.kept
    for key, value in after.items():
        torch.testing.assert_close(value, given[key] if key in done.loaded else before[key])
    with pytest.raises(ValueError, match="none of its 1 keys fits"):
        model.load_filtered({"conv.weight": torch.ones(1)})


def test_published_sizes() -> None:
    """The published numbers of parameters."""
    for name, signals, classes, attn, wanted in (
        ("swin3d_s_unet", "XYZ_RGB", 20, True, 26_496_116),
        ("swin3d_l_unet", "XYZ_RGB_NORM", 20, True, 71_119_540),
        ("swin3d_l_unet", "XYZ_RGB", 25, False, 60_757_000),
    ):
        with torch.device("meta"):
            model = timm.create_model(name, signals=signals, num_classes=classes, decoder_attn=attn)
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(wanted, rel=1e-5)
