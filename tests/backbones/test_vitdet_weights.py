"""Every published layout loads into windowed ViTs, with the output of the code that it is from; others are refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
from conftest import randomize, tiny_vit
from reference_files import close
from safetensors.torch import save_file
from test_vitdet import TINY, tiny_vitdet

from visionpe.utils.errors import InputError

# timm's samvit in the sizes of these tests.
SAM = dict(img_size=224, embed_dim=64, depth=4, num_heads=2, num_classes=5)
LAYERS = (1, 3)
NO_HEAD = "ignore:the checkpoint has no classifier"


def official(model: torch.nn.Module, prefix: str, names: dict[str, str]) -> dict[str, torch.Tensor]:
    """The state dict of a model of ours as detectron2, SAM and MAE would name it."""
    out = {}
    for key, value in model.state_dict().items():
        if key.startswith("pos_encoding.inside"):
            kind, axis = key.split(".")[2], "h" if "height" in key else "w"
            blocks = [i for i, (its, _) in model.places.items() if its == kind]
            out |= {f"blocks.{i}.attn.rel_pos_{axis}": table.clone() for i, table in zip(blocks, value)}
        elif key.startswith("pos_encoding.map.ape"):
            out["pos_embed"] = value[None].clone()
        else:
            for ours, theirs in names.items():
                key = key.replace(ours, theirs)
            out[key] = value
    return {prefix + key: value for key, value in out.items()}


def loaded(state: dict, path: Path, name: str = "vitdet_b", **kwargs: object) -> torch.nn.Module:
    """As a user loads a file of somebody else."""
    torch.save(state, path / "file.pth")
    return timm.create_model(name, checkpoint_path=path / "file.pth", **{**TINY, **kwargs}).eval()


def randomized_samvit(name: str, **kwargs: object) -> torch.nn.Module:
    model = randomize(timm.create_model(name, global_attn_indexes=LAYERS, **{**SAM, **kwargs}))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "rel_pos" in key or "pos_embed" in key or key == "neck.weight":
                parameter.normal_()
    return model


@pytest.mark.parametrize("size", [(224, 224), (160, 288), (48, 400)])
@torch.no_grad()
def test_timm_samvit(size: tuple[int, int], tmp_path: Path) -> None:
    """A square and other sizes that windows of 14 tokens do and do not divide.

    In float64 before torch 2.13: attention is so sharp here that its rounding in float32 grew past the tolerance.
    """
    recent = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
    dtype = torch.float32 if recent else torch.float64
    theirs = randomized_samvit("samvit_base_patch16_224").to(dtype)
    save_file(theirs.state_dict(), tmp_path / "samvit.safetensors")
    ours = timm.create_model(
        "decomposed_vitdet_b", checkpoint_path=tmp_path / "samvit.safetensors", fc_norm=False, norm_eps=1e-5, **SAM
    )
    ours = ours.to(dtype).eval()
    x = torch.randn(2, 3, *size, dtype=dtype)
    close(ours.forward_features(x), theirs.forward_features(x))
    close(ours(x), theirs(x))
    for a, b in zip(*(m.forward_intermediates(x, intermediates_only=True) for m in (ours, theirs))):
        close(a, b)


@torch.no_grad()
def test_timm_samvit_with_table_and_neck(tmp_path: Path) -> None:
    """The absolute table keeps the size of the file's, 16 x 16, without a keyword."""
    theirs = randomized_samvit("samvit_base_patch16", img_size=256, neck_chans=24)
    save_file(theirs.state_dict(), tmp_path / "samvit.safetensors")
    kwargs = {**SAM, "img_size": 256}
    ours = timm.create_model(
        "vitdet_b", checkpoint_path=tmp_path / "samvit.safetensors", neck_channels=24, norm_eps=1e-5, **kwargs
    ).eval()
    x = torch.randn(2, 3, 256, 256)
    close(ours.forward_features(x), theirs.forward_features(x))
    close(ours(x), theirs(x))


@torch.no_grad()
def test_sam(tmp_path: Path) -> None:
    source = tiny_vitdet(neck_channels=16, num_classes=0, padding="tokens", pretrain_img_size=32)
    state = official(source, "image_encoder.", {".mlp.fc": ".mlp.lin"})
    assert "image_encoder.blocks.0.mlp.lin1.weight" in state
    state |= {"mask_decoder.iou_token.weight": torch.zeros(1, 4), "prompt_encoder.no_mask_embed.weight": torch.zeros(1)}
    x = torch.randn(1, 3, 28, 44)
    close(loaded(state, tmp_path, neck_channels=16, num_classes=0).forward_features(x), source.forward_features(x))
    without = loaded(state, tmp_path, num_classes=0)  # the neck is of the decoder as much as of the backbone
    close(without.forward_features(x), source.forward_intermediates(x, 1, intermediates_only=True)[0])


