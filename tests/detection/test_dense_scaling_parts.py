"""The parts of the study of detection and segmentation: pipelines, crops, keys of rows, and what is reported."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from visionpe.detection.scaling import report
from visionpe.detection.scaling.config import crop_size, parse_crop, rescale, set_crop
from visionpe.detection.scaling.entries import choose
from visionpe.detection.scaling.plot import panels, plot
from visionpe.detection.scaling.rows import ModelEntry, Task
from visionpe.utils.errors import InputError


def test_scale_is_multiplied_in_every_resize_once():
    steps = [
        dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
        dict(type="Resize", scale_factor=0.5),
        dict(type="ResizeShortestEdge", scale=512, max_size=2048),
        dict(type="Pad", size=(1024, 1024)),
        dict(type="Load"),
    ]
    shared = {"pipeline": steps}
    config = Config({"test_dataloader": {"dataset": {"datasets": [shared, shared]}}})
    rescale(config, 1.5)
    for part in config.test_dataloader.dataset.datasets:
        first, second, third, pad, load = part["pipeline"]
        assert (first["scale"], first["keep_ratio"]) == ((2000, 1200), True)
        assert second["scale_factor"] == 0.75
        assert (third["scale"], third["max_size"]) == (768, 3072)
        assert pad["size"] == (1536, 1536)
        assert load == {"type": "Load"}
    with pytest.raises(InputError, match="no Resize"):
        rescale(Config({"test_dataloader": {"dataset": {"pipeline": [{"type": "Load"}]}}}), 2)


@pytest.mark.parametrize("factor", [0.5, 1, 1.5, 3])
def test_pictures_of_the_pipeline(factor):
    init_default_scope("mmdet")
    rng = np.random.default_rng(0)
    picture = {"img": rng.integers(0, 255, (40, 60, 3), np.uint8), "img_shape": (40, 60)}
    made = {}
    for back in (False, True):
        steps = [dict(type="Resize", scale=(90, 70), keep_ratio=True)]
        config = Config({"test_dataloader": {"dataset": {"pipeline": steps}}})
        rescale(config, factor, back=back)
        made[back] = Compose(config.test_dataloader.dataset.pipeline)(dict(picture))
    assert made[False]["img"].shape[:2] == made[False]["img_shape"] == (60 * factor, 90 * factor)
    assert made[False]["scale_factor"] == pytest.approx((1.5 * factor, 1.5 * factor))
    assert made[True]["img"].shape[:2] == made[True]["img_shape"] == (60, 90)
    assert made[True]["scale_factor"] == pytest.approx((1.5, 1.5))
    native = cv2.resize(picture["img"], (90, 60)).astype(float)
    lost = np.abs(made[True]["img"] - native).mean()
    assert (lost > 15) if factor < 1 else (lost < 5)


def test_crops():
    config = Config({"model": {"test_cfg": {"mode": "whole"}, "backbone": {"img_size": 64}}})
    assert crop_size(config, parse_crop("1.5x")) == (96, 96)
    assert crop_size(config, parse_crop("48x96")) == (48, 96)
    set_crop(config, (48, 96))
    assert config.model.test_cfg == {"mode": "slide", "crop_size": (48, 96), "stride": (32, 64)}
    assert crop_size(config, parse_crop("2x")) == (96, 192)  # the crop of the test is the nearer truth
    with pytest.raises(InputError, match="--crop big: not a size"):
        parse_crop("big")
    with pytest.raises(InputError, match="give pixels"):
        crop_size(Config({"model": {}}), parse_crop("1x"))


def test_everything_that_decides_a_row_is_in_its_key():
    def entry(text="c", digest="s", images=9):
        return ModelEntry("m", Config({}), Path("x"), digest, images, (), text)

    tasks = [Task(entry(), policy, factor, crop) for policy in "ab" for factor in (1, 2) for crop in (None, (8, 8))]
    tasks += [Task(entry("d"), "a", 1), Task(entry(digest="t"), "a", 1), Task(entry(images=8), "a", 1)]
    keys = {task.key(limit, {"v": v}) for task in tasks for limit in (None, 5) for v in "12"}
    assert len(keys) == len(tasks) * 4


def test_policies_asked_for():
    linear = torch.nn.Linear(1, 1)
    assert choose(linear, ["all"], ["downscale"]) == (["default", "downscale"], [])
    assert choose(linear, ["yarn"], ["none"]) == (["default"], ["yarn"])


GOOD = {"config": "c", "checkpoint": "w", "crop": "", "status": "ok", "reason": "", "n": 9, "seconds": 1.0}
ROWS = [
    {**GOOD, "label": label, "policy": policy, "factor": factor, "metrics": {"coco/bbox_mAP": ap, "other": 0.1}}
    for label, policy, factor, ap in (
        *(("a", "x", 1.0, 0.5), ("a", "x", 2.0, 0.2), ("a", "y", 1.0, 0.5), ("a", "y", 2.0, 0.31)),
        *(("a", "downscale", 2.0, 0.31), ("b", "x", 1.0, None), ("b", "x", 2.0, 0.4)),
    )
]
FAILED = {**ROWS[0], "label": "b", "policy": "y", "status": "failed", "reason": "no luck", "metrics": {}}


def test_markdown_marks_the_best_policy_of_each_model():
    assert report.markdown([*ROWS, FAILED]).splitlines() == [
        *("| box AP | policy | 1x | 2x |", "|---|---|---:|---:|"),
        *("| a | x | 50.0 | 20.0 |", "| a | y | 50.0 | **31.0** |", "| a | downscale |  | 31.0 |"),
        *("| b | x | - | 40.0 |", "| b | y | failed |  |"),
    ]


def test_picture_has_a_curve_for_each_line(tmp_path):
    (panel,) = panels([*ROWS, FAILED])
    found = {(curve.label, curve.policy): (list(curve.x), list(curve.y)) for curve in panel.curves}
    assert found["a", "y"] == ([1, 2], [50, 31])
    assert found["b", "x"] == ([2], [40])
    assert panel.notes == ["Not measured: b, y: no luck"]
    plot(tmp_path / "p.png", [panel], "title")
    assert cv2.imread(str(tmp_path / "p.png")).shape[0] > 500
