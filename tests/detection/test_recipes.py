"""Configs beside the published numbers of their recipes, and docs/recipes.md beside both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cloud_recipe_readers  # noqa: F401  more readers
import pytest
from mmengine.config import Config
from recipe_readers import READERS

import visionpe.detection  # noqa: F401

tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
RECIPES: dict[str, Any] = {}
for _file in sorted((ROOT / "tests/detection/published").glob("*.toml")):
    RECIPES |= tomllib.loads(_file.read_text())
# What is made here, of digits, solar cells and rooms.
OWN = ("_base_", "bccd", "caltech101", "camvid", "digits", "elpv", "mnist", "rooms")
# Compared on built models instead: test_published_groups.py, and the last test here.
BUILT = ("decays", "global blocks")


def files(recipe: dict[str, Any]) -> list[Path]:
    found = [path for pattern in recipe["configs"] for path in sorted(CONFIGS.glob(pattern))]
    assert found, recipe["configs"]
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_configs_are_as_published(name: str) -> None:
    """Or as the table says, with a reason."""
    for path in files(RECIPES[name]):
        config = Config.fromfile(path)
        for field, published, where, *ours in RECIPES[name]["rows"]:
            assert where
            assert len(ours) in (0, 2), f"{field}: ours and why"
            if field not in BUILT:
                expected = ours[0] if ours else published
                found = READERS[field](config)
                near = expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-6)
                assert found == near, f"{path.relative_to(CONFIGS)}: {field}"


def test_every_published_recipe_is_in_the_table() -> None:
    configs = {path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts[-2]}
    published = {path for path in configs if path.parts[0] not in OWN}
    told = {path.relative_to(CONFIGS) for recipe in RECIPES.values() for path in files(recipe)}
    # Of these nothing is published.
    others = {path for path in published - told if path.stem not in ("swin3d_s_rope_mixed", "ptv3_b_rope_axial")}
    assert not others
    assert told <= configs


def test_encodings_are_compared_from_equal_weights() -> None:
    """A learned table and rotary models start from RoPE-ViT's weights, of one recipe; RoPE-Swin from its own."""
    tags = {}
    for path in [*CONFIGS.glob("coco/*.py"), *CONFIGS.glob("ade20k/*.py")]:
        if any(f"_{name}_" in path.name for name in ("ape_vit_b", "rope_vit_b", "rope_swin_t")):
            backbone = Config.fromfile(path).model.backbone
            assert backbone.pretrained
            assert not backbone.get("init_cfg")
            tags[path.stem] = backbone.model_name.partition(".")[2]
    assert len(tags) == 6 + 5
    assert set(tags.values()) == {"naver_in1k"}


@pytest.mark.parametrize("name", [name for name, each in RECIPES.items() if "global blocks" in str(each["rows"])])
def test_global_blocks(name: str) -> None:
    import timm
    import torch

    (published,) = (row[1] for row in RECIPES[name]["rows"] if row[0] == "global blocks")
    for path in files(RECIPES[name]):
        backbone = Config.fromfile(path).model.backbone
        with torch.device("meta"):
            options = {key: backbone[key] for key in ("window_size", "global_blocks") if key in backbone}
            model = timm.create_model(backbone.model_name.partition(".")[0], img_size=1024, **options)
        assert (list(model.global_blocks), model.window_size) == (published, (14, 14))


def test_the_page_is_up_to_date() -> None:
    """Else: python tools/recipes_table.py."""
    made = subprocess.check_output([sys.executable, str(ROOT / "tools/recipes_table.py"), "--print"], text=True)
    assert (ROOT / "docs/recipes.md").read_text() == made
