"""What is wrong with the data is said before training starts: the file, the record, the field, and what is allowed."""

from __future__ import annotations

import copy
import logging
import os
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.datasets import CIFAR10
from torch import nn

from visionpe.detection.running import runner as setup
from visionpe.detection.running.class_check import check_folders, check_heads, check_order
from visionpe.detection.running.data_check import check_data
from visionpe.utils.errors import InputError
from visionpe.utils.pictures import read_bytes, refuse_special


def config_of(dataset: Any, stage: str = "train", **more: Any) -> Config:
    return Config({f"{stage}_dataloader": {"dataset": dataset}, **more})


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        ("rope_mixed_vit", {"model.num_classes": 7}, "model.num_classes=7, but test_dataloader.dataset has 10 classes"),
        ("fcn_cpe_vit", {"model.decode_head.num_classes": 10}, "model.decode_head.num_classes=10, but .* 11 classes"),
        (
            "mask_rcnn_rope_vit",
            {"model.roi_head.bbox_head.num_classes": 80},
            r"model.roi_head.bbox_head.num_classes=80, but .* 10 classes \(0, 1, .*allowed: 10",
        ),
        ("mask_rcnn_rope_vit", {"model.roi_head.mask_head.num_classes": 9}, "mask_head.num_classes=9"),
        ("../rooms/swin3d_tiny_none", {"model.num_classes": 4}, "model.num_classes=4, but .* 5 classes"),
    ],
)
def test_heads_with_another_number_of_classes(config: str, change: dict, words: str) -> None:
    loaded = setup.load_config(f"configs/digits/{config}.py")

    def built() -> nn.Module:
        with DefaultScope.overwrite_default_scope(loaded.get("default_scope", "mmengine")):
            return MODELS.build(copy.deepcopy(loaded.model))

    check_heads(built(), loaded, ("test",))
    loaded.merge_from_dict({**change, "model.class_weight": None} if "swin3d" in config else change)
    with pytest.raises(InputError, match=words):
        check_heads(built(), loaded, ("test",))


def folders(root: Path, names: Any) -> Path:
    for name in map(str, names):
        (root / name).mkdir(parents=True)
        cv2.imwrite(str(root / name / "x.png"), np.zeros((8, 8, 3), np.uint8))
    return root


def of_folders(root: Path, prefix: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "mmpretrain.CustomDataset", "data_root": str(root), "data_prefix": prefix, **more}


def test_prefixes_are_text_or_a_mapping(tmp_path: Path) -> None:
    folders(tmp_path / "train", "ab")
    for dataset in (
        of_folders(tmp_path, "train"),
        of_folders(tmp_path, {"img_path": "train"}),
        {"type": "CustomDataset", "data_prefix": str(tmp_path / "train")},
        {"type": "CIFAR10", "data_root": str(tmp_path / "later"), "split": "train"},
        {"type": "CocoDataset", "data_root": "s3://bucket/coco", "ann_file": "a.json", "data_prefix": {"img": "train"}},
    ):
        check_data(config_of(dataset), ("train",))
    for dataset in (of_folders(tmp_path, "none"), {"type": "CustomDataset", "data_prefix": str(tmp_path / "none")}):
        with pytest.raises(FileNotFoundError, match=r"folder '.*none' does not exist"):
            check_data(config_of(dataset), ("train",))
    with pytest.raises(FileNotFoundError, match="later"):
        check_data(config_of({"type": "CIFAR10", "data_root": str(tmp_path / "later"), "download": False}), ("train",))


@pytest.mark.parametrize(
    ("dataset", "read"),
    [
        (dict(type="CocoDataset", pipeline=[dict(type="LoadAnnotations", with_mask=True)]), False),
        (dict(type="CocoDataset", pipeline=[dict(type="mmdet.LoadAnnotations", with_seg=True)]), True),
        (dict(type="CocoPanopticDataset", pipeline=[dict(type="LoadImageFromFile")]), False),
        (dict(type="BaseSegDataset", pipeline=[dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]), False),
        (
            dict(
                type="BaseSegDataset",
                pipeline=[dict(type="TestTimeAug", transforms=[[dict(type="LoadAnnotations")], [dict(type="Flip")]])],
            ),
            True,
        ),
    ],
)
def test_label_maps_are_asked_for_where_they_are_read(dataset: dict, read: bool, tmp_path: Path) -> None:
    folders(tmp_path, ["images"])
    names = ("img_path", "seg_map_path") if dataset["type"] == "BaseSegDataset" else ("img", "seg")
    config = config_of(dict(dataset, data_root=str(tmp_path), data_prefix=dict(zip(names, ("images", "maps")))))
    if read:
        with pytest.raises(FileNotFoundError, match="maps"):
            check_data(config, ("train",))
    else:
        check_data(config, ("train",))


