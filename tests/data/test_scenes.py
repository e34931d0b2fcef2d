"""Digit scenes: true COCO and ADE20K data, the same at every run, with digits apart for training and validation."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from pycocotools.coco import COCO

import visionpe.detection  # noqa: F401
from visionpe.data.digit_scenes.drawing import _glyphs
from visionpe.data.digit_scenes.writing import SceneSettings, scenes, write_scenes, written

ROOT = Path(__file__).parents[2]
SETTINGS = SceneSettings(train=6, val=4, size=(48, 96), digit_size=(16, 40), digits=(1, 5), clutter=(0, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "digit_scenes"
    assert write_scenes(out, SETTINGS)
    return out


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_json_is_what_pycocotools_expects(folder, split):
    coco = COCO(str(folder / f"coco/annotations/instances_{split}2017.json"))
    assert len(coco.imgs) == getattr(SETTINGS, split)
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list("0123456789")
    assert len(set(coco.getAnnIds())) == len(coco.dataset["annotations"])
    for image in coco.loadImgs(coco.getImgIds()):
        pixels = cv2.imread(str(folder / f"coco/{split}2017" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        annotations = coco.imgToAnns[image["id"]]
        assert 1 <= len(annotations) <= 5
        covered = np.zeros(pixels.shape[:2], int)
        for annotation in annotations:
            mask = coco.annToMask(annotation)
            covered += mask
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns[0], rows[0])
            assert (left + width, top + height) == (columns[-1] + 1, rows[-1] + 1)
            assert annotation["area"] == mask.sum() == coco.annToMask(annotation).sum()
            # The longer side is drawn from 16..40; ink at the edge may be too faint to count.
            assert 12 <= max(width, height) <= 40
            # Ink is brighter than the ground around it.
            around = cv2.dilate(mask, np.ones((7, 7), np.uint8)) - cv2.dilate(mask, np.ones((3, 3), np.uint8))
            assert pixels[mask > 0].mean() > pixels[around > 0].mean() + 20
        assert covered.max() == 1


def test_sizes_are_drawn_from_the_range_height_and_width_apart(folder):
    coco = json.loads((folder / "coco/annotations/instances_train2017.json").read_text())
    sizes = [(image["height"], image["width"]) for image in coco["images"]]
    assert all(48 <= side <= 96 for size in sizes for side in size)
    assert len(set(sizes)) > 3
    assert any(height != width for height, width in sizes)


def test_mmdet_reads_it(folder):
    init_default_scope("mmdet")
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="PackDetInputs"),
    ]
    dataset = DATASETS.build(
        dict(
            type="CocoDataset",
            data_root=str(folder / "coco"),
            ann_file="annotations/instances_train2017.json",
            data_prefix=dict(img="train2017/"),
            metainfo=dict(classes=tuple("0123456789")),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=pipeline,
        )
    )
    assert len(dataset) == SETTINGS.train
    drawn = list(scenes("train", SETTINGS))
    for index, scene in enumerate(drawn):
        instances = dataset[index]["data_samples"].gt_instances
        assert instances.labels.tolist() == scene.labels
        assert np.array_equal(instances.masks.to_ndarray(), np.stack(scene.masks))


def test_mmseg_reads_it_and_zero_stays_free(folder):
    init_default_scope("mmseg")
    dataset = DATASETS.build(
        dict(
            type="BaseSegDataset",
            data_root=str(folder / "ade"),
            data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
            metainfo=dict(classes=("background", *"0123456789")),
            reduce_zero_label=True,
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="LoadAnnotations", reduce_zero_label=True),
                dict(type="PackSegInputs"),
            ],
        )
    )
    assert len(dataset) == SETTINGS.val
    for index, scene in enumerate(scenes("val", SETTINGS)):
        expected = np.zeros(scene.image.shape[:2], int)
        for mask, label in zip(scene.masks, scene.labels):
            expected[mask] = label + 1
        item = dataset[index]
        assert np.array_equal(item["data_samples"].gt_sem_seg.data[0].numpy(), expected)
        difference = np.abs(item["inputs"].permute(1, 2, 0).numpy().astype(int) - scene.image)
        assert difference.mean() < 9  # JPEG of a noisy picture
    stored = cv2.imread(str(folder / "ade/annotations/validation/ADE_val_00000001.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint8
    assert stored.min() == 1


def test_same_seed_same_bytes_and_a_scene_does_not_depend_on_their_number(folder, tmp_path):
    write_scenes(tmp_path / "again", SETTINGS)
    assert files(tmp_path / "again") == files(folder)
    fewer = SceneSettings(**{**vars(SETTINGS), "train": 3})
    write_scenes(tmp_path / "fewer", fewer)
    for name in ("coco/train2017/000000000003.jpg", "ade/annotations/training/ADE_train_00000003.png"):
        assert (tmp_path / "fewer" / name).read_bytes() == (folder / name).read_bytes()
    other = next(scenes("train", SceneSettings(**{**vars(SETTINGS), "seed": 1})))
    first = next(scenes("train", SETTINGS))
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


def test_training_and_validation_use_different_digits():
    train, val = ({glyph.tobytes() for glyph in _glyphs(split)[0]} for split in ("train", "val"))
    assert len(train) > 3000
    assert len(val) > 900
    assert not train & val


def test_broken_off_and_called_again(folder, tmp_path):
    out, calls = tmp_path / "digit_scenes", []

    def step():
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(out, SETTINGS, step)
    assert not out.exists()
    assert written(out) is None
    kept = tmp_path / ".digit_scenes.partial/coco/train2017/000000000002.jpg"
    before = kept.stat().st_mtime_ns
    assert write_scenes(out, SETTINGS)
    assert (out / "coco/train2017/000000000002.jpg").stat().st_mtime_ns == before
    assert files(out) == files(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["digit_scenes"]
    assert not write_scenes(out, SETTINGS)


def test_other_settings_do_not_mix_with_what_was_begun(folder, tmp_path):
    out = tmp_path / "digit_scenes"

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(out, SceneSettings(train=2, val=1, seed=5), stop)
    write_scenes(out, SETTINGS)
    assert files(out) == files(folder)


def test_what_is_there_is_not_overwritten(folder, tmp_path):
    with pytest.raises(FileExistsError, match="other settings"):
        write_scenes(folder, SceneSettings())
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="holds no digit scenes"):
        write_scenes(tmp_path, SETTINGS)
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "train=0: must be at least 1"),
        ({"size": (64, 48)}, r"size=\(64, 48\)"),
        ({"size": (16, 64)}, "at least 32"),
        ({"digit_size": (20, 80)}, "larger than the smallest canvas, 64"),
        ({"clutter": (-1, 2)}, "clutter"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        SceneSettings(**options)


def test_unknown_split():
    with pytest.raises(ValueError, match="allowed: train, val"):
        next(scenes("test", SETTINGS))


def test_command_line(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("make_digit_scenes", ROOT / "tools/make_digit_scenes.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    out = tmp_path / "s"
    arguments = ["--out", str(out), "--train", "2", "--val", "1", "--size", "48-64", "--seed", "3"]
    assert tool.main(arguments) == 0
    assert written(out) == SceneSettings(train=2, val=1, size=(48, 64), seed=3)
    assert tool.main(arguments) == 0
    assert "already there" in capsys.readouterr().out
    assert tool.main([*arguments, "--clutter", "7"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert tool.main(["--out", str(tmp_path / "t"), "--digit-size", "90"]) == 2
    assert "digit_size=(90, 90)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main(["--size", "big"])
    assert "a range such as 64-128" in capsys.readouterr().err
