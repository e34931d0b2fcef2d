"""What is wrong with annotations is said before training starts: file, record, field, and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

from visionpe.detection.data import coco
from visionpe.detection.running.class_check import check_categories
from visionpe.detection.running.data_check import check_data
from visionpe.utils.errors import InputError

CLASSES = ("cat", "dog", "bird")


def content(names=CLASSES) -> dict[str, Any]:
    boxes = [
        {"id": i, "image_id": 1, "category_id": i, "bbox": [1, 1, 40, 40], "area": 1600, "iscrowd": 0}
        for i in (1, 2, 3)
    ]
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 64, "width": 64}],
        "annotations": boxes,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
    }


def write(root: Path, annotations: Any, name: str = "train.json") -> dict[str, Any]:
    """A COCO tree; its data set."""
    (root / "train").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "train/a.jpg"), np.zeros((64, 64, 3), np.uint8))
    (root / name).write_text(annotations if isinstance(annotations, str) else json.dumps(annotations))
    return {
        "type": "mmdet.CocoDataset",
        "data_root": str(root),
        "ann_file": name,
        "data_prefix": {"img": "train/"},
        "metainfo": {"classes": CLASSES},
        "pipeline": [],
    }


def config_of(dataset: Any, stage: str = "train", **more: Any) -> Config:
    return Config({f"{stage}_dataloader": {"dataset": dataset}, **more})


def changed(place: str, value: Any = ...) -> dict[str, Any]:
    """The annotations with one entry changed, or left out."""
    whole = content()
    *path, last = place.split(".")
    at: Any = whole
    for key in path:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return whole


BAD = {
    "no images": (changed("images"), "images is missing; expected a list"),
    "no categories": (changed("categories"), "categories is missing"),
    "images is no list": (changed("images", {}), "images is dict"),
    "no file_name": (changed("images.0.file_name"), "images[0] (id 1) has no file_name"),
    "no height": (changed("images.0.height"), "images[0] (id 1) has no height"),
    "width of 0": (changed("images.0.width", 0), "images[0]: height 64, width 0; allowed: pixels above 0"),
    "empty file_name": (changed("images.0.file_name", ""), "images[0]: file_name ''"),
    "image without id": (changed("images.0.id"), "images[0] has no id"),
    "no bbox": (changed("annotations.1.bbox"), "annotations[1] (id 2) has no bbox"),
    "no area": (changed("annotations.1.area"), "annotations[1] (id 2) has no area"),
    "no category_id": (changed("annotations.2.category_id"), "annotations[2] (id 3) has no category_id"),
    "no image_id": (changed("annotations.0.image_id"), "annotations[0] (id 1) has no image_id"),
    "unknown category": (
        changed("annotations.2.category_id", 9),
        "annotations[2]: category_id 9 is no category; allowed: 1, 2, 3",
    ),
    "unknown image": (changed("annotations.2.image_id", 7), "annotations[2]: image_id 7 is none of 1 images"),
    "box of three": (changed("annotations.0.bbox", [1, 2, 3]), "bbox [1, 2, 3]; allowed: four numbers"),
    "box of text": (changed("annotations.0.bbox", [1, 2, 3, "4"]), "allowed: four numbers"),
    "box of NaN": (changed("annotations.0.bbox", [1, 2, 3, float("nan")]), "allowed: four numbers"),
    "same id": (changed("annotations.1.id", 1), "annotations[1]: id 1 is there twice"),
    "same name": (changed("categories.1.name", "cat"), "categories[1]: name 'cat' is there twice"),
    "category without name": (changed("categories.1.name"), "categories[1] (id 2) has no name"),
    "a list": ([], "images is missing"),
    "no JSON": ("{", "is no JSON"),
    "empty": ("", "is empty; is no JSON"),
}


@pytest.mark.parametrize("fault", BAD)
def test_annotations_are_refused_by_record_and_field(fault: str, tmp_path: Path, monkeypatch) -> None:
    annotations, words = BAD[fault]
    dataset = write(tmp_path, annotations)
    with pytest.raises(InputError) as refused:
        check_data(config_of(dataset), ("train",))
    assert str(refused.value).startswith(f"annotations '{tmp_path / 'train.json'}': ")
    assert words in str(refused.value)
    if isinstance(annotations, dict) and "name" not in fault.split():  # a large file, as it is read
        monkeypatch.setattr(coco, "LARGE", 10)
        check_data(config_of(dataset), ("train",))
        with pytest.raises(InputError) as again:
            DATASETS.build(dataset)
        assert str(again.value) == str(refused.value)


def test_what_masks_and_evaluation_need(tmp_path: Path) -> None:
    dataset = write(tmp_path, content())
    masks = {**dataset, "pipeline": [{"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}]}
    with pytest.raises(InputError, match=r"annotations\[0\] \(id 1\) has no segmentation"):
        check_data(config_of(masks), ("train",))
    evaluator = {"type": "CocoMetric", "ann_file": str(tmp_path / "train.json"), "metric": ["bbox"]}
    check_data(config_of(dataset, "val", val_evaluator=evaluator), ("val",))
    with pytest.raises(InputError, match="has no segmentation"):
        check_data(config_of(dataset, "val", val_evaluator=[{**evaluator, "metric": ["bbox", "segm"]}]), ("val",))
    write(tmp_path, changed("annotations.0.iscrowd"))
    with pytest.raises(InputError, match="has no iscrowd"):
        check_data(config_of(dataset, "val", val_evaluator=evaluator), ("val",))


def test_good_annotations_pass(tmp_path: Path) -> None:
    kept_back = {key: value for key, value in content().items() if key != "annotations"}
    for given in (content(), kept_back, {**content(), "annotations": []}):
        dataset = write(tmp_path, given)
        for wrapped in (dataset, {"type": "RepeatDataset", "times": 2, "dataset": dataset}):
            check_data(config_of(wrapped), ("train",))
            check_categories(config_of(wrapped), ("train",))
        DATASETS.build(dataset)


def labels(dataset: dict[str, Any]) -> list[int]:
    return [each["bbox_label"] for each in DATASETS.build(dataset)[0]["instances"]]


def test_a_class_that_the_file_spells_otherwise(tmp_path: Path) -> None:
    dataset = write(tmp_path, content(("cat", "dogs", "bird")))
    config = config_of(dataset)
    check_data(config, ("train",))
    assert labels(dataset) == [0, 2]  # and not [0, 1]
    with pytest.raises(InputError) as refused:
        check_categories(config, ("train",))
    said = "train_dataloader.dataset.metainfo.classes: 'dog' is no category of "
    assert str(refused.value) == f"{said}'{tmp_path / 'train.json'}'; did you mean 'dogs'?"


def test_some_of_the_categories_may_be_classes(tmp_path: Path) -> None:
    dataset = write(tmp_path, content(("cow", "cat", "bird")))
    dataset["metainfo"] = {"classes": ("cat", "bird")}
    check_categories(config_of(dataset), ("train",))
    assert labels(dataset) == [0, 1]


def test_another_order_than_the_file_is_refused(tmp_path: Path) -> None:
    dataset = write(tmp_path, content(("dog", "cat", "bird")))
    with pytest.raises(InputError, match=r"'cat' stands where .* has 'dog'.*in its order: dog, cat, bird"):
        check_categories(config_of(dataset), ("train",))


def test_classes_of_several_files(tmp_path: Path) -> None:
    first = write(tmp_path / "a", content(("cat", "dog", "fish")))
    second = write(tmp_path / "b", content(("cow", "bird", "fish")))
    both = {"type": "ConcatDataset", "datasets": [first, second]}
    check_categories(config_of(both), ("train",))
    assert [labels(first), labels(second)] == [[0, 1], [2]]
    both["datasets"][1]["metainfo"] = {"classes": (*CLASSES, "horse")}
    with pytest.raises(InputError, match=r"datasets\.1\.metainfo\.classes: 'horse' is no category of .*; it has cow"):
        check_categories(config_of(both), ("train",))


def test_the_evaluator_has_every_class(tmp_path: Path) -> None:
    dataset = write(tmp_path, content())
    write(tmp_path, content(("cat", "dog", "birds")), "val.json")
    evaluator = {"type": "CocoMetric", "ann_file": str(tmp_path / "val.json")}
    with pytest.raises(InputError, match=r"val_evaluator\.ann_file: 'bird' is no category .* did you mean 'birds'"):
        check_categories(config_of(dataset, "val", val_evaluator=evaluator), ("val",))


def test_categories_of_a_large_file_without_reading_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(coco, "LARGE", 10)
    for given in (content(), dict(reversed(content().items()))):
        write(tmp_path, given)
        with monkeypatch.context() as patch:
            patch.setattr(coco, "_read", None)
            assert coco.categories_of(tmp_path / "train.json") == list(CLASSES)
    last = {**content(), "info": {"categories": "of animals"}}
    write(tmp_path, last)
    assert coco.categories_of(tmp_path / "train.json") == list(CLASSES)


def test_classes_that_are_text(tmp_path: Path) -> None:
    dataset = write(tmp_path, content())
    dataset["metainfo"] = {"classes": "cat"}
    with pytest.raises(
        InputError, match=r"classes='cat' is text, and no file; allowed: names, for one class \('cat',\)"
    ):
        check_categories(config_of(dataset), ("train",))
    (tmp_path / "names.txt").write_text("cat\ndog\nbird\n")
    dataset["metainfo"] = {"classes": str(tmp_path / "names.txt")}
    check_categories(config_of(dataset), ("train",))


def test_the_command_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from visionpe.cli import main

    write(tmp_path, content(tuple("0123456789")))
    write(tmp_path, content(("0", "1", "2", "three", *"456789")), "val.json")
    files = {
        "train_dataloader.dataset.ann_file": "train.json",
        "val_dataloader.dataset.ann_file": "val.json",
        "val_evaluator.ann_file": str(tmp_path / "val.json"),
    }
    for stage in ("train", "val"):
        files[f"{stage}_dataloader.dataset.data_root"] = str(tmp_path)
        files[f"{stage}_dataloader.dataset.data_prefix.img"] = "train/"
    call = ["train", "digits/mask_rcnn_rope_vit.py", "--work-dir", str(tmp_path / "run"), "--cfg-options"]
    assert main([*call, *(f"{key}={value}" for key, value in files.items())]) == 2
    assert "has no segmentation" in capsys.readouterr().err
    for name in ("train.json", "val.json"):
        annotations = json.loads((tmp_path / name).read_text())
        for each in annotations["annotations"]:
            each["segmentation"] = [[1, 1, 41, 1, 41, 41]]
        (tmp_path / name).write_text(json.dumps(annotations))
    assert main([*call, *(f"{key}={value}" for key, value in files.items())]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: val_dataloader.dataset.metainfo.classes: '3' is no category of "
        f"'{tmp_path / 'val.json'}'; it has 0, 1, 2, three, 4, 5, ... (10)"
    )
