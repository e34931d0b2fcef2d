"""Weights of a TimmFeatures: from classifiers, detectors and published files, all that it needs or an error."""

import pickle

import pytest
import timm
import torch
from mmengine.model import ExponentialMovingAverage
from reference_files import read
from safetensors.torch import save_file
from tiny_features import ADAPTED, TINY, build, drawn

from visionpe.detection import TimmFeatures, TimmImageClassifier


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "rope_ape_vit_s", "vitdet_b", "cswin_t"])
@pytest.mark.parametrize("way", ["model.safetensors", "classifier.pth", "detector.pth", "checkpoint_path"])
def test_weights_of_other_models(name, way, tmp_path):
    options = {key: value for key, value in TINY[name].items() if key != "out_indices"}
    if name == "cswin_t":
        options["feature_norms"] = True
    classifier = drawn(TimmImageClassifier(name, num_classes=3, **options))
    weights = classifier.model.state_dict()
    kwargs = {"out_indices": (0,)} if len(TINY[name].get("out_indices", range(4))) == 4 else {}
    if name in ADAPTED:  # whose positions have other keys, see test_adapted_backbone.py
        kwargs["adapt"] = False
    file = tmp_path / way.replace("checkpoint_path", "model.safetensors")
    if file.suffix == ".safetensors":
        save_file(weights, file)
    elif way == "classifier.pth":
        torch.save({"state_dict": classifier.state_dict(), "meta": {"seed": 1}}, file)
    else:
        whole = build(name, adapt=name not in ADAPTED)
        own = whole.model.state_dict()
        whole.model.load_state_dict({key: value for key, value in weights.items() if key in own})
        state = {f"backbone.{key}": value for key, value in whole.state_dict().items()}
        torch.save({"state_dict": {**state, "neck.weight": torch.zeros(1)}}, file)

    if way == "checkpoint_path":
        backbone = build(name, checkpoint_path=str(file), **kwargs)
    else:
        backbone = build(name, init_cfg={"type": "Pretrained", "checkpoint": str(file)}, **kwargs)
        key, value = next(iter(backbone.model.state_dict().items()))
        assert not value.equal(weights[key])
        backbone.init_weights()
    own = backbone.model.state_dict()
    assert len(own) < len(weights)
    assert all(value.equal(weights[key]) for key, value in own.items())
    assert any(key.split(".")[0] in ("norm", "head", "fc", "fc_norm") for key in weights.keys() - own.keys())


@pytest.mark.parametrize("name", ["swin_t", "cswin_t"])
def test_a_classifier_has_one_norm_and_features_have_four(name, tmp_path):
    options = {key: value for key, value in TINY[name].items() if key != "feature_norms"}
    weights = drawn(timm.create_model(name, **options)).state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    own = build(name, checkpoint_path=str(tmp_path / "model.safetensors")).model.state_dict()
    assert all(value.equal(weights[key]) for key, value in own.items() if not key.startswith("norms."))
    assert own["norms.3.weight"].equal(weights["norm.weight"])
    assert own["norms.0.weight"].eq(1).all()


@pytest.mark.parametrize("name", ["swin_t", "cswin_t"])
def test_fresh_norms(name, tmp_path):
    """As Swin and CSWin are published for dense tasks: of a classifier no norm; of a detector all of them."""
    options = {key: value for key, value in TINY[name].items() if key != "feature_norms"}
    classifier, file = drawn(timm.create_model(name, **options)).state_dict(), tmp_path / "model.safetensors"
    save_file(classifier, file)
    overlay = {"file": str(file), "num_classes": 1000}
    ways = [{"checkpoint_path": str(file)}, {"pretrained": True, "pretrained_cfg_overlay": overlay}]
    for way in ways:
        own = build(name, fresh_norms=True, **way).model.state_dict()
        assert own["stages.0.blocks.0.mlp.fc1.weight"].equal(classifier["stages.0.blocks.0.mlp.fc1.weight"])
        norms = {key: value for key, value in own.items() if key.startswith("norms.")}
        assert len(norms) == 8
        assert all(value.eq(key.endswith("weight")).all() for key, value in norms.items())
    detector = drawn(build(name)).state_dict()
    torch.save({"state_dict": {f"backbone.{key}": value for key, value in detector.items()}}, tmp_path / "d.pth")
    own = build(name, fresh_norms=True, checkpoint_path=str(tmp_path / "d.pth")).state_dict()
    assert all(value.equal(detector[key]) for key, value in own.items())
    with pytest.raises(ValueError, match=r"fresh_norms=True: 'resnet18' has no norms of its features; allowed: False"):
        TimmFeatures("resnet18", fresh_norms=True)


