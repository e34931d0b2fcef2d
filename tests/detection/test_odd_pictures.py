"""Odd pictures are the same in every tool, and files that are none are one clear error in each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmcv.transforms  # noqa: F401  what loads a picture is registered there
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS, DefaultScope
from odd_pictures import COLOURS, RAMP, SIDE, odd_pictures, write_bad
from PIL import Image

from visionpe.detection.data.pictures import install_label_maps
from visionpe.detection.predicting.predictor import read_image
from visionpe.scaling.folder import FolderSource
from visionpe.scaling.images import batches
from visionpe.scaling.protocols import ViewSpec
from visionpe.utils.errors import InputError, plain_worker_errors
from visionpe.utils.pictures import PictureError, decode_picture, open_picture

PICTURES = odd_pictures()
SPEC = ViewSpec(trained=(SIDE, SIDE), channels=3, mean=[0, 0, 0], std=[1, 1, 1], crop=1.0, interpolation="bicubic")
VIEW = {"protocol": "object", "size": (SIDE, SIDE), "spec": SPEC}


def in_folder(path: Path) -> np.ndarray:
    return FolderSource(path.parent.parent).view(0, **VIEW)[0].permute(1, 2, 0).round().numpy().astype(np.uint8)


def in_pipeline(scope: str, path: Path, **options: Any) -> np.ndarray:
    with DefaultScope.overwrite_default_scope(scope):
        step = TRANSFORMS.build({"type": "LoadImageFromFile", **options})
    found = step({"img_path": str(path)})
    assert found["img_shape"] == found["ori_shape"] == found["img"].shape[:2]
    return found["img"]


TOOLS = {
    "scaling": in_folder,
    "predict": lambda path: read_image(path)[..., ::-1],
    **{scope: lambda path, s=scope: in_pipeline(s, path)[..., ::-1] for scope in ("mmpretrain", "mmdet", "mmseg")},
    "pillow": lambda path: in_pipeline("mmpretrain", path, imdecode_backend="pillow")[..., ::-1],
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_same_in_every_tool(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    content, shown, error = PICTURES[name]
    path = tmp_path / "data" / "class" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    picture = np.asarray(open_picture(path))
    assert np.abs(picture.astype(int) - shown).max() <= error
    for tool, read in TOOLS.items():
        assert np.array_equal(read(path), picture), tool
    grey = np.asarray(decode_picture(content, name, "L"))
    assert np.array_equal(grey, np.asarray(Image.fromarray(picture).convert("L")))
    assert np.array_equal(in_pipeline("mmdet", path, color_type="grayscale"), grey)
    assert not [str(warning.message) for warning in recwarn if "alette" in str(warning.message)]


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png"])
def test_the_orientation_can_be_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PICTURES[name][0])
    for color_type, axes in (("color_ignore_orientation", 3), ("grayscale_ignore_orientation", 2)):
        stored = in_pipeline("mmdet", tmp_path / name, color_type=color_type)
        upright = in_pipeline("mmdet", tmp_path / name, color_type=color_type.split("_")[0])
        assert stored.ndim == axes
        assert np.abs(np.rot90(stored, -1).astype(int) - upright).max() <= 5


@pytest.mark.parametrize("name", ["float.tif", "int32.tif", "empty.png", "cut.jpg", "text.png", "link.png"])
def test_one_clear_error_in_every_tool(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "class"
    folder.mkdir(parents=True)
    path, word = write_bad(folder)[name]
    for other in folder.iterdir():
        if other.name != name:
            other.unlink()
    for tool, read in TOOLS.items():
        with pytest.raises(PictureError) as refused:
            read(path)
        assert str(refused.value).startswith(f"image '{path}' "), tool
        assert word in str(refused.value), tool
        assert "\n" not in str(refused.value)
    shown = {**VIEW, "indices": [0], "batch_size": 1}
    with pytest.raises(InputError) as refused:
        list(batches(FolderSource(tmp_path / "data"), **shown))
    assert f"cannot read {path} (" in str(refused.value)
    assert str(refused.value).count(str(path)) == 1
    assert next(iter(batches(FolderSource(tmp_path / "data"), **shown, skip_corrupt=True)))[2] == [str(path)]


def test_missing_and_forbidden_files(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="does not exist"):
        in_pipeline("mmdet", tmp_path / "none.png")
    with pytest.raises(PictureError, match="cannot be read"):
        open_picture(tmp_path)
    assert in_pipeline_or_none(tmp_path / "none.png") is None


def in_pipeline_or_none(path: Path) -> Any:
    return TRANSFORMS.build({"type": "mmdet.LoadImageFromFile", "ignore_empty": True})({"img_path": str(path)})


def test_annotations_of_the_unturned_picture_are_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    step = TRANSFORMS.build({"type": "mmdet.LoadImageFromFile"})
    record = {"img_path": str(tmp_path / "a.jpg")}
    assert step({**record, "height": 20, "width": 10})["img_shape"] == (20, 10)
    with pytest.raises(PictureError, match=r"a.jpg' is 20 x 10 .* annotation is of 10 x 20.*color_ignore_orientation"):
        step({**record, "height": 10, "width": 20})
    left = TRANSFORMS.build({"type": "mmdet.LoadImageFromFile", "color_type": "color_ignore_orientation"})
    assert left({**record, "height": 10, "width": 20})["img_shape"] == (10, 20)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"text", "cannot be read as a label map"),
        (Image.fromarray(RAMP[:, :8]), r"shape \(16, 8\); allowed: \(16, 16\)"),
        (Image.fromarray(COLOURS), r"shape \(16, 16, 3\); allowed"),
        (Image.fromarray(RAMP.astype(np.uint16) * 256), "labels above 255"),
    ],
)
def test_label_maps_that_are_none(content: Any, word: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if isinstance(content, Image.Image):
        content.save(path)
    elif content is not None:
        path.write_bytes(content)
    for scope, options in (("mmseg", {"reduce_zero_label": False}), ("mmdet", {"with_seg": True, "with_bbox": False})):
        if scope == "mmdet" and "above" in word:  # which keeps labels of 16 bits
            continue
        install_label_maps(scope)
        with DefaultScope.overwrite_default_scope(scope):
            options = {**options, "with_label": False} if scope == "mmdet" else options
            step = TRANSFORMS.build({"type": "LoadAnnotations", **options})
        record = {"seg_map_path": str(path), "img_path": "p.png", "ori_shape": (SIDE, SIDE), "reduce_zero_label": False}
        with pytest.raises(PictureError, match=word) as refused:
            step({**record, "seg_fields": []})
        assert str(path) in str(refused.value)
        Image.fromarray(RAMP).save(path.with_name("good.png"))
        good = step({**record, "seg_map_path": str(path.with_name("good.png")), "seg_fields": []})
        assert np.array_equal(good["gt_seg_map"], RAMP)


def test_an_error_of_a_worker_is_one_line(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader

    with pytest.raises(InputError) as refused, plain_worker_errors():
        list(DataLoader(_Broken(), num_workers=1))
    assert str(refused.value) == "image 'a.png' is empty"


class _Broken:
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return decode_picture(b"", "a.png")
