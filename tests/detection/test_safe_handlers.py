"""A planted call in a config or in annotations: refused, and nothing of it runs."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch

from visionpe.cli import main
from visionpe.detection.running.runner import load_config
from visionpe.utils.checkpoints import TRUST
from visionpe.utils.errors import InputError


class Planted:
    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(TRUST, raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["c.yaml", "c.yml"])
def test_a_tag_in_a_config_calls_nothing(name: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    Path(name).write_text('model: !!python/object/apply:os.system ["touch ran"]\n')
    assert main(["train", name]) == 2
    assert "python/object/apply:os.system" in capsys.readouterr().err
    assert [file.name for file in folder.iterdir()] == [name]


class PlantedInStorage:
    """What a pickled tensor calls for its numbers: by itself it reads any pickle."""

    def __reduce__(self) -> tuple:
        torch.save(Planted(), content := io.BytesIO(), _use_new_zipfile_serialization=False)
        return torch.storage._load_from_bytes, (content.getvalue(),)


def test_predictions_are_read_and_call_nothing(folder: Path) -> None:
    """As mmdet's and mmpretrain's test.py write them with --out."""
    found = {"boxes": torch.rand(3, 4).t(), "labels": torch.arange(3), "half": torch.rand(2).bfloat16(), "size": (4, 5)}
    mmengine.dump([found], "a.pkl")
    (again,) = mmengine.load("a.pkl")
    assert all(torch.equal(again[name], found[name]) for name in ("boxes", "labels", "half"))
    Path("a.pkl").write_bytes(pickle.dumps([PlantedInStorage()]))
    with pytest.raises(InputError, match=r"can run code|was not loaded"):
        mmengine.load("a.pkl")
    assert [file.name for file in folder.iterdir()] == ["a.pkl"]


@pytest.mark.parametrize("name", ["a.pkl", "a.pickle"])
def test_annotations_call_nothing(name: str, folder: Path) -> None:
    Path(name).write_bytes(pickle.dumps({"data_list": [Planted()]}))
    with pytest.raises(InputError, match="system, which can run code"):
        mmengine.load(name)
    assert [file.name for file in folder.iterdir()] == [name]


def test_plain_values_are_read(folder: Path) -> None:
    Path("c.yaml").write_text("model: {size: !!python/tuple [1, 2]}\n")
    assert load_config("c.yaml").model.size == (1, 2)
    mmengine.dump({"boxes": np.ones((2, 4)), "name": "é"}, "a.pkl")
    found = mmengine.load("a.pkl")
    assert found["name"] == "é"
    assert found["boxes"].shape == (2, 4)
