"""Accuracy that counts every class alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scaling_runs import PHOTO
from sklearn.metrics import balanced_accuracy_score

from visionpe.cli import scaling as resolution_scaling
from visionpe.scaling.markdown import document
from visionpe.scaling.metric import class_weights, interval, name_of, outcomes, paper_of, score
from visionpe.scaling.regret import regrets
from visionpe.scaling.report import bands
from visionpe.scaling.statistics import bootstrap, pack, pack_classes
from visionpe.scaling.summary import summarise

LABELS = np.array([0] * 12 + [1] * 3 + [4])  # uneven, with classes of which none is shown


def row(policy: str, predicted: np.ndarray, seed: int = 0) -> dict:
    correct = predicted == LABELS
    packed = {"correct": pack(correct), "predicted": pack_classes(predicted), "labels": pack_classes(LABELS)}
    each = outcomes(packed, "balanced")
    low, high = bootstrap([each])
    shares = {f"top{k}{end}": 100 * correct.mean() for k in (1, 5) for end in ("", "_low", "_high")}
    place = {"label": "m", "seed": seed, "protocol": "object", "height": 48, "width": 48, "factor": 2.0}
    cost = {"n": len(LABELS), "flops": 1, "corrupt": [], "images_per_s": 1.0, "status": "ok", "reason": ""}
    balanced = {"balanced": 100 * each.mean(), "balanced_low": low, "balanced_high": high}
    return {**place, **cost, **shares, **balanced, **packed, "policy": policy, "paper": 50.0}


def test_as_scikit_learn_has_it() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        labels = generator.integers(0, 5, 40)
        predicted = generator.integers(0, 5, 40)
        packed = {"correct": pack(predicted == labels), "labels": pack_classes(labels)}
        assert outcomes(packed, "balanced").mean() == pytest.approx(balanced_accuracy_score(labels, predicted))
        assert outcomes(packed, "top1").mean() == pytest.approx((predicted == labels).mean())
        assert class_weights(labels).mean() == pytest.approx(1)


def test_lines_are_read_by_it() -> None:
    common, rare = np.zeros(len(LABELS), dtype=int), LABELS.copy()
    rare[:6] = 1
    rows = [row("default", common), row("interpolate", rare), row("downscale", common)]
    by_top1, by_class = summarise(rows), summarise(rows, "balanced")
    assert [round(line["versus_downscale"], 1) for line in by_top1 if "versus_downscale" in line] == [0.0, -12.5]
    assert [round(line["versus_downscale"], 1) for line in by_class if "versus_downscale" in line] == [0.0, 50.0]
    assert [round(score(line), 1) for line in by_top1] == [75.0, 62.5, 75.0]
    assert [round(score(line), 1) for line in by_class] == [33.3, 83.3, 33.3]
    assert interval(by_class[1])[0] < 83.3 < interval(by_class[1])[1]
    assert (paper_of(by_top1[0]), paper_of(by_class[0])) == (50.0, None)
    assert name_of(by_class) == "balanced"
    assert bands(by_class) == "95% intervals by bootstrap over 16 images, one training seed"
    assert bands(by_top1) == "95% Wilson intervals over 16 images, one training seed"
    assert "| `m` | interpolate | **83.3** |" in document(by_class, "t")
    auto = {**rows[0], "policy": "auto"}
    assert regrets([*rows, auto], metric="balanced")[0]["regret"] == pytest.approx(50)
    assert regrets([*rows, auto])[0]["regret"] == 0


def test_bands_of_several_seeds_are_about_it() -> None:
    rows = [row("default", np.where(np.arange(len(LABELS)) < 12, 0, seed), seed) for seed in (0, 1)]
    (line,) = summarise(rows, "balanced")
    assert line["balanced"] == pytest.approx((100 / 3 + 200 / 3) / 2)
    assert (line["balanced_low"], line["balanced_high"]) == bootstrap([outcomes(x, "balanced") for x in rows])
    assert bands(summarise(rows[:1])) == "95% Wilson intervals over 16 images, one training seed"
    assert bands(summarise(rows[:1], "balanced")) == "95% intervals by bootstrap over 16 images, one training seed"


def test_asked_for_on_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, number in (("cat", 5), ("dog", 2)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(number):
            Image.new("RGB", (32, 32), (40 * i, 0, 0)).save(tmp_path / "data" / name / f"{i}.png")
    command = [*PHOTO.split(), "--data", str(tmp_path / "data"), "--resolutions", "1x", "--protocol", "object"]
    for metric in ("top1", "balanced"):
        out = tmp_path / metric
        assert resolution_scaling.main([*command, "--metric", metric, "--out", str(out)]) == 0
        lines = json.loads((out / "results.json").read_text())["summary"]
        assert {line["metric"] for line in lines} == {metric}
        assert "balanced" in (out / "results.csv").read_text().splitlines()[0]
    assert resolution_scaling.main([*command, "--metric", "f1", "--out", str(tmp_path / "f1")]) == 2
    assert "choose from 'top1', 'balanced'" in capsys.readouterr().err
