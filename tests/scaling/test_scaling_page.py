"""The page of curves, and the figures of papers beside what is measured."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from visionpe.scaling import page
from visionpe.scaling.images import subset
from visionpe.scaling.plan import Task, choose_policies
from visionpe.scaling.published import published, published_notes
from visionpe.scaling.statistics import pack, pack_classes, unpack_classes
from visionpe.scaling.summary import against_native, summarise


def row(policy="default", factor=2.0, *, predicted=(0, 1, 2, 3), label="m", seed=0, protocol="object", **changes):
    correct = np.asarray(predicted) == np.arange(len(predicted))
    names = ("top1", "top5", "balanced")
    shares = {f"{name}{end}": 100 * correct.mean() for name in names for end in ("", "_low", "_high")}
    side = int(24 * factor)
    where = {"policy": policy, "protocol": protocol, "factor": factor, "height": side, "width": side}
    content = {
        "label": label,
        "model": label,
        "seed": seed,
        **where,
        "native": factor == 1,
        "status": "ok",
        "reason": "",
    }
    costs = {"images_per_s": 1.0, "peak_bytes": None, "flops": 1, "tokens": 9, "corrupt": []}
    packed = {"n": 4, "correct": pack(correct), "predicted": pack_classes(np.asarray(predicted)), "drawn": [4, None, 0]}
    packed["labels"] = pack_classes(np.arange(len(predicted)))
    return {**content, **shares, **costs, **packed, "entropy": factor, "distance": 3 * factor, **changes}


def test_classes_are_packed():
    for classes in ([], [0], [999, 0, 65535], list(range(1000))):
        assert unpack_classes(pack_classes(np.array(classes))).tolist() == classes
    assert len(pack_classes(np.zeros(50_000))) < 1000


def test_against_native():
    failed = row("bad", 3.0, seed=1, status="failed", reason="x")
    rows = against_native(
        [
            row(factor=1.0, predicted=(0, 1, 9, 9)),
            row("policy", 2.0, predicted=(0, 1, 9, 3)),
            row("policy", 1.0, seed=1, predicted=(5, 5, 5, 5)),  # no row as built
            failed,
        ]
    )
    assert [r["agreement"] for r in rows] == [100, 75, None, None]
    assert (rows[1]["entropy_change"], rows[1]["distance_change"]) == (1, 3)
    canvas = {"protocol": "canvas", "predicted": (7, 7, 7, 7)}
    first = [
        row(factor=1.0),
        row("downscale", 1.0, **canvas),
        row(factor=1.0, **canvas),
        row(factor=2.0, predicted=(7, 7, 7, 7)),
    ]
    for order in (first, first[::-1]):  # the object protocol as built, wherever it stands
        (same,) = (r for r in against_native(order) if r["native"] and r["protocol"] == "object")
        assert same["agreement"] == 100
        assert [r["agreement"] for r in against_native(order)].count(0) == 3
    (controlled,) = against_native([row("downscale", 1.0)])  # the same image, as built
    assert controlled["agreement"] == 100
    few = row("policy", 2.0, predicted=(9, 3), drawn=[4, 2, 0])  # of the images of both
    expected = [predicted == [0, 1, 2, 3][i] for predicted, i in zip((9, 3), subset(4, 2, 0))]
    assert against_native([row(factor=1.0), few])[1]["agreement"] == 100 * sum(expected) / 2
    assert against_native([row(factor=1.0), few | {"drawn": [4, 3, 0]}])[1]["agreement"] is None  # one unreadable
    lines = summarise(rows[:2])
    assert [line["agreement"] for line in lines] == [100, 75]
    assert lines[1]["distance_change"] == 3


def figures_in(path):
    text = path.read_text(encoding="utf-8")
    content = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.S)[1]
    return text, json.loads(content)


def test_page(tmp_path):
    nasty = "m</script><b>"
    rows = [row(p, f, label=nasty) for p in ("default", "downscale", "yarn") for f in (1.0, 2.0)]
    rows.append(row("yarn", 3.0, label=nasty, status="out of memory", reason="<too large>"))
    rows += [row("default", 2.0, protocol="canvas", label=nasty)]
    lines = summarise(against_native(rows))
    lines[0]["paper"] = 81.5
    details = {"Settings": {"seed": "<7>"}}
    page.write_page(
        tmp_path / "p.html", "a @DETAILS@ title", page.panels(lines), table=page.table(lines), details=details
    )
    text, drawn = figures_in(tmp_path / "p.html")
    assert len(drawn) == 2
    for figure in drawn:
        for trace in figure["data"]:
            assert {"model", "policy", "control"} <= trace["meta"].keys()
    groups = {}
    for trace in drawn[0]["data"]:
        groups.setdefault(trace["legendgroup"], []).append(trace)
    by_policy = {group[0]["meta"]["policy"]: group for group in groups.values()}
    assert [len(by_policy[p]) for p in ("default", "yarn", "downscale")] == [3, 2, 1]  # band, curve, cross
    assert all(sum(trace.get("showlegend", True) for trace in group) == 1 for group in groups.values())
    assert by_policy["default"][2]["y"] == [81.5]
    assert by_policy["downscale"][0]["meta"]["control"]
    hover = by_policy["yarn"][1]["text"][1]
    for words in ("n = 4", "[100.0, 100.0]", "agreement", "entropy 2.00 nats (+1.00)", "points to downscale"):
        assert words in hover
    assert nasty not in text  # nothing in it can end the script
    assert "out of memory (&lt;too large&gt;)" in text
    assert "&lt;7&gt;" in text
    assert "<title>a @DETAILS@ title</title>" in text
    # Nothing is loaded from elsewhere.
    assert not re.search(r'<(script|link|img|iframe)[^>]*\s(src|href)=["\']?(https?:)?//', text)
    assert [p.name for p in tmp_path.iterdir()] == ["p.html"]


def test_page_of_nothing_but_failures(tmp_path):
    lines = summarise(against_native([row(status="failed", reason="why")]))
    page.write_page(tmp_path / "p.html", "t", page.panels(lines), table=page.table(lines))
    text, drawn = figures_in(tmp_path / "p.html")
    assert drawn[0]["data"] == []
    assert "failed (why)" in text


def entry(name, policies=(), **kwargs):
    info = SimpleNamespace(policies=policies, trained=(224, 224))
    return SimpleNamespace(name=name, label=name, pretrained=True, info=info, **kwargs)


def test_published_figures():
    def figure(name, side, policy="default", protocol="object", classes=1000, pretrained=True, width=None):
        model = entry(name)
        model.pretrained = pretrained
        return published(Task(model, policy, protocol, (side, width or side)), classes)

    assert figure("ape_vit_s", 144) == 73.6
    assert figure("rope_axial_vit_s", 384) == 80.0
    assert figure("rope_vit_s.naver_in1k", 512, "extrapolate") == 79.1
    assert figure("ape_vit_s", 224, "bicubic") == 80.4
    others = [
        figure("rope_vit_b", 224),
        figure("rope_vit_s", 240),
        figure("rope_vit_s", 224, width=256),
        figure("rope_vit_s", 384, "yarn"),
        figure("rope_vit_s", 384, "downscale"),
        figure("rope_vit_s", 384, protocol="canvas"),
        figure("rope_vit_s", 384, classes=10),
        figure("rope_vit_s", 384, pretrained=False),
        figure("ape_vit_s.augreg_in21k_ft_in1k", 384),
    ]
    assert others == [None] * len(others)


def test_remarks_on_weights_of_another_training():
    tasks = [Task(entry(name), "default", "object", (224, 224)) for name in ("ape_vit_s", "rope_vit_s")]
    first, *rest = published_notes(tasks, 1000)
    assert "2403.13298" in first
    assert all("rope_vit_s" not in text for text in rest)
    assert published_notes(tasks, 10) == []


def test_policies_are_chosen_by_their_parts():
    from visionpe.scaling.models import ModelEntry
    from visionpe.utils.errors import InputError

    kwargs = {"img_size": 24, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    rope, none = (ModelEntry(name, kwargs, label=name) for name in ("rope_vit_ti", "none_vit_ti"))
    asked = ["yarn+temperature", "rescale(0.5)", "temperature"]
    chosen, notes = choose_policies([rope, none], asked)
    assert chosen == [["temperature", "yarn+temperature", "rescale(0.5)"], ["temperature"]]
    assert "yarn+temperature rescale(0.5) does not apply to none_vit_ti" in notes[0]
    chosen, _ = choose_policies([rope], ["all", "default"])
    assert chosen[0] == ["default", *rope.info.policies[1:]]  # the first is what the default does
    assert choose_policies([rope], ["all"])[0] == [list(rope.info.policies)]
    for name, words in (("rescale(9)", "out of range"), ("yarn+ntk", "exclude"), ("yarn(", "cannot be read")):
        with pytest.raises(InputError, match=re.escape(f"--policy {name}")) as error:
            choose_policies([rope], [name])
        assert words in str(error.value)
