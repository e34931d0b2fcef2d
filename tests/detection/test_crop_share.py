"""How much of an image a test pipeline shows, as a run keeps it for ``visionpe scaling``."""

from __future__ import annotations

import json

import pytest
from mmengine.config import Config

from visionpe.detection.running.crop_share import crop_share
from visionpe.scaling.models import from_runs
from visionpe.utils.configs import find_config

EDGE, CUT = {"type": "ResizeEdge", "scale": 256}, {"type": "CenterCrop", "crop_size": 224}


@pytest.mark.parametrize(
    ("pipeline", "share"),
    [
        ([{"type": "LoadImageFromFile"}, EDGE, CUT, {"type": "PackInputs"}], 0.875),
        ([{"type": "mmpretrain.ResizeEdge", "scale": 224}, CUT], 1.0),
        ([{"type": "torchvision/Resize", "size": (48, 48)}], 1.0),
        ([{"type": "torchvision/Resize", "size": 64}, {"type": "torchvision/CenterCrop", "size": (64, 64)}], 1.0),
        ([{"type": "PackInputs"}], None),
        ([CUT], None),
        (None, None),
    ],
)
def test_of_a_pipeline(pipeline: list | None, share: float | None) -> None:
    assert crop_share(pipeline) == share


@pytest.mark.parametrize(
    ("name", "share"), [("elpv/ape_vit.py", 1.0), ("caltech101/ape_vit.py", 1.0), ("digits/ape_vit.py", None)]
)
def test_of_a_config(name: str, share: float | None) -> None:
    config = Config.fromfile(find_config(name), import_custom_modules=False)
    assert crop_share(config.test_dataloader.dataset.pipeline) == share


def test_a_run_is_measured_as_it_was_tested(tmp_path) -> None:
    from scaling_runs import write_run

    for name, given in (("cut", {"crop_pct": 0.5}), ("old", {})):
        write_run(tmp_path / name, **given)
    cut, old = from_runs([str(tmp_path / "cut"), str(tmp_path / "old")])
    assert json.loads((tmp_path / "cut" / "model.json").read_text())["crop_pct"] == 0.5
    assert cut.view("folder", 0).crop == 0.5
    assert old.view("folder", 0).crop == old.preprocessing["crop_pct"]
