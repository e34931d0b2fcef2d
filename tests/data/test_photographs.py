"""Photographs by name: what is found, how it is split, and what is said where it is not there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from visionpe.data import elpv
from visionpe.data.photographs import load_photographs
from visionpe.scaling.folder import NamedSource
from visionpe.scaling.open_images import open_source
from visionpe.scaling.protocols import ViewSpec
from visionpe.utils.errors import InputError


def write_classes(root: Path, numbers: dict[str, int]) -> None:
    for name, number in numbers.items():
        (root / name).mkdir(parents=True)
        for i in range(number):
            Image.new("RGB", (30, 20), (i, 0, 0)).save(root / name / f"image_{i:04}.jpg")


def test_elpv_is_split_once_for_all() -> None:
    splits = {split: load_photographs("elpv", split) for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in splits.items()} == {"train": 1724, "val": 300, "test": 600}
    files = [path for found in splits.values() for path, _ in found.samples]
    assert len(set(files)) == 2624
    for found in splits.values():
        assert found.classes == ("functional", "defective")
        assert Counter(label for _, label in found.samples)[1] / len(found) == pytest.approx(0.313, abs=0.005)


def test_caltech101_as_torchvision_leaves_it(tmp_path: Path) -> None:
    numbers = {"accordion": 40, "airplanes": 60, "BACKGROUND_Google": 9}
    write_classes(tmp_path / "caltech101" / "101_ObjectCategories", numbers)
    splits = {split: load_photographs("caltech101", split, tmp_path) for split in ("train", "val", "test")}
    counts = {split: sorted(Counter(label for _, label in found.samples).items()) for split, found in splits.items()}
    assert counts == {"train": [(0, 28), (1, 42)], "val": [(0, 4), (1, 6)], "test": [(0, 8), (1, 12)]}
    assert splits["test"].classes == ("accordion", "airplanes")
    assert len({path for found in splits.values() for path, _ in found.samples}) == 100
    assert load_photographs("caltech101", "test", tmp_path) == splits["test"]


def test_caltech101_as_folders_of_splits(tmp_path: Path) -> None:
    write_classes(tmp_path / "caltech101" / "train", {"a": 20, "b": 30})
    write_classes(tmp_path / "caltech101" / "test", {"b": 3})
    found = load_photographs("caltech101", "test", tmp_path)
    assert [label for _, label in found.samples] == [1, 1, 1]
    assert len(load_photographs("caltech101", "train", tmp_path)) == 45
    assert len(load_photographs("caltech101", "val", tmp_path)) == 5


def test_what_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.Caltech101", refuse)
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(no network\); put it there"):
        load_photographs("caltech101", "test", tmp_path)
    monkeypatch.setattr(elpv, "find_spec", lambda name: None)
    monkeypatch.setattr(elpv, "_splits", elpv._splits.__wrapped__)  # what was read before is kept
    with pytest.raises(InputError, match="--data elpv: the package elpv-dataset is not installed; install the `data`"):
        open_source("elpv")
    with pytest.raises(ValueError, match="name='cifar' is unknown; allowed: elpv, caltech101"):
        load_photographs("cifar")
    with pytest.raises(ValueError, match="split='all' is unknown; allowed: train, val, test"):
        load_photographs("elpv", "all")  # type: ignore[arg-type]


def test_shown_at_a_size() -> None:
    source = open_source("elpv", "val")
    assert isinstance(source, NamedSource)
    assert (len(source), source.classes) == (300, 2)
    spec = ViewSpec(trained=(48, 48), channels=1, mean=[153.0], std=[39.5], crop=1.0, interpolation="bicubic", seed=0)
    image, label = source.view(3, protocol="object", size=(64, 80), spec=spec)
    assert image.shape == (1, 64, 80)
    assert label in (0, 1)
    with pytest.raises(InputError, match="--class-map x: goes with a folder of images, not with --data elpv"):
        open_source("elpv", class_map="x")
