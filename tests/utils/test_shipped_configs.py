"""Shipped configs are found by name, and a file here goes ahead of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionpe.utils.configs import config_root, find_config, list_configs
from visionpe.utils.errors import InputError


def test_every_shipped_config_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = list_configs()
    assert len(names) > 100
    assert {name.split("/")[0] for name in names} == {
        "ade20k",
        "bccd",
        "caltech101",
        "camvid",
        "coco",
        "digits",
        "elpv",
        "imagenet",
        "mnist",
        "rooms",
    } | {*("s3dis", "scannet")}
    for name in names:
        for given in (name, f"configs/{name}", f"visionpe::{name}"):
            assert find_config(given) == config_root() / name
    assert list_configs("coco/retinanet_*") == [name for name in names if name.startswith("coco/retinanet_")]


def test_a_file_here_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "digits" / "ape_vit.py"
    own.parent.mkdir()
    own.write_text("a = 1\n")
    assert find_config("digits/ape_vit.py").resolve() == own
    assert find_config("digits/rope_mixed_vit.py") == config_root() / "digits/rope_mixed_vit.py"
    with pytest.raises(InputError, match=r"config 'digits/ape_vitt.py' does not exist; did you mean digits/ape_vit.py"):
        find_config("digits/ape_vitt.py")
    with pytest.raises(InputError, match=r"did you mean coco/mask_rcnn_cswin_t_1x\.py"):
        find_config("coco/mask_rcnn_cswin_1x.py")
    with pytest.raises(InputError, match="does not exist"):
        find_config(tmp_path / "coco/mask_rcnn_cswin_t_1x.py")  # an absolute path means itself