def test_panoptic_annotations_need_a_package(tmp_path: Path, monkeypatch) -> None:
    prefix = dict(img=str(folders(tmp_path, ["images"])), seg=str(tmp_path))
    steps = [dict(type="LoadPanopticAnnotations")]
    config = config_of(dict(type="CocoPanopticDataset", data_prefix=prefix, pipeline=steps))
    monkeypatch.setitem(sys.modules, "panopticapi", None)
    with pytest.raises(InputError, match=r"train_dataloader.dataset.pipeline needs panopticapi: pip install"):
        check_data(config, ("train",))
    there = types.ModuleType("panopticapi")
    there.__spec__ = ModuleSpec("panopticapi", None)
    monkeypatch.setitem(sys.modules, "panopticapi", there)
    check_data(config, ("train",))


class HandsOn(CIFAR10):
    """A data set that downloads, behind a constructor that does not say so."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


LABELS = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]


def coco_in(root: Path, **more: Any) -> dict[str, Any]:
    return {"type": "CocoDataset", "data_root": str(root), "ann_file": "a.json", "data_prefix": {"img": "img"}, **more}


def maps_in(root: Any, **more: Any) -> dict[str, Any]:
    prefix = {"img_path": "img", "seg_map_path": "none"}
    return {"type": "mmseg.BaseSegDataset", "data_root": str(root), "data_prefix": prefix, **more}


def test_what_is_not_read_or_not_here_is_not_looked_for(tmp_path: Path) -> None:
    from mmdet.datasets import CocoDataset
    from mmdet.evaluation import CocoMetric

    (tmp_path / "img").mkdir()
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    both, boxes = {"img": "img", "seg": "none"}, [{"type": "LoadAnnotations", "with_bbox": True}]
    for dataset in (
        {"type": HandsOn, "data_root": str(tmp_path / "later")},
        {"type": "MNIST", "data_prefix": str(tmp_path / "later")},
        {"type": "RepeatDataset", "dataset": {"type": CIFAR10, "data_root": str(tmp_path / "later")}},
        coco_in(tmp_path, data_prefix=both, pipeline=boxes),
        coco_in(tmp_path, data_prefix=both, pipeline=boxes, type=CocoDataset),
        coco_in(tmp_path, data_prefix={"img": "s3://bucket/img"}),
        coco_in(tmp_path, ann_file="https://host/a.json"),
        coco_in("s3://bucket", ann_file=str(tmp_path / "a.json")),  # type: ignore[arg-type]
        coco_in(Path("bucket"), backend_args={"backend": "petrel"}),
        maps_in(tmp_path, pipeline=LABELS[:1]),
        maps_in("s3://bucket", pipeline=LABELS),
        of_folders(tmp_path, "img", metainfo={"classes": "https://host/classes.txt"}),
    ):
        check_data(config_of(dataset), ("train",))
    for dataset, missing in (
        (coco_in(tmp_path, ann_file="b.json", data_prefix={"img": "s3://bucket/img"}), "file '.*b.json'"),
        (coco_in(tmp_path, data_prefix=both, pipeline=[{**boxes[0], "with_seg": True}]), "folder '.*none'"),
        (coco_in(Path("bucket"), backend_args={"backend": "local"}), "folder 'bucket'"),
        (maps_in(tmp_path, pipeline=LABELS), "folder '.*none'"),
    ):
        with pytest.raises(FileNotFoundError, match=rf"{missing} does not exist"):
            check_data(config_of(dataset), ("train",))
    remote = {"type": "CocoMetric", "ann_file": "bucket/a.json", "backend_args": {"backend": "petrel"}}
    check_data({"val_evaluator": remote}, ("val",))
    with pytest.raises(FileNotFoundError, match=r"'bucket/a\.json' does not exist"):
        check_data({"val_evaluator": {**remote, "backend_args": None, "type": CocoMetric}}, ("val",))


def test_pipes_among_data_are_refused(tmp_path: Path) -> None:
    """Reading one would wait for ever."""
    folders(tmp_path / "train", "ab")
    os.mkfifo(tmp_path / "train/b/y.png")
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"y.png' is a named pipe; allowed: a file"):
        check_data(config_of(of_folders(tmp_path, "train")), ("train",))
    with pytest.raises(InputError, match=r"a.json' is a named pipe"):
        check_data(config_of(coco_in(tmp_path, data_prefix={"img": "train"})), ("train",))
    for read in (read_bytes, refuse_special):
        with pytest.raises(InputError, match="is a named pipe"):
            read(tmp_path / "train/b/y.png")


def test_numbered_folders_are_said_to_differ_from_timm(tmp_path: Path, caplog) -> None:
    folders(tmp_path / "few", range(3))
    folders(tmp_path / "many", range(12))
    with caplog.at_level(logging.WARNING, "mmengine"):
        logging.getLogger("mmengine").addHandler(caplog.handler)
        check_data(config_of(of_folders(tmp_path, "few")), ("train",))
        assert not caplog.records
        check_data(config_of(of_folders(tmp_path, "many")), ("train",))
        logging.getLogger("mmengine").removeHandler(caplog.handler)
    assert "'10' has label 2 here, 10 there" in caplog.text


def test_folders_that_shift_the_labels_are_refused(tmp_path: Path) -> None:
    folders(tmp_path / "train", "abc")
    folders(tmp_path / "val", "ac")
    config = config_of(of_folders(tmp_path, "train"), val_dataloader={"dataset": of_folders(tmp_path, "val")})
    check_folders(config, ("train",))
    with pytest.raises(InputError, match=r"val_dataloader.dataset, .*val: 'c' has label 1, but 2 in .*train"):
        check_folders(config, ("train", "val"))
    for classes, words in ((("x", "y"), "2 classes, but .* 3 folders"), (("b", "a", "c"), "'b' has label 0, but 1 in")):
        stated = config_of(of_folders(tmp_path, "train", metainfo={"classes": classes}))
        with pytest.raises(InputError, match=words):
            check_folders(stated, ("train",))
    check_folders(config_of(of_folders(tmp_path, "train", metainfo={"classes": ("x", "y", "z")})), ("train",))


def test_links_to_nowhere_are_refused(tmp_path: Path) -> None:
    folders(tmp_path / "train", "ab")
    (tmp_path / "train/b/deep").mkdir()
    (tmp_path / "train/b/deep/y.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"deep/y.png' is a link to 'nowhere.png', which does not exist"):
        check_data(config_of(of_folders(tmp_path, "train")), ("train",))
    segmentation = {
        "type": "mmseg.BaseSegDataset",
        "data_root": str(tmp_path),
        "data_prefix": {"img_path": "train/a", "seg_map_path": "train/b"},
    }
    with pytest.raises(InputError, match=r"deep/y.png' is a link"):
        check_data(config_of(segmentation), ("train",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/x.png 0\nb/x.png\n", "line 2: 'b/x.png'; allowed"),
        ("a/x.png 0\nb/x.png 1.5\n", "line 2"),
        ("a/x.png 0\nb/x.png -1\n", "line 2"),
        ("a/x.png 0\nb/x.png 2\n", "line 2: .*0 to 1"),
    ],
)
def test_lists_of_labels_are_refused_by_line(text: str, words: str, tmp_path: Path) -> None:
    folders(tmp_path / "train", "ab")
    (tmp_path / "list.txt").write_text(text)
    dataset = of_folders(tmp_path, "train", ann_file="list.txt", metainfo={"classes": ("a", "b")})
    with pytest.raises(InputError, match=rf"list.txt, {words}"):
        check_data(config_of(dataset), ("train",))
    (tmp_path / "list.txt").write_text("a/x y.png 0\nb/x.png 1\n")
    check_data(config_of(dataset), ("train",))


def test_weights_of_classes_in_another_order(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    model = nn.Linear(2, 2)
    meta = {"dataset_meta": {"classes": ("b", "a")}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, tmp_path / "epoch_1.pth")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert setup.load_strictly(model, str(tmp_path / "epoch_1.pth")) == ("b", "a")
    assert setup.load_strictly(model, str(tmp_path / "model.safetensors")) is None
    (tmp_path / "model.json").write_text('{"classes": ["b", "a"]}')
    assert setup.load_strictly(model, str(tmp_path / "model.safetensors")) == ("b", "a")
    check_order(("a", "c"), ("a", "b"), "here", "there")
    check_order(None, ("a", "b"), "here", "there")
    with pytest.raises(InputError, match=r"here: 'a' has label 0, but 1 in there; .*in the same order: b, a"):
        check_order(("a", "b"), ("b", "a"), "here", "there")