@torch.no_grad()
def test_a_whole_detector_of_detectron2(tmp_path: Path) -> None:
    """As a pickle of arrays, with residual blocks, a class slot and pyramid layers."""
    source = tiny_vitdet(num_classes=0, residual_blocks=(1, 3), padding="tokens", fc_norm=False, final_norm=False)
    state = official(source, "backbone.net.", {})
    table = state["backbone.net.pos_embed"].flatten(1, 2)
    state["backbone.net.pos_embed"] = torch.cat([torch.randn(1, 1, 32), table], dim=1)
    state |= {"backbone.simfp_2.0.weight": torch.zeros(3), "roi_heads.box_head.fc1.weight": torch.zeros(3)}
    arrays = OrderedDict((key, value.numpy()) for key, value in state.items())
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}))
    overlay = {"file": str(tmp_path / "model.pkl"), "custom_load": True}
    ours = timm.create_model(
        "vitdet_b",
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        residual_blocks=(1, 3),
        **{**TINY, "num_classes": 0},
    ).eval()
    assert ours.padding == "tokens"
    x = torch.randn(1, 3, 28, 44)
    close(ours.forward_features(x), source.forward_features(x))
    kept = loaded(state, tmp_path, residual_blocks=(1, 3), num_classes=0, padding="mask")
    assert kept.padding == "mask"  # the user's choice


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": pytest.raises}))
    with pytest.raises(InputError, match=r"was not loaded: it holds .*raises, which can run code"):
        tiny_vitdet().load_pretrained(str(tmp_path / "model.pkl"))


@pytest.mark.filterwarnings(NO_HEAD)
@torch.no_grad()
def test_mae(tmp_path: Path) -> None:
    """Class slot and token dropped, with the norm after all blocks; relative tables start at zero, the head anew."""
    source = tiny_vitdet("ape")
    with torch.no_grad():
        state = official(source, "", {})
    table = state["pos_embed"].flatten(1, 2)
    state["pos_embed"] = torch.cat([torch.randn(1, 1, 32), table], dim=1)
    state = {k: v for k, v in state.items() if not k.startswith(("head.", "fc_norm."))}
    state |= {"cls_token": torch.randn(1, 1, 32), "mask_token": torch.zeros(1, 1, 8), "norm.weight": torch.randn(32)}
    state |= {"norm.bias": torch.randn(32), "decoder_blocks.0.norm1.weight": torch.zeros(8)}
    ours, x = loaded({"model": state}, tmp_path), torch.randn(1, 3, 28, 44)
    assert ours.padding == "mask"
    close(ours.forward_features(x), source.forward_features(x))
    with pytest.warns(UserWarning, match="no classifier of a map: the model's starts as initialised"):
        ours.load_state_dict(state)
    normed = loaded({"model": state}, tmp_path, fc_norm=False)
    assert torch.equal(normed.norm.weight, state["norm.weight"])


@torch.no_grad()
def test_a_fine_tuned_mae(tmp_path: Path) -> None:
    """The classifier after pooling and its norm load, as they do not read the class token."""
    source = tiny_vitdet("ape")
    state = official(source, "", {})
    state |= {"pos_embed": state["pos_embed"].flatten(1, 2), "cls_token": torch.randn(1, 1, 32)}
    ours, x = loaded({"model": state}, tmp_path), torch.randn(1, 3, 32, 32)
    close(ours(x), source(x))


@pytest.mark.filterwarnings(NO_HEAD)
@torch.no_grad()
def test_plain_vits(tmp_path: Path) -> None:
    """timm's, and ours with what the blocks hold shared out among global and windowed ones."""
    options = {k: v for k, v in TINY.items() if k not in ("pretrain_img_size", "window_size")}
    theirs = randomize(timm.create_model("vit_base_patch16_224", class_token=False, global_pool="avg", **options))
    x = torch.randn(2, 3, 32, 32)
    ours = loaded(theirs.state_dict(), tmp_path, window_size=0)
    close(ours(x), theirs(x))
    with_token = timm.create_model("vit_base_patch16_224", **options)
    loaded(with_token.state_dict(), tmp_path, name="rope_vitdet_b", pos_encoding="rope_mixed+ape")

    plain = tiny_vit("rope_mixed+ape", depth=4, class_token=False, init_values=0, global_pool="avg")
    ours = loaded(plain.state_dict(), tmp_path, name="rope_vitdet_b", pos_encoding="rope_mixed+ape")
    freqs = plain.pos_encoding["rope_mixed"].freqs
    assert torch.equal(ours.pos_encoding.inside["whole"]["rope_mixed"].freqs, freqs[:, [1, 3]])
    assert torch.equal(ours.pos_encoding.inside["window"]["rope_mixed"].freqs, freqs[:, [0, 2]])
    ours = loaded(plain.state_dict(), tmp_path, name="rope_vitdet_b", pos_encoding="rope_mixed+ape", window_size=0)
    small = torch.randn(2, 3, 24, 24)
    close(ours(small), plain(small))


