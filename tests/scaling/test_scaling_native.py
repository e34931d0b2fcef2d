"""Images in their own aspect ratio, of several sizes in one batch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_vit
from PIL import Image

from visionpe.cli.scaling import main
from visionpe.scaling.folder import FolderSource
from visionpe.scaling.images import batches
from visionpe.scaling.protocols import ViewSpec
from visionpe.scaling.row import measure
from visionpe.scaling.statistics import unpack_classes
from visionpe.utils.resizing import native_size

SIZES = [(60, 40), (30, 90), (48, 48), (100, 20), (33, 47), (48, 48)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for index, (height, width) in enumerate(SIZES):
        path = tmp_path / "images" / f"class{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (height, width, 3), np.uint8)).save(path)
    return tmp_path / "images"


def spec() -> ViewSpec:
    return ViewSpec(trained=(32, 32), mean=[127.5] * 3, std=[127.5] * 3, patch=(8, 8))


@pytest.mark.parametrize("image", [(60, 40), (30, 90), (100, 20), (7, 900)])
def test_size_within_the_tokens(image: tuple[int, int]) -> None:
    height, width = native_size(image, (64, 48), (16, 16))
    assert not height % 16
    assert not width % 16
    assert height * width <= 64 * 48
    # Of the sizes that fit, about the aspect ratio; rounding moves a side by less than a patch.
    ratio = min(height / image[0], width / image[1])
    assert height - ratio * image[0] < 16
    assert width - ratio * image[1] < 16


def test_views(folder: Path) -> None:
    source = FolderSource(folder)
    for index in range(len(source)):
        image, _ = source.view(index, protocol="native", size=(32, 32), spec=spec())
        own = Image.open(source.path(index))
        assert tuple(image.shape[1:]) == native_size((own.height, own.width), (32, 32), (8, 8))
        assert image.min() >= -1
        assert image.max() <= 1
    square = source.view(5, protocol="native", size=(48, 48), spec=spec())[0]  # is of that size
    pixels = torch.from_numpy(np.array(Image.open(source.path(5)))).permute(2, 0, 1)
    torch.testing.assert_close(square, pixels.float() / 127.5 - 1)


def test_rows(folder: Path, tmp_path: Path) -> None:
    words = ["--model", "none_vit_ti", "--data", str(folder), "--resolutions", "32", "64", "--batch-size", "4"]
    kwargs = ["img_size=32", "patch_size=8", "embed_dim=32", "depth=2", "num_heads=2", "num_classes=3"]
    words += ["--policy", "default", "temperature", "--native", "--device", "cpu", "--out", str(tmp_path / "out")]
    kwargs = ["pos_encoding=rope_mixed", *kwargs]
    assert main([*words, "--model-kwargs", *kwargs]) == 0
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    found = {(row["policy"], row["height"]): row for row in rows}
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["protocol"] for row in rows} == {"native"}
    assert set(found) == {(name, size) for name in ("default", "downscale", "temperature") for size in (32, 64)}


def test_accuracy_is_that_of_single_images(folder: Path) -> None:
    model, source = tiny_vit("rope_mixed", num_classes=64), FolderSource(folder)
    how = {"protocol": "native", "size": (64, 64), "spec": ViewSpec(**{**vars(spec()), "patch": (4, 4)})}
    row = measure(model, batches(source, indices=range(len(source)), batch_size=4, **how), device=torch.device("cpu"))
    with torch.no_grad():
        alone = [int(model(source.view(index, **how)[0][None]).argmax()) for index in range(len(source))]
    assert len(set(alone)) > 1, "all images look the same to this model: nothing is tested"
    assert unpack_classes(row["predicted"]).tolist() == alone


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "resnet18", "--model-kwargs", "num_classes=3"], "--native: resnet18.* takes images of one size"),
        (["--model", "swin_t", "--model-kwargs", "num_classes=3"], "--native: swin_t.* takes images of one size"),
        (
            ["--model", "ape_vit_s", "--model-kwargs", "num_classes=3", "--policy", "auto"],
            "--policy auto: is chosen for",
        ),
    ],
)
def test_refusals(folder: Path, words: list[str], message: str, capsys: Any) -> None:
    assert main([*words, "--native", "--data", str(folder), "--device", "cpu"]) == 2
    assert re.search(message, capsys.readouterr().err)