@pytest.mark.parametrize("name", ["resnet18", "cswin_t"])
def test_prefix_names_the_part_of_a_file(name, tmp_path):
    whole = drawn(build(name))
    file = tmp_path / "segmentor.pth"
    torch.save({"state_dict": {f"student.backbone.{key}": value for key, value in whole.state_dict().items()}}, file)
    config = {"type": "Pretrained", "checkpoint": str(file), "prefix": "student.backbone."}
    backbone = build(name, init_cfg=config)
    backbone.init_weights()
    assert all(value.equal(whole.state_dict()[key]) for key, value in backbone.state_dict().items())
    with pytest.raises(ValueError, match=r"nothing below prefix='teacher\.'"):
        build(name, init_cfg={**config, "prefix": "teacher."}).init_weights()


@pytest.mark.parametrize("name", ["resnet18", "rope_ape_vit_s", "cswin_t"])
@pytest.mark.parametrize("fault", ["missing", "left over", "shape", "other model"])
def test_weights_that_do_not_fit_are_refused(name, fault, tmp_path):
    whole = build(name).model
    state = dict(whole.state_dict())
    key = next(key for key, value in state.items() if (key.endswith("weight") and value.ndim == 2) or "conv2" in key)
    if fault == "missing":
        del state[key]
    elif fault == "left over":
        state["blocks.99.weight"] = torch.zeros(1)
    elif fault == "shape":
        state[key] = torch.zeros(3, 3)
    else:
        state = {f"other.{key}": value for key, value in state.items()}
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        build(name, checkpoint_path=str(tmp_path / "x.safetensors"))


def test_a_file_of_detectron2(tmp_path):
    whole = drawn(build("vitdet_b")).model.state_dict()
    arrays = {f"backbone.net.{key}": value.numpy() for key, value in whole.items() if "pos_encoding" not in key}
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps({"model": arrays}))
    own = build("vitdet_b", checkpoint_path=str(file)).model.state_dict()
    assert all(value.equal(whole[key]) for key, value in own.items() if "pos_encoding" not in key)
    del arrays["backbone.net.blocks.1.norm1.weight"]
    file.write_bytes(pickle.dumps({"model": arrays}))
    with pytest.raises(ValueError, match=r"model\.pkl.*missing from the file: blocks\.1\.norm1\.weight"):
        build("vitdet_b", checkpoint_path=str(file))


def test_what_a_files_wrapper_tells_reaches_the_backbone(tmp_path):
    """RoPE-ViT's file and timm's copy have the same keys; the authors' is resized as their code does."""
    weights, inputs, _, metadata = read("ropevit_axial_ape")
    torch.save({"model": weights}, tmp_path / "official.pth")
    torch.save({"state_dict": weights}, tmp_path / "timm.pth")
    options = {**metadata["kwargs"], "out_indices": (1,)}
    for name, policy in (("official", "bicubic"), ("timm", "bicubic_antialias")):
        backbone = TimmFeatures("rope_axial_ape_vit_s", checkpoint_path=str(tmp_path / f"{name}.pth"), **options)
        assert backbone.model.pos_encoding["ape"].policy == policy
        assert backbone(inputs["larger"])[0].shape == (1, 32, 8, 8)


def test_a_backbone_that_computes_something_else_is_refused(tmp_path):
    weights, _, _, _ = read("comrope_ap")
    torch.save(weights, tmp_path / "official.pth")
    options = dict(img_size=24, patch_size=4, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2, out_indices=(1,))
    options |= dict(
        pos_encoding={"name": "comrope", "form": "ap"}, pre_norm=True, checkpoint_path=str(tmp_path / "official.pth")
    )
    assert TimmFeatures("comrope_vit_ti", act_layer="quick_gelu", norm_eps=1e-5, **options).channels == [32]
    with pytest.raises(
        ValueError, match="norm_eps=1e-06 is not that of the file's code; allowed: 1e-05; act_layer=GELU"
    ):
        TimmFeatures("comrope_vit_ti", **options)


def test_published_wrappers(tmp_path):
    weights = build("cswin_t").model.state_dict()
    torch.save({"state_dict_ema": weights, "epoch": 3}, tmp_path / "x.pth")
    own = build("cswin_t", checkpoint_path=str(tmp_path / "x.pth")).model.state_dict()
    assert all(value.equal(weights[key]) for key, value in own.items())


def test_missing_file():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build("resnet18", checkpoint_path="nowhere.safetensors")


VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 64}
MEAN = {"class_token": False, "global_pool": "avg"}
PYRAMID = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (2, 4, 8, 8)}


def forms(classifier, folder):
    """The files in which a trained classifier is found."""
    state, average = classifier.model.state_dict(), ExponentialMovingAverage(classifier).state_dict()
    save_file({key: value.clone() for key, value in state.items()}, folder / "model.safetensors")
    whole = classifier.state_dict()
    for name, content in {
        "plain.pth": state,
        "epoch_1.pth": {"state_dict": whole, "meta": {}},
        "ema.pth": {"state_dict": whole, "ema_state_dict": average, "optimizer": {"lr": [1]}},
        "parallel.pth": {"state_dict": {f"module.{key}": value for key, value in whole.items()}},
        "timm.pth.tar": {"state_dict": {}, "state_dict_ema": state, "epoch": 1},
    }.items():
        torch.save(content, folder / name)
    return ["model.safetensors", "plain.pth", "epoch_1.pth", "ema.pth", "parallel.pth", "timm.pth.tar"]


@pytest.mark.parametrize(
    ("source", "trained", "name", "options"),
    [
        ("rope_vit_ti", VIT, "rope_vit_ti", {**VIT, "out_indices": (0, 1)}),
        ("rope_vit_ti", {**VIT, **MEAN}, "rope_vit_ti", {**VIT, **MEAN, "out_indices": (1,)}),
        ("ape_vit_ti", {**VIT, **MEAN}, "ape_vit_ti", {**VIT, "class_token": False, "out_indices": (0,)}),
        ("rope_vit_ti", {**VIT, "global_pool": "avg"}, "rope_vit_ti", {**VIT, "out_indices": (1,)}),
        ("vit_tiny_patch16_224", {**VIT, **MEAN}, "vit_tiny_patch16_224", {**VIT, **MEAN, "out_indices": (1,)}),
        ("swin_t", PYRAMID, "swin_t", PYRAMID),
        ("swin_t", PYRAMID, "swin_t", {**PYRAMID, "feature_norms": False, "out_indices": (1, 2)}),
        ("cswin_t", PYRAMID, "cswin_t", {**PYRAMID, "out_indices": (1, 3)}),
        ("none_vit_ti", VIT, "none_vitdet_b", {**VIT, "window_size": 2, "init_values": 1e-5, "out_indices": (1,)}),
        ("ape_vit_ti", {**VIT, **MEAN, "init_values": 0}, "vitdet_b",
         {**VIT, "pretrain_img_size": 64, "window_size": 2, "out_indices": (1,)}),
    ],
)  # fmt: skip
def test_every_classifier_starts_the_same_backbone(source, trained, name, options, tmp_path):
    """Norms of the classifier are left out, or are the norm of the last map; all else is taken as it is."""
    classifier = drawn(TimmImageClassifier(source, num_classes=3, **trained))
    weights = classifier.model.state_dict()
    for form in forms(classifier, tmp_path):
        own = TimmFeatures(name, checkpoint_path=str(tmp_path / form), **options).model.state_dict()
        for key, value in own.items():
            if key.startswith("norms."):
                kind = key.rpartition(".")[2]
                assert (
                    value.equal(weights[f"norm.{kind}"])
                    if key.startswith("norms.3")
                    else value.eq(kind[0] == "w").all()
                )
            elif "pos_encoding" not in key or key in weights:
                assert value.equal(weights[key]), key


TIMM = "vit_tiny_patch16_224"
SCALED = {"init_values": 1e-5}


@pytest.mark.parametrize(
    ("name", "trained", "options", "hint"),
    [
        ("rope_vit_ti", MEAN, {}, "the model has a class token, the file none: give class_token=False"),
        ("rope_vit_ti", {}, MEAN, "the model has no class token, the file a class token"),
        ("rope_vit_ti", {}, {"init_values": 0}, "the file has LayerScale: give init_values=1e-5"),
        (TIMM, MEAN, {}, "the model has a class token, the file none: give class_token=False"),
        (TIMM, SCALED, {}, "the file has LayerScale: give init_values=1e-5"),
        (TIMM, {}, SCALED, "the file has no LayerScale: give init_values=0"),
    ],
)
def test_the_keyword_that_would_make_it_fit_is_named(name, trained, options, hint, tmp_path):
    save_file(timm.create_model(name, **VIT, **trained).state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=hint):
        TimmFeatures(name, checkpoint_path=str(tmp_path / "x.safetensors"), out_indices=(0,), **VIT, **options)
