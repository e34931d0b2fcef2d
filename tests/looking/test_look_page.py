"""The page of `visionpe look` in a browser: sliders, clicks, and nothing from elsewhere."""

import base64
import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from visionpe.cli.look import main

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SMALL = ["img_size=32", "patch_size=8", "embed_dim=24", "depth=3", "num_heads=2", "num_classes=0"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    out = tmp_path_factory.mktemp("look")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)).save(out / "a.png")
    args = [out / "a.png", "--model", "rope_vit_ti", "--model-kwargs", *SMALL, "--size", "32", "64x48", "--out", out]
    assert main([str(arg) for arg in args]) == 0
    return out / "look.html"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        running = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(params=[(1300, 800), (390, 844)], ids=["desktop", "phone"])
def page(request, browser, file):
    page, wrong = browser.new_page(viewport=dict(zip(("width", "height"), request.param))), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(file.as_uri())
    yield page
    assert not wrong
    page.close()


def slide(page, name, value):
    page.evaluate(f"at('{name}').value = {value}; at('{name}').dispatchEvent(new Event('input'))")


def click(page, panel, row, column):
    """Click the middle of a cell of 4 x 4."""
    box = page.locator(f"#{panel}").bounding_box()
    page.locator(f"#{panel}").click(
        position={"x": box["width"] * (column + 0.5) / 4, "y": box["height"] * (row + 0.5) / 4}
    )


def pixels(page, panel):
    return page.evaluate(
        f"(() => {{ const c = document.querySelector('#{panel} canvas');"
        " return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data) })()"
    )


def test_a_click_shows_another_patch(page):
    for panel in ("seen", "colours", "alike"):
        click(page, panel, 2, 1)
        assert "row 2, column 1 of 4 x 4" in page.inner_text("#note")
        first = pixels(page, "seen"), pixels(page, "alike")
        click(page, panel, 0, 3)
        assert "row 0, column 3 of 4 x 4" in page.inner_text("#note")
        second = pixels(page, "seen"), pixels(page, "alike")
        assert all(a != b for a, b in zip(first, second))
        likeness = np.reshape(second[1], (4, 4, 4))[..., 3]
        assert likeness.argmax() == 3  # a patch is the most like itself


def test_what_is_shown_is_what_was_kept(page, file):
    data = json.loads(re.search(r'id="data">(.*?)</script>', file.read_text(), re.S)[1])
    kept = data[0]["attention"]["1"]
    weights = np.frombuffer(base64.b64decode(kept["data"]), np.uint8).reshape(2, 17, 16)
    slide(page, "layer", 1)
    slide(page, "head", 2)
    click(page, "seen", 3, 2)
    assert "head 1" in page.inner_text("#seenText")
    row = weights[1, 1 + 3 * 4 + 2].astype(float)
    opaque = np.reshape(pixels(page, "seen"), (16, 4))[:, 3]
    np.testing.assert_allclose(opaque, 60 + 170 * row / row.max(), atol=1)
    page.check("#first")
    row = weights[1, 0].astype(float)
    opaque = np.reshape(pixels(page, "seen"), (16, 4))[:, 3]
    np.testing.assert_allclose(opaque, 60 + 170 * row / row.max(), atol=1)
    assert "class token" in page.inner_text("#seenText")


def test_layers_heads_and_views_change_the_pictures(page):
    seen = []
    for layer in range(3):
        slide(page, "layer", layer)
        assert page.inner_text("#layerName") == str(layer)
        seen.append((page.get_attribute("#colours img", "src"), pixels(page, "seen"), pixels(page, "alike")))
    assert all(one != other for one, other in pairwise(seen))
    page.select_option("#view", "1")
    assert "of 8 x 6" in page.inner_text("#note")
    box = page.locator("#seen").bounding_box()
    assert box["height"] / box["width"] == pytest.approx(64 / 48, rel=0.02)


def test_it_fits_the_screen(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
