"""Commands and code in the README and in docs/ are real: lines parse, configs and targets exist, Python runs."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch

import visionpe
from visionpe.cli import COMMANDS, main
from visionpe.detection.running.scripts import find_script
from visionpe.utils.configs import find_config

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md"))]
# Pages whose Python runs as it is, block after block.
RUN = ["docs/look.md", *(page for page in PAGES if page.startswith(("docs/tutorials/", "docs/how/")))]
DOORS = {file.stem: file for file in (ROOT / "tools").glob("*.py")}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def commands(page: str) -> list[list[str]]:
    """Every command line, in blocks, indented and between backticks."""
    text = (ROOT / page).read_text()
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"^    ((?:visionpe|python|make) .*)$", text, re.M)
    lines += re.findall(r"`((?:visionpe|python tools/|make) [^`]+)`", text)
    return [shlex.split(line, comments=True) for line in lines if line.strip() and "..." not in line]


class Parsed(Exception):
    """Raised in place of running a command, once its arguments are read."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *args: Any) -> None:
        found = parse(self, *args)
        configs = getattr(found, "config", None) or []
        for config in [configs] if isinstance(configs, str) else configs:
            find_config(config)
        raise Parsed

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str, parsed: None) -> None:
    for words in commands(page):
        if words[0] == "torchrun":
            words = words[next(i for i, word in enumerate(words) if word in ("-m", "visionpe") or "tools/" in word) :]
            words = words[1:] if words[0] == "-m" else ["python", *words]
        if "visionpe.detection" in words:
            assert find_script(words[words.index("visionpe.detection") + 1]).is_file()
        elif words[0] == "make":
            assert set(words[1:]) <= TARGETS, words
        elif words[0] == "visionpe":
            if words[1:] in (["--help"], ["--version"], ["COMMAND", "--help"]):
                continue
            assert words[1] in COMMANDS, words
            with pytest.raises(Parsed):
                main(words[1:])
        elif words[0] == "python":
            assert Path(words[1]).stem in DOORS, words
        else:
            assert words[:2] == ["pip", "install"], words


@pytest.mark.parametrize("name", DOORS)
def test_doors(name: str) -> None:
    """Every file in tools/ is a door, or small enough to be read at a glance."""
    text = DOORS[name].read_text()
    assert len(text.splitlines()) < 40
    for module, names in re.findall(r"^from (visionpe\S*) import (.+)$", text, re.M):
        assert all(
            hasattr(import_module(module), each.strip()) or import_module(f"{module}.{each}")
            for each in names.split(",")
        )


def test_python_in_the_readme() -> None:
    known = set(visionpe.list_encodings())
    space: dict[str, Any] = {}
    try:
        for block in blocks("README.md", "python"):
            if not block.startswith("_base_"):  # the same with the smallest size, as it is of no other kind
                exec(re.sub(r"_vit_s\b", "_vit_ti", block).replace("448", "240").replace("randn(8", "randn(1"), space)
        with torch.no_grad():
            assert space["model"].eval()(torch.randn(1, 3, 240, 240)).shape == (1, 1000)
    finally:
        for name in set(visionpe.list_encodings()) - known:
            visionpe.registry._ENCODINGS.pop(name)


@pytest.mark.parametrize("page", RUN)
def test_python_of_a_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = ModuleType("of_a_page")
    monkeypatch.setitem(sys.modules, space.__name__, space)  # where timm looks for what registers a model
    known = set(visionpe.list_encodings())
    try:
        for block in blocks(page, "python"):
            exec(block, space.__dict__)
        if "row_distance" in visionpe.list_encodings():
            has_its_own_properties(space.model)
    finally:
        for name in set(visionpe.list_encodings()) - known:
            visionpe.registry._ENCODINGS.pop(name)


def has_its_own_properties(model: torch.nn.Module) -> None:
    """Of the encoding that docs/how/add_an_encoding.md adds: it acts, turns with the image, and learns."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    slope, images = model.pos_encoding.parts[0].slope, torch.randn(1, 3, 48, 32)
    for value, same in ((0.0, True), (1.0, False)):  # without a slope, tokens move with rows that are turned around
        torch.nn.init.constant_(slope, value)
        tokens, moved = (model.forward_features(x)[:, 1:] for x in (images, images.roll(16, 2)))
        assert torch.allclose(tokens.roll(2, 1), moved, atol=1e-5) == same
    tokens.square().sum().backward()
    assert slope.grad.abs().min() > 0


def test_the_config_in_the_readme(tmp_path: Path) -> None:
    config = pytest.importorskip("mmengine.config").Config
    import visionpe.detection  # noqa: F401

    (block,) = (block for block in blocks("README.md", "python") if block.startswith("_base_"))
    (tmp_path / "mine.py").write_text(block)
    backbone = config.fromfile(str(tmp_path / "mine.py")).model.backbone
    assert (backbone.type, backbone.model_name, backbone.policy) == ("TimmFeatures", "rope_cswin_t", "interpolate")


def test_python_of_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"img_size": 24, "patch_size": 4, "in_chans": 1, "num_classes": 10}
    small |= {"embed_dim": 16, "depth": 1, "num_heads": 2}
    model = timm.create_model("rope_vit_ti", **small)
    space = {"small": small, "model": model, "images": torch.randn(4, 1, 48, 48)}
    for block in blocks("docs/scaling.md", "python"):
        exec(block, space)
    policies = {line["policy"] for line in space["lines"]}
    assert policies == {"default", "interpolate", "downscale"}
    assert (tmp_path / "policies.json").is_file()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#][^)#]*)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert "://" in target or ((ROOT / page).parent / target).exists(), f"{page}: {target}"