@torch.no_grad()
def test_our_own_files(tmp_path: Path) -> None:
    source = tiny_vitdet(pretrain_img_size=32)
    ours, x = loaded(source.state_dict(), tmp_path), torch.randn(1, 3, 28, 44)
    close(ours(x), source(x))
    larger = loaded(source.state_dict(), tmp_path, img_size=64)  # its tables are resized once more on the way back
    assert larger(x).shape == (1, 5)


@pytest.mark.filterwarnings(NO_HEAD)
def test_refusals(tmp_path: Path) -> None:
    state = official(tiny_vitdet(num_classes=0, fc_norm=False, final_norm=False), "backbone.net.", {})
    with pytest.raises(RuntimeError, match=r"ViTDet with pos_encoding='rope_mixed'; not in the model: pos_encoding"):
        loaded(state, tmp_path, name="rope_vitdet_b", num_classes=0)
    with pytest.raises(
        RuntimeError, match=r"rel_pos_h of the global blocks has lengths \[5, 15\].*global_blocks=\(0, 1"
    ):
        loaded(state, tmp_path, global_blocks=(0, 1), num_classes=0)
    with pytest.raises(RuntimeError, match=r"does not fit a ViTDet.*missing from the file: "):
        loaded(timm.create_model("resnet18").state_dict(), tmp_path)
    state["backbone.net.pos_embed"] = torch.zeros(1, 23, 32)
    with pytest.raises(RuntimeError, match="pos_embed of 23 tokens is neither a square"):
        loaded(state, tmp_path, num_classes=0)
    normed = timm.create_model("none_vitdet_b", fc_norm=False, **TINY).state_dict()
    with pytest.raises(RuntimeError, match=r"not in the model: norm\.bias, norm\.weight"):  # its classifier needs it
        loaded(normed, tmp_path, name="none_vitdet_b")


@pytest.mark.filterwarnings(NO_HEAD)
@pytest.mark.parametrize("layout", ["timm", "authors"])
@torch.no_grad()
def test_rotary_plain_vits(layout: str, tmp_path: Path) -> None:
    """RoPE-ViT's files: frequencies are shared out among global and windowed blocks, fixed ones built anew."""
    sizes = {k: v for k, v in TINY.items() if k not in ("pretrain_img_size", "window_size", "num_classes")}
    theirs = randomize(timm.create_model("vit_base_patch16_rope_mixed_ape_224", num_classes=5, **sizes))
    state, name = theirs.state_dict(), "rope_vitdet_b"
    if layout == "authors":
        state["freqs"] = state.pop("rope.freqs").flatten(2)
        state |= {key: torch.zeros(16) for key in ("freqs_t_x", "freqs_t_y")}
    spec = {"pos_encoding": "rope_mixed+ape", "init_values": 1e-4}
    plain = tiny_vit("rope_mixed+ape", depth=sizes["depth"], **{k: v for k, v in sizes.items() if k != "depth"})
    plain.load_state_dict(state)
    ours = loaded(state, tmp_path, name=name, **spec)
    freqs = plain.pos_encoding["rope_mixed"].freqs
    for kind in ("whole", "window"):
        blocks = [i for i, (its, _) in ours.places.items() if its == kind]
        assert blocks
        assert torch.equal(ours.pos_encoding.inside[kind]["rope_mixed"].freqs, freqs[:, blocks])
    assert torch.equal(ours.pos_encoding.map["ape"].table, plain.pos_encoding["ape"].table)
    assert torch.equal(ours.blocks[1].ls2.gamma, plain.blocks[1].ls2.gamma)
    axial = timm.create_model("vit_base_patch16_rope_224", num_classes=5, **sizes)
    loaded(axial.state_dict() | {"rope.bands": torch.ones(2)}, tmp_path, name="rope_axial_vitdet_b", init_values=1e-4)


def test_published_plain_vits() -> None:
    for ours in ("rope_vitdet_b", "ape_vitdet_l", "rope_axial_vitdet_b"):
        cfg, plain = (timm.get_pretrained_cfg(f"{n}.naver_in1k") for n in (ours, ours.replace("vitdet", "vit")))
        assert cfg.hf_hub_id == plain.hf_hub_id
        assert (cfg.input_size, cfg.num_classes) == ((3, 1024, 1024), 0)
    assert not timm.is_model_pretrained("alibi_vitdet_b")


def test_published_names() -> None:
    names = timm.list_models("vitdet_*", include_tags=True)
    cfgs = [timm.get_pretrained_cfg(name, allow_unregistered=False) for name in names if "." in name]
    assert len(cfgs) == 9
    assert all(cfg.url.startswith("https://dl.fbaipublicfiles.com/") and not cfg.num_classes for cfg in cfgs)
    assert all(cfg.custom_load == cfg.url.endswith(".pkl") for cfg in cfgs)
