"""What the study makes of a model's answers: rows, intervals, summaries and closing words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from visionpe.scaling.conclusions import conclusions
from visionpe.scaling.statistics import bootstrap, pack, pack_classes, unpack, wilson
from visionpe.scaling.store import Store, key_of
from visionpe.scaling.summary import summarise


def test_wilson_values():
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    assert wilson(81, 263) == pytest.approx((25.53, 36.62), abs=0.005)
    assert wilson(15, 148) == pytest.approx((6.24, 16.05), abs=0.005)
    assert wilson(0, 20) == pytest.approx((0, 16.11), abs=0.005)
    assert wilson(1, 29) == pytest.approx((0.61, 17.18), abs=0.005)


def test_pack_is_inverted():
    for n in (1, 7, 8, 9, 500):
        outcomes = np.random.default_rng(n).random(n) < 0.7
        assert np.array_equal(unpack(pack(outcomes)), outcomes)


def test_bootstrap():
    generator = np.random.default_rng(0)
    one = generator.random(500) < 0.9
    low, high = bootstrap([one])
    assert (low, high) == pytest.approx(wilson(int(one.sum()), 500), abs=0.8)
    # Seeds that differ widen the interval far beyond what the images alone would say.
    seeds = [generator.random(500) < share for share in (0.5, 0.7, 0.9)]
    low, high = bootstrap(seeds)
    assert low < 58
    assert high > 82
    assert bootstrap([np.ones(10)]) == (100, 100)
    assert bootstrap([one]) == bootstrap([one])


def test_store_survives_a_torn_file(tmp_path):
    store = Store(tmp_path)
    assert store.load("a") is None
    store.save("a", {"n": 1})
    assert store.load("a") == {"n": 1}
    (tmp_path / "rows" / "a.json").write_text('{"n":')
    assert store.load("a") is None
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})


def test_measure():
    from visionpe.scaling.row import measure

    class Guess(nn.Module):
        def forward(self, x):
            return nn.functional.one_hot(x[:, 0, 0, 0].long(), 10).float()

    images = torch.zeros(10, 1, 8, 8) + torch.arange(10.0).view(-1, 1, 1, 1)
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 0, 0])
    split = [(images[:6], labels[:6], []), (torch.empty(0), labels[:0], ["broken.png"]), (images[6:], labels[6:], [])]
    row = measure(Guess(), split, device=torch.device("cpu"))
    assert (row["n"], row["top1"], row["corrupt"]) == (10, 70.0, ["broken.png"])
    assert (row["top1_low"], row["top1_high"]) == wilson(7, 10)
    assert unpack(row["correct"]).tolist() == [True] * 7 + [False] * 3
    halves = measure(Guess(), split, device=torch.device("cpu"), downscale_to=(4, 4))
    assert halves["top1"] == 70.0

    class Broken(Guess):
        def forward(self, x):
            return super().forward(x) * float("nan")

    with pytest.raises(ValueError, match="not finite"):
        measure(Broken(), split, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="no readable images"):
        measure(Guess(), [], device=torch.device("cpu"))


def test_measure_flops_of_a_linear_layer():
    from visionpe.scaling.row import count_flops

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert count_flops(model, torch.zeros(1, 1, 8, 8)) == 2 * 64 * 10


def row(policy, correct, *, seed=0, label="m", factor=2.0, protocol="object"):
    correct = np.asarray(correct, dtype=bool)
    low, high = wilson(int(correct.sum()), len(correct))
    bounds = ("_low", low), ("_high", high)
    shares = {f"{what}{end}": value for what in ("top1", "top5", "balanced") for end, value in bounds}
    return {
        "label": label,
        "model": label,
        "seed": seed,
        "policy": policy,
        "protocol": protocol,
        "factor": factor,
        "height": int(24 * factor),
        "width": int(24 * factor),
        "status": "ok",
        "reason": "",
        "tokens": 9,
        "n": len(correct),
        "top1": 100 * correct.mean(),
        "top5": 100 * correct.mean(),
        "balanced": 100 * correct.mean(),
        **shares,
        "images_per_s": 1.0,
        "peak_bytes": None,
        "flops": 1,
        "corrupt": [],
        "correct": pack(correct),
        "labels": pack_classes(np.zeros(len(correct))),
    }


def test_summary_marks_what_loses_to_downscale():
    good, same, bad = np.arange(100) < 90, np.arange(100) < 89, np.arange(100) < 60
    rows = [row("downscale", good), row("default", same), row("bad", bad), row("better", np.ones(100))]
    lines = {line["policy"]: line for line in summarise(rows)}
    assert lines["bad"]["versus_downscale"] == pytest.approx(-30)
    assert lines["bad"]["loses"]
    assert not lines["default"]["loses"]  # one image of a hundred is noise
    assert lines["better"]["versus_low"] > 0
    assert "loses" not in lines["downscale"]


def test_summary_of_seeds():
    shares = (60, 80, 100)
    rows = [row("default", np.arange(100) < share, seed=seed) for seed, share in enumerate(shares)]
    (line,) = summarise(rows)
    assert (line["seeds"], line["top1"]) == (3, pytest.approx(80))
    assert line["top1_low"] < 70
    assert line["top1_high"] > 90
    (line,) = summarise([*rows[:2], rows[2] | {"status": "out of memory", "reason": "x"}])
    assert line["status"] == "out of memory"  # a mean over two seeds beside means over three would mislead


def test_closing_words_follow_the_numbers():
    def share(n):
        return np.arange(200) < 2 * n

    rows = []
    for label, at_1, at_3 in (("a", 97, 40), ("b", 96, 90), ("c", 50, 10)):
        rows += [
            row("default", share(at_1), label=label, factor=1.0),
            row("default", share(at_3), label=label, factor=3.0),
        ]
        rows.append(row("downscale", share(80), label=label, factor=3.0))
    first, second, third = conclusions(summarise(rows))
    assert "a, b reach 96.0% to 97.0%" in first
    assert "overlapping 95% intervals" in first
    assert "below them c 50.0%" in first
    assert second == "Objects 3 times as large: b 90.0%, a 40.0%, c 10.0%."
    assert "1 better, 2 worse, 0 not distinguishable" in third
    assert len(conclusions([])) == 3


def test_policies_of_one_model_look_different():
    from visionpe.scaling.plot import assign_line_styles

    pairs = [("a", "default"), ("b", "downscale"), ("b", "bicubic"), ("c", "extrapolate"), ("c", "interpolate")]
    looks = assign_line_styles([{"label": label, "policy": policy} for label, policy in pairs])
    assert looks == {"default": 0, "bicubic": 0, "extrapolate": 0, "interpolate": 1}


def test_the_axes_show_what_was_measured():
    from visionpe.scaling.factor_axis import tick_texts
    from visionpe.scaling.plot import shown_range

    lines = [row("a", [True] * 70 + [False] * 30), row("b", [True] * 6 + [False] * 4, seed=1)]
    assert shown_range(lines) == (0, 91)  # an interval that begins at 31 or below
    assert shown_range(lines[:1]) == (60, 81)
    assert shown_range([{**lines[0], "status": "failed"}]) == (0, 101)
    assert tick_texts([0.5, 1, 1.33, 1.5, 2]) == ["0.5x", "1x", "1.33x", "", "2x"]
    assert tick_texts([0.9, 1.0]) == ["0.9x", "1x"]
