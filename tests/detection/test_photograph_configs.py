"""The configs for photographs that users fetch themselves train and are measured, from the folders that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image
from slim_configs import slim

CONFIGS = Path(__file__).parents[2] / "configs"


def write_camvid(root: Path, draw: np.random.Generator) -> None:
    for split in ("train", "val"):
        kinds = (("images", (120, 160, 3), "jpg", 256), ("annotations", (120, 160), "png", 11))
        for what, shape, ending, high in kinds:
            folder = root / what / split
            folder.mkdir(parents=True)
            for name in "ab":
                Image.fromarray(draw.integers(0, high, shape, dtype=np.uint8)).save(folder / f"{name}.{ending}")


def write_bccd(root: Path, draw: np.random.Generator) -> None:
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        pictures, boxes = [], []
        for index in range(2):
            Image.fromarray(draw.integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(root / split / f"{index}.jpg")
            pictures.append({"id": index, "file_name": f"{index}.jpg", "width": 160, "height": 120})
            box = {"bbox": [20.0, 30.0, 40.0, 50.0], "area": 2000.0, "iscrowd": 0}
            boxes.append({"id": index, "image_id": index, "category_id": 1 + index, **box})
        names = [{"id": i, "name": name} for i, name in enumerate(("RBC", "WBC", "Platelets"), start=1)]
        text = json.dumps({"images": pictures, "annotations": boxes, "categories": names})
        (root / f"{split}.json").write_text(text)


CASES: dict[str, tuple[Any, str]] = {
    "camvid/linear_dinov2_vit_s.py": (write_camvid, "mIoU"),
    "bccd/retinanet_dinov2_vit_s.py": (write_bccd, "coco/bbox_mAP"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_it_trains_and_is_measured(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write, score = CASES[name]
    write(Path("data") / name.split("/")[0], np.random.default_rng(0))
    config = Config.fromfile(CONFIGS / name)
    init_default_scope(config.default_scope)
    slim(config)
    model = MODELS.build(config.model)
    model.init_weights()
    assert not any(p.requires_grad for p in model.backbone.parameters())
    train = DATASETS.build(config.train_dataloader.dataset)
    examples = [train[index] for index in range(2)]
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    losses = model.train_step(pseudo_collate(examples), wrapper)
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in losses.values())

    tested = DATASETS.build(config.test_dataloader.dataset)
    evaluator = Evaluator(config.test_evaluator)
    evaluator.dataset_meta = tested.metainfo
    model.eval()
    for index in range(2):
        batch = pseudo_collate([tested[index]])
        with torch.no_grad():
            evaluator.process(data_samples=model.val_step(batch), data_batch=batch)
    assert score in evaluator.evaluate(2)
