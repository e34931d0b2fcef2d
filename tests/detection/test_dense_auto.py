"""``visionpe scaling --config --policy auto``: policies chosen by what detectors and segmentors predict of cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

import visionpe.detection  # noqa: F401
from visionpe.cli import scaling as resolution_scaling
from visionpe.detection.scaling import auto
from visionpe.detection.scaling import study as scaling
from visionpe.detection.scaling.cells import CELLS, cell_logits
from visionpe.policy.selection import PolicyChoice, select_policy

ROOT = Path(__file__).parents[2]


class Sample(dict):
    __getattr__ = dict.__getitem__


def test_cells_of_a_segmentation() -> None:
    logits = torch.full((3, 32, 48), -9.0)
    logits[0, :, :24], logits[2, :, 24:] = 9, 9
    p = cell_logits(Sample(seg_logits=PixelData(data=logits)), 0).softmax(1).reshape(CELLS, CELLS, 3)
    assert p[:, :8, 0].min() > 0.99
    assert p[:, 8:, 2].min() > 0.99
    one = cell_logits(Sample(seg_logits=PixelData(data=torch.full((1, 20, 20), 2.0))), 0).softmax(1)
    assert one.shape == (256, 2)
    assert one[:, 1].numpy() == pytest.approx(torch.tensor(2.0).sigmoid().item(), abs=1e-3)


def test_cells_of_a_detection() -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 8.0, 4.0], [1.0, 1.0, 7.0, 3.0], [60.0, 30.0, 64.0, 32.0], [90.0, -9.0, 99.0, 1.0]]
    )
    instances = InstanceData(bboxes=boxes, scores=torch.tensor([0.9, 0.4, 0.6, 0.5]), labels=torch.tensor([1, 1, 0, 0]))
    sample = Sample(pred_instances=instances, ori_shape=(32, 64))
    p = cell_logits(sample, 2).softmax(1).reshape(CELLS, CELLS, 3)
    assert p[1, 1].tolist() == pytest.approx([0, 0.9, 0.1], abs=1e-3)  # the better of two
    assert p[15, 15].tolist() == pytest.approx([0.6, 0, 0.4], abs=1e-3)
    assert p[0, 15].tolist() == pytest.approx([0.5, 0, 0.5], abs=1e-3)  # a centre outside counts at the edge
    assert (p[..., 2] > 0.99).sum() == CELLS**2 - 3
    nothing = InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long())
    empty = cell_logits(Sample(pred_instances=nothing, ori_shape=(32, 64)), 2).softmax(1)
    assert empty[:, 2].min() > 0.99


def test_cells_of_a_picture_are_drawn_together() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, generator=generator)
    better = x + torch.randn(4, 2, generator=generator)
    rows = [each.repeat_interleave(256, 0) for each in (x, better)]
    views = {name: (each, each) for name, each in zip("ab", rows)}
    few, many = select_policy(views, group=256), select_policy(views)
    assert few.scores == many.scores
    assert abs(few.sure - 0.5) < abs(many.sure - 0.5)  # four pictures say less than a thousand cells


@pytest.fixture
def slim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A slim segmentor with random weights on five small pictures: its part of the command line."""
    monkeypatch.chdir(ROOT)
    generator = np.random.default_rng(0)
    for part in ("images", "annotations"):
        (tmp_path / part / "validation").mkdir(parents=True)
    for i in range(5):
        picture = generator.integers(0, 255, (48, 64, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"images/validation/{i}.png"), picture)
        cv2.imwrite(str(tmp_path / f"annotations/validation/{i}.png"), picture[..., 0] % 4)
    config = Config.fromfile(str(ROOT / "configs/digits/fcn_rope_vit.py"))
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    dataset = config.test_dataloader.dataset
    dataset.update(data_root=str(tmp_path), reduce_zero_label=False, img_suffix=".png")
    dataset.data_prefix = {"img_path": "images/validation", "seg_map_path": "annotations/validation"}
    dataset.metainfo = {"classes": list("abcd"), "palette": [[i * 60] * 3 for i in range(4)]}
    dataset.pipeline[2].reduce_zero_label = False
    config.model.backbone.update(embed_dim=16, num_heads=2, depth=1, out_indices=[0])
    config.model.neck.in_channels = 16
    config.model.decode_head.num_classes = 4
    config.dump(tmp_path / "slim.py")
    init_default_scope(config.default_scope)
    torch.save(MODELS.build(config.model).state_dict(), tmp_path / "a.pth")
    for name in ("plot", "page"):
        monkeypatch.setattr(scaling, name, lambda *_: None)
    given = ["--config", tmp_path / "slim.py", "--checkpoint", tmp_path / "a.pth", "--out", tmp_path / "o"]
    return [*map(str, given), "--resolutions", "1x", "2x", "--policy", "auto", "interpolate", "--auto-images", "3"]


def test_a_segmentor_chooses(slim: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[dict[str, Any]] = []

    def remember(candidates: dict, **more: Any) -> PolicyChoice:
        tried.append(candidates)
        return select_policy(candidates, **more)

    monkeypatch.setattr(auto, "select_policy", remember)
    assert resolution_scaling.main(slim) == 0
    rows = json.loads((tmp_path / "o/results.json").read_text())["rows"]
    found = {(row["policy"], row["factor"]): row for row in rows}
    assert found["auto", 1]["chosen"] == "default"
    chosen = found["auto", 2]["chosen"]
    assert chosen in tried[-1]
    assert {"default", "interpolate", "yarn", "downscale"} <= tried[-1].keys()
    assert "patch_resize" not in tried[-1]
    assert {len(view) for views in tried[-1].values() for view in views} == {3 * CELLS**2}
    first, second = tried[-1]["default"]
    assert not torch.equal(first, second)  # the other view is another
    if (chosen, 2.0) in found:
        assert found["auto", 2]["metrics"] == found[chosen, 2]["metrics"]
    assert "chosen" in (tmp_path / "o/results.csv").read_text().splitlines()[0]
    tried.clear()
    assert resolution_scaling.main(slim) == 0
    assert not tried  # choices are kept


def test_a_choice_that_fails_is_alone(slim: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> PolicyChoice:
        raise RuntimeError("no luck")

    monkeypatch.setattr(scaling, "choose", refuse)
    assert resolution_scaling.main([*slim, "--limit", "2"]) == 0
    rows = json.loads((tmp_path / "o/results.json").read_text())["rows"]
    assert {(row["policy"], row["status"], row["reason"]) for row in rows if row["policy"] == "auto"} == {
        ("auto", "failed", "no luck")
    }
    assert all(row["status"] == "ok" for row in rows if row["policy"] != "auto")
