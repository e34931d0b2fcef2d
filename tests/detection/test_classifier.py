"""TimmImageClassifier: any timm model, and weights that stay."""

import pytest
import timm
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS, init_default_scope
from safetensors.torch import load_file, save_file

from visionpe.detection import TimmImageClassifier

TINY = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 5,
}


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmpretrain")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    model = timm.create_model("ape_vit_ti", **TINY)
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path, model.state_dict()


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_built_by_name_from_the_root_registry():
    model = MODELS.build({"type": "TimmImageClassifier", "model_name": "rope_vit_ti", **TINY})
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_any_timm_model(name):
    model = TimmImageClassifier(name, num_classes=3)
    assert model(torch.randn(2, 3, 96, 96)).shape == (2, 3)


def test_unknown_name_gives_near_matches():
    with pytest.raises(ValueError, match=r"model_name='rope_vit_tiny'.*did you mean .*rope_vit_ti"):
        TimmImageClassifier("rope_vit_tiny")
    with pytest.raises(ValueError, match=r"list_models"):
        TimmImageClassifier("@@@@")


def test_unknown_keyword_is_refused():
    with pytest.raises(TypeError, match="nonsense"):
        TimmImageClassifier("ape_vit_ti", nonsense=1)


def test_names_are_those_of_timm():
    model = TimmImageClassifier("ape_vit_ti", **TINY)
    assert model.state_dict().keys() == timm.create_model("ape_vit_ti", **TINY).state_dict().keys()


def test_init_weights_changes_nothing():
    model = TimmImageClassifier("ape_vit_ti", **TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.init_weights()
    assert same(before, model.state_dict())


def test_checkpoint_path_survives_init_weights(weights):
    path, state = weights
    model = TimmImageClassifier("ape_vit_ti", checkpoint_path=str(path), **TINY)
    model.init_weights()
    assert same(state, model.state_dict())


def test_pretrained_init_cfg(weights):
    path, state = weights
    model = TimmImageClassifier("ape_vit_ti", init_cfg={"type": "Pretrained", "checkpoint": str(path)}, **TINY)
    assert not same(state, model.state_dict())
    model.init_weights()
    assert same(state, model.state_dict())
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.init_weights()  # once only
    assert not same(state, model.state_dict())


def test_pretrained_init_cfg_may_differ_in_the_head_alone(weights):
    path, state = weights
    init = {"type": "Pretrained", "checkpoint": str(path)}
    model = TimmImageClassifier("ape_vit_ti", init_cfg=init, **{**TINY, "num_classes": 7})
    model.init_weights()
    own = model.state_dict()
    assert own["head.weight"].shape[0] == 7
    assert all(torch.equal(own[name], state[name]) for name in state if not name.startswith("head."))
    model = TimmImageClassifier("ape_vit_ti", init_cfg=init, **{**TINY, "depth": 3})
    with pytest.raises(ValueError, match=r"does not fit the model: blocks\.2\.\S+ is missing"):
        model.init_weights()


def test_loss_and_prediction():
    from mmpretrain.structures import DataSample

    model = TimmImageClassifier("rope_vit_ti", **TINY)
    samples = [DataSample().set_gt_label(label) for label in (0, 4)]
    images = torch.randn(2, 3, 32, 32)
    loss = model(images, samples, mode="loss")["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in model.parameters())
    assert model(images, samples, mode="predict")[0].pred_score.shape == (5,)


def test_names_are_timms_wherever_the_classifier_stands():
    classifier = TimmImageClassifier("ape_vit_ti", embed_dim=32, depth=1, num_heads=2, img_size=32, num_classes=3)
    names = list(classifier.model.state_dict())
    assert list(classifier.state_dict()) == names
    for outer in (ExponentialMovingAverage(classifier), torch.nn.Sequential(classifier)):
        (prefix,) = (name for name, _ in outer.named_children())
        state = outer.state_dict()
        assert [name for name in state if name.startswith(prefix)] == [f"{prefix}.{name}" for name in names]
        zeros = {name: torch.zeros_like(value) for name, value in state.items()}
        outer.load_state_dict(zeros)
        assert not any(value.any() for value in outer.state_dict().values())
    # Files that were saved with the module's own names.
    classifier.load_state_dict({f"model.{name}": torch.ones_like(v) for name, v in classifier.state_dict().items()})
    assert all((value == 1).all() for value in classifier.state_dict().values())


@pytest.mark.parametrize("epochs", [(2,), (1, 2)], ids=["unbroken", "resumed"])
def test_a_moving_average_is_saved_exported_and_resumed(epochs, tmp_path):
    from visionpe.detection.running.runner import build_runner, load_config

    for last in epochs:
        options = {"model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "train_cfg.max_epochs": last}
        options |= {"train_dataloader.batch_size": 8, "train_dataloader.dataset.indices": 24, "work_dir": str(tmp_path)}
        options |= {"val_dataloader.dataset.indices": 20, "default_hooks.checkpoint.interval": 1}
        config = load_config("digits/rope_mixed_vit.py", options)
        config.custom_hooks.append({"type": "EMAHook", "momentum": 0.1})
        if last > 1 and len(epochs) > 1:
            config.resume, config.load_from = True, str(tmp_path / "epoch_1.pth")
        build_runner(config, stages=()).train()
    saved = torch.load(tmp_path / "epoch_2.pth", weights_only=False)
    exported = load_file(tmp_path / "model.safetensors")
    assert exported.keys() == saved["state_dict"].keys()
    for name, value in exported.items():
        assert torch.equal(value, saved["state_dict"][name]), name
    raw = {name.removeprefix("module."): v for name, v in saved["ema_state_dict"].items() if name != "steps"}
    assert raw.keys() == exported.keys()
    assert any(not torch.equal(value, raw[name]) for name, value in exported.items())
