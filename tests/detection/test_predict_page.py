"""Predictions on a user's own data: folders of pictures, of classes, COCO annotations, and the page of all of them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample

from visionpe.cli import main
from visionpe.detection.predicting import pictures
from visionpe.detection.predicting.pictures import predict
from visionpe.detection.predicting.sources import collect
from visionpe.utils.errors import InputError
from visionpe.viewing.predictions import Entry, write_predictions

CONFIG = {"mmdet": "digits/mask_rcnn_rope_vit.py", "mmpretrain": "digits/rope_mixed_vit.py"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(1)}, "w.pth")


def fake(monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    """A model that sees a 3 in everything."""

    class Sees:
        def __init__(self, *_: Any) -> None:
            self.scope, self.meta = scope, {"classes": tuple("0123456789")}

        def __call__(self, picture: np.ndarray) -> Any:
            if scope == "mmpretrain":
                return DataSample().set_pred_score(torch.eye(10)[3])
            box = InstanceData(
                bboxes=torch.tensor([[1.0, 1, 5, 5]]), labels=torch.tensor([3]), scores=torch.tensor([0.9])
            )
            return DetDataSample(pred_instances=box)

    monkeypatch.setattr(pictures, "Predictor", Sees)


def picture(path: str, height: int = 30, width: int = 40) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(path, np.full((height, width, 3), 90, np.uint8))


def annotations(path: str, **image: Any) -> None:
    box = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 3, 10, 12], "area": 120, "iscrowd": 0}
    box["segmentation"] = [[2, 3, 12, 3, 12, 15, 2, 15]]
    content = {
        "images": [{"id": 1, "file_name": "x.png", "height": 30, "width": 40, **image}],
        "categories": [{"id": 7, "name": "5"}, {"id": 8, "name": "none of ours"}],
        "annotations": [box, {**box, "id": 2, "category_id": 8}],
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content))


def entries(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', Path(page).read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def test_folders_of_classes_say_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "mmpretrain")
    for name in ("3/a.png", "3/b.PNG", "5/a.png", "10/c.jpg"):
        picture(f"data/{name}")
    Path("data/3/notes.txt").write_text("no picture")
    files = predict(["data"], CONFIG["mmpretrain"], "w.pth", "out", page="page.html")
    names = ("3/a", "3/b", "5/a", "10/c")
    assert files == [*(Path(f"out/{name}.png") for name in names), Path("page.html")]
    assert all(file.is_file() for file in files)
    found = entries("page.html")
    assert [each["name"] for each in found] == list(names)
    assert [each["right"] for each in found] == [True, True, False, None]  # 10 is no class of the model
    assert found[2]["classes"] == ["3", "5"]
    assert found[2]["found"].endswith("true: 5")
    assert [list(each["pictures"]) for each in found[2:]] == [
        ["prediction", "ground truth", "picture"],
        ["prediction", "picture"],
    ]
    assert cv2.imdecode(np.frombuffer(base64.b64decode(found[0]["pictures"]["picture"]), np.uint8), 1).shape == (
        30,
        40,
        3,
    )
    assert len(predict(["data"], CONFIG["mmpretrain"], "w.pth", "out", limit=2)) == 2


def test_coco_annotations_are_the_ground_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "mmdet")
    annotations("coco/annotations/instances_val.json")
    picture("coco/train/x.png", 50, 50)  # another one of that name
    picture("coco/val/x.png")
    predict(["coco/annotations/instances_val.json"], CONFIG["mmdet"], "w.pth", "out", page="page.html")
    (found,) = entries("page.html")
    assert found["classes"] == ["3", "5"]
    assert list(found["pictures"]) == ["prediction", "ground truth", "picture"]
    (source,) = collect(["coco/annotations/instances_val.json"])
    truth = source.truth("mmdet", tuple("0123456789"), (30, 40)).gt_instances
    assert truth.bboxes.tolist() == [[2, 3, 12, 15]]
    assert truth.labels.tolist() == [5]
    assert truth.masks[0, 4:14, 3:11].all()
    assert int(truth.masks.sum()) <= 11 * 13
    assert source.truth("mmseg", None, (30, 40)) is None
    with pytest.raises(InputError, match=r"is 50 x 50 .*, its annotation is of 30 x 40"):
        predict(
            ["coco/annotations/instances_val.json"],
            CONFIG["mmdet"],
            "w.pth",
            "o",
            page="p.html",
            image_root="coco/train",
        )
    assert collect(["coco/annotations/instances_val.json"], "coco/train")[0].path == Path("coco/train/x.png")


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "mmdet")
    picture("a/x.png")
    picture("b/x.png")
    Path("empty").mkdir()
    annotations("deep/er/lonely/a.json")
    annotations("bad/a.json", height=-1)
    for images, options, words in (
        (["empty"], {}, "empty: holds no pictures"),
        (["a", "b"], {}, "two images have the same name"),
        (["deep/er/lonely/a.json"], {}, r"'x\.png' is in no folder beside it; give --image-root DIR"),
        (["deep/er/lonely/a.json"], {"image_root": "empty"}, r"--image-root empty: there is no 'x\.png' in it"),
        (["bad/a.json"], {}, r"images\[0\]: height -1"),
        (["a"], {"out": "a"}, r"--out a: .*x\.png would be written over"),
        (["a"], {"page": "w.pth"}, r"--page w\.pth: allowed: a file named \.html"),
        (["a"], {"page": "empty/none/../../a/x.html/y.html", "limit": 0}, "--limit 0: must be at least 1"),
        (["a/none.png"], {}, "does not exist"),
    ):
        with pytest.raises(InputError, match=words):
            predict(images, CONFIG["mmdet"], "w.pth", **{"out": "out", **options})
    assert not Path("out").exists()
    monkeypatch.setattr(pictures, "LARGEST_PAGE", 0)
    with pytest.raises(InputError, match=r"--page p\.html: 1 pictures; allowed: up to 0, see --limit"):
        predict(["a"], CONFIG["mmdet"], "w.pth", "out", page="p.html")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake(monkeypatch, "mmdet")
    picture("a/x.png")
    given = ["--config", CONFIG["mmdet"], "--checkpoint", "w.pth", "--page", "p.html", "--limit", "1"]
    assert main(["predict", "a", *given]) == 0
    assert capsys.readouterr().out == "predictions/x.png: 3 0.90\np.html: the page\n"


def test_names_cannot_end_the_page(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    entry = Entry(evil, evil, [evil], {"prediction": b"x"})
    write_predictions(tmp_path / "p.html", evil, [entry], {"config": evil})
    text = (tmp_path / "p.html").read_text()
    assert "alert(1)</script>" not in text
    assert entries(str(tmp_path / "p.html"))[0]["name"] == evil
    assert "http" not in re.sub(r"https?://www\.w3", "", text)  # it loads nothing
