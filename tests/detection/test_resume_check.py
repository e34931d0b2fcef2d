"""What is resumed or started from must fit, and be the model that was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from visionpe.cli import main
from visionpe.detection import TimmImageClassifier
from visionpe.detection.predicting.pictures import predict
from visionpe.detection.running.resume_check import check_start, model_of_text
from visionpe.detection.running.runner import load_config, load_strictly
from visionpe.exporting import ExportError, export_onnx
from visionpe.utils.errors import InputError

TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2}


def classifier(**changes: object) -> Config:
    config = load_config(
        "digits/rope_mixed_vit.py", {f"model.{key}": value for key, value in {**TINY, **changes}.items()}
    )
    init_default_scope("mmpretrain")
    return config


def saved(config: Config, path: Path, **more: object) -> Path:
    state = MODELS.build(config.model).state_dict()
    torch.save({"state_dict": state, "meta": {"cfg": config.pretty_text, "epoch": 1, "iter": 3}, **more}, path)
    return path


def start(config: Config, path: Path, *, resume: bool) -> None:
    config.load_from, config.resume = str(path), resume
    check_start(MODELS.build(config.model), config)


def test_the_same_model_goes_on(tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path / "epoch_1.pth")
    start(classifier(), path, resume=True)
    start(classifier(drop_path_rate=0.3), path, resume=True)  # another recipe is no other model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 32}, "another model was trained there: model.embed_dim was 16 and is 32"),
        ({"depth": 2}, "model.depth was 1 and is 2"),
        ({"model_name": "alibi_vit_ti"}, "model.model_name was 'rope_vit_ti' and is 'alibi_vit_ti'"),
        ({"pos_encoding": "none"}, "model.pos_encoding was None and is 'none'"),
        ({"policy": "interpolate"}, "model.policy was None and is 'interpolate'"),
    ],
)
def test_another_model_is_not_resumed(changes: dict, message: str, tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path / "epoch_1.pth")
    with pytest.raises(InputError, match=message):
        start(classifier(**changes), path, resume=True)


def test_encodings_without_parameters_are_told_apart(tmp_path: Path) -> None:
    """Every tensor fits, and yet it is another model."""
    none = saved(classifier(model_name="none_vit_ti"), tmp_path / "epoch_1.pth")
    with pytest.raises(InputError, match=r"model\.model_name was 'none_vit_ti' and is 'alibi_vit_ti'"):
        start(classifier(model_name="alibi_vit_ti"), none, resume=True)


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    config = classifier()
    path = tmp_path / "old.pth"
    torch.save({"state_dict": MODELS.build(config.model).state_dict(), "meta": {}}, path)  # no config in it
    with pytest.raises(InputError, match=r"--resume .*old\.pth: does not fit the model: blocks\.\S+ is \(\d+"):
        start(classifier(embed_dim=32), path, resume=True)
    with pytest.raises(InputError, match=r"load_from='.*old\.pth': does not fit the model"):
        start(classifier(embed_dim=32), path, resume=False)
    start(classifier(num_classes=7), path, resume=False)  # another number of classes is a reason to start from it
    torch.save(MODELS.build(config.model).state_dict(), path)
    with pytest.raises(InputError, match="holds weights alone; to start from them, load_from="):
        start(config, path, resume=True)


@pytest.mark.parametrize("name", ["mask_rcnn_rope_vit", "fcn_rope_vit"])
def test_a_classifier_is_no_detector(name: str, tmp_path: Path) -> None:
    """By itself mmengine would take nothing of it, and train from scratch."""
    config = load_config(f"digits/{name}.py")
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    backbone = config.model.backbone
    options = {key: value for key, value in backbone.items() if key not in ("type", "out_indices", "init_cfg")}
    trained = TimmImageClassifier(**options, num_classes=10)
    path = str(tmp_path / "epoch_1.pth")
    meta = {"cfg": "model = dict(type='TimmImageClassifier', model_name='rope_vit_ti')"}
    torch.save({"state_dict": trained.state_dict(), "meta": meta}, path)
    config.load_from, config.resume = path, False
    with pytest.raises(InputError, match=r"load_from=.*does not fit .*model\.backbone\.init_cfg=dict"):
        check_start(model, config)
    config.resume = True
    with pytest.raises(InputError, match=r"--resume .*epoch_1\.pth: another model was trained there"):
        check_start(model, config)
    with pytest.raises(InputError, match=r"epoch_1\.pth' does not fit the model"):
        load_strictly(model, path)
    model.backbone.load_weights(path)  # which is meant
    own = model.backbone.model.state_dict()
    assert all(value.equal(trained.model.state_dict()[key]) for key, value in own.items())


def test_a_config_in_a_file_is_read_and_not_run() -> None:
    text = "import os\nos.system('exit 3')\nmodel = dict(type='A', backbone=dict(depth=2, size=(1, -2)), names=['a'])\n"
    assert model_of_text(text) == {"type": "A", "backbone": {"depth": 2, "size": [1, -2]}, "names": ["a"]}
    assert model_of_text("model = dict(a=print(1))") is None
    assert model_of_text("model = ") is None
    assert model_of_text("") is None


def test_no_program_writes_over_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(InputError, match=r"--out \.: .*a\.png would be written over"):
        predict(["a.png"], "digits/rope_mixed_vit.py", "none.pth", ".")
    assert (tmp_path / "a.png").read_bytes() == before
    torch.save({}, "w.pth")
    with pytest.raises(ExportError, match=r"--out w\.pth: is the checkpoint that is to be read"):
        export_onnx("rope_vit_ti", "w.pth", checkpoint="w.pth", model_kwargs=TINY)
    assert main(["test", "digits/rope_mixed_vit.py", "w.pth", "--out", "w.pth"]) == 2
    assert "error: --out w.pth: would be written over" in capsys.readouterr().err
