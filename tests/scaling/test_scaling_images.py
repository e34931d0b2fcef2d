"""What a model of the study is shown: sizes, places on a canvas, batches and subsets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from visionpe.data.digits import load_digits
from visionpe.scaling.images import batches
from visionpe.scaling.open_images import open_source
from visionpe.scaling.protocols import ViewSpec, place
from visionpe.scaling.sizes import factor_of, parse_resolution, resolve, resolve_all
from visionpe.utils.errors import InputError
from visionpe.utils.resizing import resize_images


@pytest.mark.parametrize(
    ("text", "size", "factor"),
    [
        ("224", (224, 224), None),
        ("512x384", (512, 384), None),
        ("1x", None, 1.0),
        ("0.5x", None, 0.5),
        (".5x", None, 0.5),
        ("2.x", None, 2.0),
    ],
)
def test_parse_resolution(text, size, factor):
    parsed = parse_resolution(text)
    assert (parsed.size, parsed.factor) == (size, factor)


@pytest.mark.parametrize("text", ["", "0", "0x", "-224", "22.5", "x", "1x2x3", "224 x 224", "0x5", "5x0", "1e3"])
def test_parse_resolution_refuses(text):
    with pytest.raises(InputError, match="not a resolution"):
        parse_resolution(text)


def test_resolve():
    patch = (4, 4)
    assert resolve(parse_resolution("1.5x"), (24, 24), patch, "m") == (36, 36)
    assert resolve(parse_resolution("1.1x"), (24, 24), patch, "m") == (28, 28)  # 26.4: the nearest multiple
    assert resolve(parse_resolution("0.01x"), (24, 24), patch, "m") == (4, 4)
    assert resolve(parse_resolution("2x"), (24, 48), patch, "m") == (48, 96)
    assert resolve(parse_resolution("33"), (24, 24), None, "m") == (33, 33)
    with pytest.raises(InputError, match=r"8x10 is no multiple of the 4x4 patch of m") as error:
        resolve(parse_resolution("8x10"), (24, 24), patch, "m")
    assert "8x8 or 8x12" in str(error.value)
    asked = [parse_resolution(text) for text in ("48", "2x", "24", "12x48")]
    assert resolve_all(asked, (24, 24), patch, "m") == [(12, 48), (24, 24), (48, 48)]
    assert factor_of((48, 12), (24, 24)) == 1


def test_object_protocol_is_the_identity_at_the_native_size():
    images, labels = load_digits("test")
    source = open_source("digits")
    spec = ViewSpec(trained=(24, 24), channels=1, mean=[0], std=[1])
    for protocol in ("object", "canvas"):
        image, label = source.view(7, protocol=protocol, size=(24, 24), spec=spec)
        assert torch.equal(image, images[7].float())
        assert label == labels[7]
    assert resize_images(images[:2].float(), (24, 24)).equal(images[:2].float())
    image, _ = source.view(7, protocol="object", size=(48, 24), spec=spec)
    assert image.shape == (1, 48, 24)
    assert 0 <= image.min() <= image.max() <= 255


def test_channels_and_statistics():
    spec = ViewSpec(trained=(24, 24), channels=3, mean=[10, 20, 30], std=[1, 2, 4])
    image = spec.normalise(torch.full((1, 2, 2), 50.0))
    assert image[:, 0, 0].tolist() == [40, 15, 5]


def test_canvas_keeps_every_pixel():
    image = torch.rand(1, 24, 24) + 1
    corners = set()
    for index in range(20):
        canvas = place(image, (48, 36), seed=0, index=index)
        rows, columns = (canvas[0] > 0).nonzero().unbind(1)
        top, left = int(rows.min()), int(columns.min())
        assert canvas.shape == (1, 48, 36)
        assert canvas[:, top : top + 24, left : left + 24].equal(image)
        assert canvas.count_nonzero() == 24 * 24
        corners.add((top, left))
    assert len(corners) > 10
    assert place(image, (48, 36), seed=0, index=3).equal(place(image, (48, 36), seed=0, index=3))
    assert not place(image, (96, 96), seed=1, index=3).equal(place(image, (96, 96), seed=0, index=3))


def test_canvas_below_the_image_is_its_centre():
    image = torch.arange(24.0 * 24).view(1, 24, 24)
    assert place(image, (12, 12), seed=0, index=5).equal(image[:, 6:18, 6:18])
    mixed = place(image + 1, (12, 40), seed=0, index=5)
    assert mixed.count_nonzero() == 12 * 24


def test_batches_keep_order_with_and_without_workers():
    source = open_source("digits")
    spec = ViewSpec(trained=(24, 24), channels=1, mean=[79.3], std=[91.0], seed=2)
    how = {"protocol": "canvas", "size": (36, 48), "spec": spec, "indices": range(25), "batch_size": 10}
    here, there = (list(batches(source, workers=workers, **how)) for workers in (0, 2))
    assert [len(labels) for _, labels, _ in here] == [10, 10, 5]
    for (a, la, _), (b, lb, _) in zip(here, there):
        assert a.equal(b)
        assert la.equal(lb)
    assert torch.cat([labels for _, labels, _ in here]).equal(load_digits("test")[1][:25])


def test_subset_is_seeded():
    source = open_source("digits")
    assert source.subset(None, 0) == list(range(500))
    assert source.subset(50, 0) == source.subset(50, 0) == sorted(source.subset(50, 0))
    assert source.subset(50, 0) != source.subset(50, 1)


def test_numbered_folders_have_the_labels_that_timm_gives_them(tmp_path):
    from timm.data import create_dataset

    for name in [*map(str, range(12)), "b", "a10", "a9", "B2"]:
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "x.png")
    source = open_source(str(tmp_path))
    theirs = {Path(path).parent.name: label for path, label in create_dataset("", root=str(tmp_path)).reader.samples}
    ours = {Path(path).parent.name: label for path, label in source.images.samples}
    assert ours == theirs
    assert ours["10"] == 10
