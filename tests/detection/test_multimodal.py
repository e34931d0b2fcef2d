"""mmpretrain is imported beside every release of transformers."""

from __future__ import annotations

import sys

import pytest

from visionpe.detection.running import multimodal


@pytest.mark.parametrize(("found", "left_out"), [("5.24.0", True), ("6.0.0.dev0", True), ("4.57.1", False)])
def test_models_of_images_and_text_are_left_out(found: str, left_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multimodal, "version", lambda name: {"transformers": found}[name])
    monkeypatch.setitem(sys.modules, multimodal.NAME, None)
    monkeypatch.delitem(sys.modules, multimodal.NAME)
    assert multimodal.install() is left_out
    if left_out:
        from mmpretrain.utils import dependency

        module = sys.modules[multimodal.NAME]
        assert module is not dependency  # the test's own, put back afterwards
        assert module.WITH_MULTIMODAL is False
        assert module.satisfy_requirement("torch>=2")


def test_nothing_is_done_once_mmpretrain_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multimodal, "version", lambda name: "5.0.0")
    assert multimodal.NAME in sys.modules
    assert not multimodal.install()
