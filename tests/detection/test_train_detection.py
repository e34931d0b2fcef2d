"""tools/train.py, test.py and predict.py on digit scenes: detection and segmentation."""

import json
import os
import pickle
import re
from pathlib import Path

import cv2
import pytest
import torch
from digit_runs import MODELS, ROOT, config, options, tool
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from mmengine.registry import MODELS as REGISTRY

from visionpe.cli import predict, test
from visionpe.data.digit_scenes.writing import SceneSettings, write_scenes
from visionpe.detection import check_neck
from visionpe.detection.running import runner as setup
from visionpe.detection.running.resume import newest_checkpoint
from visionpe.utils.errors import InputError


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digit_scenes"
    write_scenes(folder, SceneSettings(train=16, val=4))
    return folder


@pytest.fixture(scope="module", params=list(MODELS))
def trained(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tool("train")([config(request.param), "--work-dir", str(folder), "--cfg-options", *options(data, request.param)])
    return request.param, folder


def test_trains_evaluates_and_predicts(trained, data, tmp_path):
    name, folder = trained
    assert {"iter_1.pth", "iter_2.pth", "last_checkpoint"} <= {path.name for path in folder.iterdir()}
    given = ["--cfg-options", *options(data, name)]
    out, weights = tmp_path / "metrics.json", str(folder / "iter_2.pth")
    metrics = test.run([config(name), weights, "--work-dir", str(tmp_path / "w"), "--out", str(out), *given])
    assert MODELS[name][1] in metrics
    assert json.loads(out.read_text()) == pytest.approx(metrics, nan_ok=True)
    # A picture of another size and shape than those trained on.
    picture = cv2.resize(cv2.imread(str(next((data / "coco/val2017").iterdir()))), (150, 70))
    cv2.imwrite(str(tmp_path / "odd.jpg"), picture)
    arguments = [str(tmp_path / "odd.jpg"), "--config", config(name), "--checkpoint", weights, "--score-thr", "0"]
    (drawn,) = predict.run([*arguments, "--out", str(tmp_path / "drawn"), *given])
    height, width, _ = cv2.imread(str(drawn)).shape
    assert width == 4 * 150
    assert (height == 4 * 70) if "rcnn" in name else (4 * 70 < height < 4 * 100)  # a legend stands below
    assert [path.name for path in drawn.parent.iterdir()] == ["odd.png"]


def test_draws_dumps_and_augments(trained, data, tmp_path, capsys):
    """As OpenMMLab's own tools do: pictures, a pickle of predictions, flips."""
    name, folder = trained
    given = [config(name), str(folder / "iter_2.pth"), "--work-dir", str(tmp_path / "w")]
    changes = ["--cfg-options", *options(data, name)]
    if "rcnn" in name:
        assert test.main([*given, "--tta", *changes]) == 2
        assert "--tta merges boxes alone" in capsys.readouterr().err
        no_masks = {f"model.roi_head.mask_{part}": None for part in ("head", "roi_extractor")}
        changes = [*changes, *(f"{key}=None" for key in no_masks), "test_evaluator.metric=bbox"]
        state = torch.load(folder / "iter_2.pth", weights_only=False)
        state["state_dict"] = {key: value for key, value in state["state_dict"].items() if "mask_head" not in key}
        torch.save(state, tmp_path / "boxes.pth")
        given[1] = str(tmp_path / "boxes.pth")
    places = ["--out", str(tmp_path / "p.pkl"), "--show-dir", str(tmp_path / "drawn"), "--score-thr", "0"]
    metrics = test.run([*given, "--tta", *places, *changes])
    assert MODELS[name][1] in metrics
    found = pickle.loads((tmp_path / "p.pkl").read_bytes())
    assert len(found) == 4
    assert all("pred_instances" in each if "rcnn" in name else "pred_sem_seg" in each for each in found)
    assert not any("seg_logits" in each for each in found)
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert len(drawn) == 4
    assert drawn[0].name.endswith("00000001.png")
    assert cv2.imread(str(drawn[0])).shape[1] > 2 * 512  # the truth beside the prediction
    images = data / MODELS[name][0] / ("val2017" if "rcnn" in name else "images/validation")
    for flag in ("--out", "--show-dir"):
        assert test.main([*given, flag, str(images / "x"), *changes]) == 2
        assert f"{flag} {images / 'x'}: is among the images of" in capsys.readouterr().err
    if "rcnn" in name:
        file = data / "coco/annotations/instances_val2017.json"
        assert test.main([*given, "--out", str(file), *changes]) == 2
        assert "would be written over" in capsys.readouterr().err
        assert json.loads(file.read_text())["images"]


def test_weights_that_do_not_fit_are_refused(trained, data, tmp_path, capsys):
    name, folder = trained
    if name != "fcn_cpe_vit":
        pytest.skip("one model is enough")
    given = [config(name), str(folder / "iter_2.pth"), "--work-dir", str(tmp_path), "--cfg-options"]
    with pytest.raises(InputError, match="does not fit the model"):
        test.run([*given, *options(data, name, **{"model.backbone.patch_size": 4})])
    assert tool("train")([given[0], *given[2:], *options(data, name, **{"model.neck.in_channels": 24})]) == 2
    assert "in_channels=24 does not fit" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "tree"), [("mask_rcnn_rope_vit", "train2017/"), ("fcn_cpe_vit", "images/  ")])
