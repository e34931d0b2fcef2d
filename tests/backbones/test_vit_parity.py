"""Same weights, same outputs as the official code and as timm."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from conftest import randomize
from reference_files import close, read
from safetensors.torch import save_file
from torch import nn

import visionpe  # noqa: F401  registers the models


@pytest.mark.parametrize(
    ("name", "model_name"), [("ropevit_axial", "rope_axial_vit_s"), ("ropevit_mixed_ape", "rope_ape_vit_s")]
)
@pytest.mark.parametrize("run", ["native", "lowcontrast", "larger", "nonsquare"])
def test_rope_vit(name: str, model_name: str, run: str, tmp_path: Path) -> None:
    weights, inputs, outputs, metadata = read(name)
    official = metadata["kwargs"]
    keywords = {k: official[k] for k in ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "num_classes")}
    torch.save({"model": weights}, tmp_path / "official.pth")
    model = timm.create_model(model_name, checkpoint_path=tmp_path / "official.pth", **keywords).eval()
    with torch.no_grad():
        close(model.forward_features(inputs[run]), outputs[f"{run}.tokens"])
        close(model(inputs[run]), outputs[f"{run}.logits"])


TIMM = {
    "vit_small_patch16_rope_224": "rope_axial_vit_s",
    "vit_small_patch16_rope_mixed_224": "rope_vit_s",
    "vit_small_patch16_rope_ape_224": "rope_axial_ape_vit_s",
    "vit_small_patch16_rope_mixed_ape_224": "rope_ape_vit_s",
    "vit_small_patch16_224": "ape_vit_s",
    "deit3_small_patch16_224": "ape_vit_s",
}


@pytest.mark.parametrize("theirs", TIMM)
def test_timm(theirs: str, tmp_path: Path) -> None:
    """Of the published width; one of them also of the published depth."""
    depth = {} if theirs == "vit_small_patch16_rope_mixed_ape_224" else {"depth": 2}
    reference = randomize(timm.create_model(theirs, dynamic_img_size=True, **depth))
    path = tmp_path / "timm.safetensors"
    save_file(reference.state_dict(), path)
    ours = timm.create_model(TIMM[theirs], checkpoint_path=path, **depth).eval()
    for size in ((224, 224), (320, 256)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            close(ours(x), reference(x))
            close(ours.forward_features(x), reference.forward_features(x))


@pytest.mark.parametrize("theirs", ["vit_small_patch16_rope_mixed_ape_224", "vit_small_patch16_224"])
def test_timm_built_for_another_size(theirs: str, tmp_path: Path) -> None:
    """A file trained at 224 loads at img_size 320 x 256, the table resized as timm resizes it."""
    source = randomize(timm.create_model(theirs, num_classes=7, depth=3))
    path = tmp_path / "timm.safetensors"
    save_file(source.state_dict(), path)
    overlay = {"file": str(path), "num_classes": 7}
    options = dict(img_size=(320, 256), num_classes=7, depth=3, pretrained=True, pretrained_cfg_overlay=overlay)
    reference, ours = (timm.create_model(name, **options).eval() for name in (theirs, TIMM[theirs]))
    x = torch.randn(1, 3, 320, 256)
    with torch.no_grad():
        close(ours(x), reference(x))


def test_registers_of_timm(tmp_path: Path) -> None:
    """Register tokens with slots in the table: folded into the tokens, the outputs stay."""
    keywords = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5, reg_tokens=3)
    reference = randomize(timm.create_model("vit_small_patch16_224", **keywords))
    path = tmp_path / "registers.pth"
    torch.save(reference.state_dict(), path)
    ours = timm.create_model("ape_vit_s", checkpoint_path=path, **keywords).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        close(ours(x), reference(x))


@pytest.mark.parametrize("run", ["native", "larger"])
def test_croma_encoder(run: str) -> None:
    """2D-ALiBi inside the encoder that it was published in."""
    weights, inputs, outputs, metadata = read("croma_encoder")
    official = metadata["kwargs"]
    model = timm.create_model(
        "alibi_vit_s", img_size=40, patch_size=official["patch_size"], in_chans=official["in_channels"],
        embed_dim=official["dim"], depth=official["depth"], num_heads=official["num_heads"], num_classes=0,
        class_token=False, global_pool="", init_values=0, qkv_bias=False, norm_layer=partial(nn.LayerNorm, eps=1e-5),
    ).eval()  # fmt: skip
    names = {
        "0.input_norm": "norm1", "0.to_qkv": "attn.qkv", "0.to_out": "attn.proj",
        "1.input_norm": "norm2", "1.net.0": "mlp.fc1", "1.net.3": "mlp.fc2",
    }  # fmt: skip
    state = {}
    for key, value in weights.items():
        key = key.removeprefix("encoder.")
        if key.startswith("linear_input"):
            patches = value.view(official["dim"], official["in_channels"], 8, 8) if key.endswith("weight") else value
            state[key.replace("linear_input", "patch_embed.proj")] = patches
        elif "norm_out" in key:
            state[key.replace("transformer.norm_out", "norm")] = value
        else:
            _, _, layer, rest = key.split(".", 3)
            name, kind = rest.rsplit(".", 1)
            state[f"blocks.{layer}.{names[name]}.{kind}"] = value
    model.load_state_dict(state)
    with torch.no_grad():
        close(model.forward_features(inputs[run]), outputs[f"{run}.tokens"])
