"""The documentation site builds without a warning, and its pages load nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What a browser fetches by itself; <a href> leads outwards only when clicked, and so may canonical and edit links.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc\s*=\s*[\"']?(?:https?:)?//[^\s\"'>]+"
)
LINKED = re.compile(
    r"<link\b(?=[^>]*\brel\s*=\s*[\"']?(?:stylesheet|preload|preconnect|icon|modulepreload))[^>]*//[^>]*>"
)
IN_STYLES = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])(?:https?:)?//[^\s\"')]+")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    for source, target in (("visionpe", "."), ("backbones", "backbones"), ("detection", "detection")):
        # Copies, as docstrings are looked for where links lead.
        package, ignored = folder / "package" / "visionpe" / target, shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / source, package, ignore=ignored, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):  # what wants the network fails
            patch.setenv(name, "http://127.0.0.1:9")
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder / "pages"), strict=True)
        config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder / "package")]
        config.plugins.run_event("startup", command="build", dirty=False)
        build(config)
    return folder / "pages"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text()
        for pattern in (FETCHED, LINKED, IN_STYLES):
            assert not pattern.findall(text), f"{page.name}: {pattern.findall(text)}"
    for sheet in site.rglob("*.css"):
        assert not IN_STYLES.findall(sheet.read_text()), sheet.name


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example/x.js">',
        '<link rel="stylesheet" href="//fonts.example/css">',
        "<style>@import 'https://a.example/b.css'</style>",
        "<style>a{src:url(https://a.example/b.woff2)}</style>",
    ],
)
def test_what_would_be_loaded_is_seen(tag: str) -> None:
    assert any(pattern.search(tag) for pattern in (FETCHED, LINKED, IN_STYLES))


def test_docstrings_are_there(site: Path) -> None:
    text = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    for name in ("PositionEncoding", "Grid", "adapt", "set_policy", "choose_policy"):
        assert re.search(rf'id="visionpe[\w.]*\.{name}"', text), name