def test_missing_scenes_show_the_tree_and_the_command(name, tree, tmp_path, capsys):
    given = ["--work-dir", str(tmp_path / "w"), "--cfg-options", *options(tmp_path / "digit_scenes", name)]
    assert tool("train")([config(name), *given]) == 2
    message = capsys.readouterr().err
    assert tree in message
    assert f"tools/make_digit_scenes.py --out {tmp_path}/digit_scenes" in message


def test_missing_annotations_are_named(data, tmp_path, capsys):
    name = "mask_rcnn_rope_vit"
    given = options(data, name, **{"val_evaluator.ann_file": f"{tmp_path}/none.json"})
    assert tool("train")([config(name), "--work-dir", str(tmp_path), "--cfg-options", *given]) == 2
    assert re.search(r"none.json' does not exist.*val_evaluator.ann_file=FILE", capsys.readouterr().err)
    given = options(data, name, **{"train_dataloader.dataset.ann_file": "annotations/other.json"})
    assert tool("train")([config(name), "--work-dir", str(tmp_path), "--cfg-options", *given]) == 2
    assert "annotations/other.json' does not exist" in capsys.readouterr().err


def test_amp_of_a_detector_is_its_backbones_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    detector = setup.load_config(config("mask_rcnn_rope_vit"))
    setup.set_amp(detector)
    assert detector.model.backbone.autocast == "bfloat16"
    assert detector.optim_wrapper.type == "OptimWrapper"
    segmentor = setup.load_config(config("fcn_cpe_vit"))
    setup.set_amp(segmentor)
    assert segmentor.optim_wrapper.type == "AutocastOptimWrapper"
    detector.model.backbone = {"type": "ResNet"}
    with pytest.raises(setup.UsageError, match="'ResNet'"):
        setup.set_amp(detector)


def test_fsdp_needs_gpus(monkeypatch):
    cfg = setup.load_config(config("fcn_cpe_vit"))
    cfg.launcher = "pytorch"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(setup.UsageError, match="--fsdp needs GPUs"):
        setup.set_fsdp(cfg)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    setup.set_fsdp(cfg)
    assert (cfg.runner_type, cfg.strategy.type) == ("FlexibleRunner", "FSDPStrategy")


def test_newest_whole_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for number in (9, 10, 11):
        torch.save({"a": torch.zeros(1000)}, tmp_path / f"iter_{number}.pth")
        os.utime(tmp_path / f"iter_{number}.pth", (number, number))
    assert newest_checkpoint(tmp_path) == str(tmp_path / "iter_11.pth")
    # A kill while mmengine writes, and one before it wrote the name of the file.
    content = (tmp_path / "iter_11.pth").read_bytes()
    (tmp_path / "iter_11.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "last_checkpoint").write_text("")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "iter_10.pth")


def test_an_interrupted_save_leaves_the_old_file(trained, data, tmp_path, monkeypatch):
    name, _ = trained
    if name != "fcn_cpe_vit":
        pytest.skip("one model is enough")
    cfg = setup.load_config(config(name))
    cfg.merge_from_dict(dict(entry.split("=", 1) for entry in options(data, name) if "data_root" in entry))
    cfg.work_dir = str(tmp_path)
    runner = setup.build_runner(cfg, stages=())
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.save_checkpoint(str(tmp_path), "iter_1.pth", save_optimizer=False, save_param_scheduler=False)
    before = (tmp_path / "iter_1.pth").read_bytes()

    def killed(checkpoint, filename, **kwargs):
        Path(filename).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("mmengine.runner.runner.save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        runner.save_checkpoint(str(tmp_path), "iter_1.pth", save_optimizer=False, save_param_scheduler=False)
    assert (tmp_path / "iter_1.pth").read_bytes() == before


FILES = sorted(
    path.stem for kind in ("mask_rcnn", "fcn", "upernet") for path in (ROOT / "configs/digits").glob(f"{kind}_*_vit.py")
)


@pytest.mark.parametrize("name", FILES)
def test_every_digit_config_trains_a_step(name, data):
    cfg = setup.load_config(config(name))
    init_default_scope(cfg.default_scope)
    assert cfg.model.backbone.model_name == f"{name.split('_')[-2]}_vit_ti"
    model = REGISTRY.build(cfg.model)
    check_neck(model)
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = f"{data}/{'coco' if name.startswith('mask') else 'ade'}/"
    dataset = DATASETS.build(dataset)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    model.train()
    logs = model.train_step(pseudo_collate([dataset[0], dataset[1]]), wrapper)
    assert torch.isfinite(logs["loss"])
    still = [key for key, value in model.named_parameters() if torch.equal(before[key], value)]
    assert not still
