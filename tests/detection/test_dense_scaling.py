"""``visionpe scaling --config``: detection and segmentation against the test scale, through real test loops."""

import csv
import json
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

import visionpe
import visionpe.detection
from visionpe.cli import scaling as resolution_scaling
from visionpe.detection.scaling import rows as scaling_rows
from visionpe.detection.scaling import study as scaling
from visionpe.detection.scaling.config import rescale

from mmdet.models import BaseDetector  # isort: skip  after the stand-in
from mmseg.models import BaseSegmentor  # isort: skip

ROOT = Path(__file__).parents[2]
CLASSES = 4


class _Knowing:
    """What models that know the answer have in common."""

    def loss(self, *_):
        raise NotImplementedError

    _forward = extract_feat = encode_decode = loss


@MODELS.register_module()
class KnowingDetector(_Knowing, BaseDetector):
    """Gives back the boxes of the labels."""

    def predict(self, batch_inputs, batch_data_samples, rescale=True):
        for sample in batch_data_samples:
            truth = sample.gt_instances
            scores = torch.ones(len(truth.labels))
            sample.pred_instances = InstanceData(bboxes=truth.bboxes, labels=truth.labels, scores=scores)
        return batch_data_samples


@MODELS.register_module()
class KnowingSegmentor(_Knowing, BaseSegmentor):
    """Reads the class off the brightness of a pixel, at whatever size the picture comes."""

    align_corners = False
    seen: ClassVar = set()  # sizes of pictures

    def predict(self, inputs, data_samples=None):
        self.seen.add(tuple(inputs.shape[2:]))
        levels = torch.arange(CLASSES).view(1, -1, 1, 1) * 60.0
        return self.postprocess_result(-(inputs[:, :1] - levels).abs(), data_samples)


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def go(capsys, *arguments):
    """Run the tool; returns the exit code and what it printed."""
    code = resolution_scaling.main([str(a) for a in arguments])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four pictures of 47 x 70: bands of each class for segmentation, a box each for detection."""
    folder = tmp_path_factory.mktemp("data")
    classes = np.minimum(np.arange(70) // 18, CLASSES - 1).astype(np.uint8)[None].repeat(47, 0)
    for part in ("images", "annotations"):
        (folder / part / "validation").mkdir(parents=True)
    names = [f"{i}.png" for i in range(4)]
    for name in names:
        cv2.imwrite(str(folder / "images/validation" / name), np.repeat(classes[..., None] * 60, 3, 2))
        cv2.imwrite(str(folder / "annotations/validation" / name), classes)
    box = {"bbox": [10, 12, 20, 18], "area": 360, "iscrowd": 0, "category_id": 1}
    boxes = {
        "images": [{"id": i, "file_name": name, "width": 70, "height": 47} for i, name in enumerate(names)],
        "annotations": [{"id": i + 1, "image_id": i, **box} for i in range(4)],
        "categories": [{"id": 1, "name": "0"}],
    }
    (folder / "boxes.json").write_text(json.dumps(boxes))
    torch.save({}, folder / "empty.pth")
    return folder


@pytest.fixture
def _undrawn(monkeypatch):
    for name in ("plot", "page"):
        monkeypatch.setattr(scaling, name, lambda *_: None)


def of_bands(name, pictures):
    """A segmentation config of ours, tested on the pictures."""
    config = Config.fromfile(str(ROOT / f"configs/digits/{name}.py"))
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    dataset = config.test_dataloader.dataset
    dataset.update(data_root=str(pictures), reduce_zero_label=False, img_suffix=".png")
    dataset.data_prefix = {"img_path": "images/validation", "seg_map_path": "annotations/validation"}
    dataset.metainfo = {"classes": list("abcd"), "palette": [[i * 60] * 3 for i in range(CLASSES)]}
    dataset.pipeline[2].reduce_zero_label = False
    return config


def test_truth_is_compared_at_the_size_of_the_picture(pictures, tmp_path, capsys):
    config = of_bands("_base_/segmentation", pictures)
    config.model = {"type": "KnowingSegmentor", "data_preprocessor": {"type": "SegDataPreProcessor"}}
    config.dump(tmp_path / "knowing.py")
    model = ["--config", tmp_path / "knowing.py", "--checkpoint", pictures / "empty.pth"]
    code, text = go(capsys, *model, "--out", tmp_path / "o", "--resolutions", "0.5x")
    assert code == 0, text
    assert KnowingSegmentor.seen == {(24, 35), (48, 70)}
    content = json.loads((tmp_path / "o/results.json").read_text())
    found = {row["policy"]: row["metrics"]["mIoU"] for row in content["rows"]}
    assert list(found) == ["default", "downscale"]  # it has no policies: as built
    assert min(found.values()) > 90  # a pixel or two at the edges of three bands
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        *("rows", "logs", "results.csv", "results.json", "results.md", "resolution.png", "resolution.html")
    }
    with (tmp_path / "o/results.csv").open() as file:
        assert [float(row["mIoU"]) for row in csv.DictReader(file)] == list(found.values())
    assert content["provenance"]["models"][0]["images"] == 4


@pytest.mark.usefixtures("_undrawn")
def test_pictures_left_out_are_not_missed_and_a_row_that_fails_is_alone(pictures, tmp_path, capsys, monkeypatch):
    def refuse(config, factor, **more):
        if factor == 3:
            raise RuntimeError("no luck")
        rescale(config, factor, **more)

    config = Config.fromfile(str(ROOT / "configs/digits/mask_rcnn_none_vit.py"))
    config.model = {"type": "KnowingDetector", "data_preprocessor": {"type": "DetDataPreprocessor"}}
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    config.test_dataloader.dataset.pipeline[2].with_mask = False
    file = str(pictures / "boxes.json")
    dataset = {"data_root": "", "ann_file": file, "data_prefix": {"img": str(pictures / "images/validation")}}
    config.test_dataloader.dataset.update(dataset, metainfo={"classes": ("0",)})
    config.test_evaluator.update(ann_file=file, metric="bbox")
    config.dump(tmp_path / "knowing.py")
    model = ["--config", tmp_path / "knowing.py", "--checkpoint", pictures / "empty.pth"]
    call = [*model, "--out", tmp_path / "o", "--resolutions", "1.5x", "3x", "--controls", "none"]
    monkeypatch.setattr(scaling_rows, "rescale", refuse)
    code, text = go(capsys, *call, "--limit", 2)
    assert code == 0, text
    good, bad = json.loads((tmp_path / "o/results.json").read_text())["rows"]
    assert (good["status"], good["n"], good["metrics"]["coco/bbox_mAP"]) == ("ok", 2, 1)
    assert (bad["factor"], bad["status"], bad["reason"]) == (3, "failed", "no luck")
    assert "default at 3x: failed (no luck)" in text
    # What failed is tried again, what went well is not.
    assert "2 rows, 1 of them already finished" in go(capsys, *call, "--limit", 2)[1]
    code, text = go(capsys, *call, "--crop", 32)
    assert code == 2
    assert "crops are for mmseg's EncoderDecoder" in text


@pytest.mark.usefixtures("_undrawn")
def test_policy_and_crop_reach_the_model(pictures, tmp_path, capsys, monkeypatch):
    config = of_bands("fcn_rope_vit", pictures)
    config.model.backbone.update(embed_dim=16, num_heads=2, depth=1, out_indices=[0])
    config.model.neck.in_channels = 16
    config.model.decode_head.num_classes = CLASSES
    config.dump(tmp_path / "slim.py")
    init_default_scope(config.default_scope)
    torch.save(MODELS.build(config.model).state_dict(), tmp_path / "a.pth")
    seen = []

    def watch(model):
        backbone = model.backbone
        policy = visionpe.policies(model)[0]
        backbone.register_forward_pre_hook(lambda _, inputs: seen.append((policy, tuple(inputs[0].shape[2:]))))

    def set_policy(model, policy):
        watch(visionpe.set_policy(model, policy))

    monkeypatch.setattr(scaling_rows, "set_policy", set_policy)
    call = ["--config", tmp_path / "slim.py", "--checkpoint", tmp_path / "a.pth", "--out", tmp_path / "o"]
    call += ["--resolutions", "2x", "--policy", "interpolate", "--controls", "none", "--crop", "1x"]
    code, text = go(capsys, *call)
    assert code == 0, text
    # Two rows of three crops of 64 x 64 cover 94 x 140 pixels in steps of 42.
    assert seen == [("interpolate", (64, 64))] * 6
    (row,) = json.loads((tmp_path / "o/results.json").read_text())["rows"]
    assert (row["status"], row["crop"], row["n"]) == ("ok", "64x64", 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "a", "b"], "unrecognized"),
        ([], "--checkpoint: 0 given for 1 --config"),
        (["--checkpoint", "no.pth"], "checkpoint 'no.pth' does not exist"),
        (["--checkpoint", "a", "--model", "vit"], "--model: cannot be used with --config"),
        (["--checkpoint", "a", "--batch-size", "3"], "--batch-size: cannot be used with --config"),
        (["--checkpoint", "a", "--policy", "auto", "--auto-images", "1"], "--auto-images 1: must be at least 2"),
        (["--checkpoint", "a", "--controls", "tiling"], "--controls tiling: "),
        (["--checkpoint", "a", "--resolutions", "224"], "--resolutions 224: with --config a factor"),
        (["--checkpoint", "a", "--limit", "0"], "--limit 0: must be at least 1"),
        (["--checkpoint", "a", "--crop", "-3"], "--crop"),
        (["--checkpoint", str(ROOT / "LICENSE"), "--cfg-options", "batch"], "--cfg-options batch: not KEY=VALUE"),
    ],
)
def test_bad_input(arguments, message, tmp_path, capsys):
    path = ROOT / "configs/digits/fcn_rope_vit.py"
    code, text = go(capsys, "--config", path, *arguments, "--out", tmp_path / "o")
    assert code == 2
    (error,) = text.splitlines()
    assert error.startswith("error: ")
    assert message in error
