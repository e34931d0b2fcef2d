"""mIoU, mAcc and OA of clouds, against a confusion matrix by hand, and summed over folds."""

import json

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS

import visionpe.detection  # noqa: F401
from visionpe.detection.clouds import folds
from visionpe.detection.clouds.metric import fold_metrics

CLASSES = ("floor", "wall", "chair", "never")


def sample(predicted, truth):
    return {"pred_sem_seg": {"data": torch.tensor(predicted)}, "gt_sem_seg": {"data": torch.tensor(truth)}}


def evaluate(samples, **kwargs):
    metric = METRICS.build({"type": "CloudMetric", **kwargs})
    metric.dataset_meta = {"classes": CLASSES}
    for one in samples:
        metric.process({}, [one])
    return metric.evaluate(len(samples))


# Rows are the truth: [[3, 1, 0], [0, 2, 0], [1, 0, 1]] over both clouds; the ignored points would change all.
CLOUDS = [
    sample([0, 0, 1, 1, 2, 0, 1], [0, 0, 0, 1, 2, 255, 255]),
    sample([0, 1, 0, 2, 2], [0, 1, 2, 255, 255]),
]
EXPECTED = {
    "OA": 100 * 6 / 8,
    "mIoU": 100 * (3 / 5 + 2 / 3 + 1 / 2) / 3,
    "mAcc": 100 * (3 / 4 + 2 / 2 + 1 / 2) / 3,
    "IoU/floor": 60,
    "IoU/wall": 100 * 2 / 3,
    "IoU/chair": 50,
}


def test_against_a_confusion_matrix():
    metrics = evaluate(CLOUDS)
    assert metrics.keys() == EXPECTED.keys()  # a class that is nowhere has no IoU
    assert metrics == pytest.approx(EXPECTED, abs=0.01)


def test_counts_are_of_the_split_not_means_over_clouds():
    one = sample(*([*a["data"].tolist(), *b["data"].tolist()] for a, b in zip(*(c.values() for c in CLOUDS))))
    assert evaluate([one]) == evaluate(CLOUDS)


def test_other_ignore_index():
    shifted = [sample(c["pred_sem_seg"]["data"].tolist(), c["gt_sem_seg"]["data"].tolist()) for c in CLOUDS]
    for cloud in shifted:
        labels = cloud["gt_sem_seg"]["data"]
        labels[labels == 255] = -100
    assert evaluate(shifted, ignore_index=-100) == pytest.approx(EXPECTED, abs=0.01)


def test_many_points_are_counted_exactly(tmp_path):
    metric = METRICS.build({"type": "CloudMetric", "counts": str(tmp_path / "counts.json")})
    metric.dataset_meta = {"classes": ("a", "b")}
    # float32 counts no further than to the first.
    metric.compute_metrics([[torch.full((2,), 2.0**24)] * 4] + [[torch.ones(2)] * 4] * 3)
    assert json.loads((tmp_path / "counts.json").read_text())["union"] == [2**24 + 3] * 2


def test_folds_are_summed_before_they_are_divided(tmp_path, capsys):
    files = [tmp_path / f"area_{i}" / "counts.json" for i in range(2)]
    single = [evaluate([cloud], counts=str(file)) for cloud, file in zip(CLOUDS, files)]
    counts = json.loads(files[0].read_text())
    assert counts == {
        "classes": list(CLASSES),
        "intersection": [2, 1, 1, 0],
        "union": [3, 2, 1, 0],
        "predicted": [2, 2, 1, 0],
        "truth": [3, 1, 1, 0],
    }
    assert fold_metrics(files) == pytest.approx(EXPECTED, abs=0.01)
    assert abs(np.mean([m["mIoU"] for m in single]) - EXPECTED["mIoU"]) > 1
    assert folds.main([str(file) for file in files]) == pytest.approx(EXPECTED, abs=0.01)
    assert "2 folds: mIoU 58.89, mAcc 75.00, OA 75.00" in capsys.readouterr().out


def test_folds_of_other_classes_are_refused(tmp_path, capsys):
    files = [tmp_path / f"{i}.json" for i in range(2)]
    for cloud, file in zip(CLOUDS, files):
        evaluate([cloud], counts=str(file))
    changed = json.loads(files[1].read_text())
    files[1].write_text(json.dumps({**changed, "classes": ["a", "b", "c", "d"]}))
    with pytest.raises(ValueError, match=r"1\.json has classes"):
        fold_metrics(files)
    with pytest.raises(ValueError, match="files is empty"):
        fold_metrics([])
    with pytest.raises(SystemExit, match="2"):
        folds.main([str(tmp_path / "nowhere.json")])
    assert "nowhere.json" in capsys.readouterr().err
