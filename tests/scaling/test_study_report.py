"""What the study of the policies reports: how good the choices were, curves and tables."""

from __future__ import annotations

from pathlib import Path

from visionpe.scaling.change_plot import change, draw_change, published_change
from visionpe.scaling.markdown import document
from visionpe.scaling.policy_plot import draw_panels
from visionpe.scaling.regret import describe_choices, regrets


def row(policy: str, top1: float, **more: object) -> dict:
    place = {"label": "a", "seed": 0, "protocol": "object", "height": 48, "width": 48, "factor": 2.0, "native": False}
    return {**place, "status": "ok", "policy": policy, "top1": top1, **more}


def test_regret_by_hand() -> None:
    rows = [row("default", 40.0), row("yarn", 70.0), row("ntk", 60.0), row("downscale", 90.0)]
    rows += [row("auto", 65.0, chosen="ntk+temperature", warns=True, chosen_sure=0.9)]
    other = {"seed": 1, "protocol": "canvas"}
    rows += [row("default", 50.0, **other), row("auto", 55.0, chosen="p", warns=False, **other)]
    rows += [row("auto", 99.0, native=True, seed=2), row("default", 99.0, native=True, seed=2)]
    rows += [row("auto", 10.0, seed=3) | {"status": "failed"}]
    first, second = regrets(rows)
    assert (first["best"], first["regret"], first["default_regret"], first["over_downscale"]) == (
        *("downscale", 25, 50),
        -25,
    )
    assert (second["best"], second["regret"], second["default_regret"], second["over_downscale"]) == (
        *("default", -5, 0),
        None,
    )
    sentences = describe_choices([first, {**first, "warns": False}, second])
    assert sentences[0] == (
        "auto, object protocol: 25.0 points below the best policy in the mean of 2 rows (worst 25.0), the default "
        "policy 50.0 (worst 50.0); below downscale in 2, of which it warned in 1, and 0 warnings more."
    )
    assert sentences[1].startswith("auto, canvas protocol: -5.0 points below")
    assert regrets(rows[:4]) == []


def test_panels(tmp_path: Path) -> None:
    lines = [
        {
            **row(policy, top1, top1_low=top1 - 3, top1_high=top1 + 3, seeds=3, n=24),
            "label": label,
            "factor": factor,
        }
        for label in "abcde"
        for policy, top1 in (("default", 50.0), ("auto", 70.0), ("yarn", 60.0), ("downscale", 65.0))
        for factor in (0.5, 1.0, 3.0)
    ]
    lines[5]["status"] = "failed"
    draw_panels(tmp_path / "p.png", lines, "object")
    from PIL import Image

    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size[0] > 1000
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_change_against_the_trained_size(tmp_path: Path) -> None:
    bounds = {"top1_low": 40.0, "top1_high": 60.0, "seeds": 3, "n": 24}
    scores = {("ape_vit_ti", 0.5): 30.0, ("ape_vit_ti", 1.0): 50.0, ("ape_vit_ti", 2.0): 56.0, ("b", 2.0): 9.0}
    lines = [
        {**row(policy, score, **bounds), "label": label, "factor": factor}
        for policy in ("default", "auto", "downscale")
        for (label, factor), score in scores.items()
    ]
    assert change(lines, "ape_vit_ti", "default") == [(0.5, -20.0), (1.0, 0.0), (2.0, 6.0)]
    assert change(lines, "b", "default") == []  # nothing at the trained size
    assert dict(published_change("rope_vit_s"))[1.0] == 0
    draw_change(tmp_path / "c.png", lines, "object")
    from PIL import Image

    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > 1500


def test_markdown() -> None:
    bounds = {"seeds": 1, "n": 240}
    lines = [row("default", 40.0, loses=True, **bounds), row("yarn", 70.0, **bounds), row("auto", 75.0, **bounds)]
    lines += [row("downscale", 90.0, **bounds), row("ntk", 0.0, **bounds) | {"status": "failed"}]
    text = document(lines, "Digits")
    assert "| `a` | downscale | 90.0 |" in text
    assert "| `a` | default | 40.0 ▼ |" in text
    assert "| `a` | yarn | **70.0** |" in text  # the best policy; auto is none, nor is a control
    assert "| `a` | auto | 75.0 |" in text
    assert "| `a` | ntk | failed |" in text
    assert text.index("downscale") < text.index("default") < text.index("auto")


def test_a_bar_in_a_name_stays_in_its_cell() -> None:
    bounds = {"seeds": 1, "n": 240, "label": "a|b"}
    text = document([row("default", 40.0, loses=False, **bounds)], "Digits")
    assert "| `a\\|b` | default |" in text
