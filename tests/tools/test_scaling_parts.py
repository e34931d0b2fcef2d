"""The parts of the resolution study, each alone."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from visionpe.data.digits import load_digits
from visionpe.scaling.conclusions import conclusions
from visionpe.scaling.images import batches
from visionpe.scaling.open_images import open_source
from visionpe.scaling.protocols import ViewSpec, place
from visionpe.scaling.sizes import factor_of, parse_resolution, resolve, resolve_all
from visionpe.scaling.statistics import bootstrap, pack, unpack, wilson
from visionpe.scaling.store import Store, key_of
from visionpe.scaling.summary import summarise
from visionpe.utils import files
from visionpe.utils.errors import InputError, first_line
from visionpe.utils.files import write_atomic
from visionpe.utils.memory import is_out_of_memory, peak_memory
from visionpe.utils.resizing import resize_images


@pytest.mark.parametrize(
    ("text", "size", "factor"),
    [
        ("224", (224, 224), None),
        ("512x384", (512, 384), None),
        ("1x", None, 1.0),
        ("0.5x", None, 0.5),
        (".5x", None, 0.5),
        ("2.x", None, 2.0),
    ],
)
def test_parse_resolution(text, size, factor):
    parsed = parse_resolution(text)
    assert (parsed.size, parsed.factor) == (size, factor)


@pytest.mark.parametrize("text", ["", "0", "0x", "-224", "22.5", "x", "1x2x3", "224 x 224", "0x5", "5x0", "1e3"])
def test_parse_resolution_refuses(text):
    with pytest.raises(InputError, match="not a resolution"):
        parse_resolution(text)


def test_resolve():
    patch = (4, 4)
    assert resolve(parse_resolution("1.5x"), (24, 24), patch, "m") == (36, 36)
    assert resolve(parse_resolution("1.1x"), (24, 24), patch, "m") == (28, 28)  # 26.4: the nearest multiple
    assert resolve(parse_resolution("0.01x"), (24, 24), patch, "m") == (4, 4)
    assert resolve(parse_resolution("2x"), (24, 48), patch, "m") == (48, 96)
    assert resolve(parse_resolution("33"), (24, 24), None, "m") == (33, 33)
    with pytest.raises(InputError, match=r"8x10 is no multiple of the 4x4 patch of m") as error:
        resolve(parse_resolution("8x10"), (24, 24), patch, "m")
    assert "8x8 or 8x12" in str(error.value)
    asked = [parse_resolution(text) for text in ("48", "2x", "24", "12x48")]
    assert resolve_all(asked, (24, 24), patch, "m") == [(12, 48), (24, 24), (48, 48)]
    assert factor_of((48, 12), (24, 24)) == 1


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


def test_object_protocol_is_the_identity_at_the_native_size():
    images, labels = load_digits("test")
    source = open_source("digits")
    spec = ViewSpec(trained=(24, 24), channels=1, mean=[0], std=[1])
    for protocol in ("object", "canvas"):
        image, label = source.view(7, protocol=protocol, size=(24, 24), spec=spec)
        assert torch.equal(image, images[7].float())
        assert label == labels[7]
    assert resize_images(images[:2].float(), (24, 24)).equal(images[:2].float())
    image, _ = source.view(7, protocol="object", size=(48, 24), spec=spec)
    assert image.shape == (1, 48, 24)
    assert 0 <= image.min() <= image.max() <= 255


def test_channels_and_statistics():
    spec = ViewSpec(trained=(24, 24), channels=3, mean=[10, 20, 30], std=[1, 2, 4])
    image = spec.normalise(torch.full((1, 2, 2), 50.0))
    assert image[:, 0, 0].tolist() == [40, 15, 5]


def test_canvas_keeps_every_pixel():
    image = torch.rand(1, 24, 24) + 1
    corners = set()
    for index in range(20):
        canvas = place(image, (48, 36), seed=0, index=index)
        rows, columns = (canvas[0] > 0).nonzero().unbind(1)
        top, left = int(rows.min()), int(columns.min())
        assert canvas.shape == (1, 48, 36)
        assert canvas[:, top : top + 24, left : left + 24].equal(image)
        assert canvas.count_nonzero() == 24 * 24
        corners.add((top, left))
    assert len(corners) > 10
    assert place(image, (48, 36), seed=0, index=3).equal(place(image, (48, 36), seed=0, index=3))
    assert not place(image, (96, 96), seed=1, index=3).equal(place(image, (96, 96), seed=0, index=3))


def test_canvas_below_the_image_is_its_centre():
    image = torch.arange(24.0 * 24).view(1, 24, 24)
    assert place(image, (12, 12), seed=0, index=5).equal(image[:, 6:18, 6:18])
    mixed = place(image + 1, (12, 40), seed=0, index=5)
    assert mixed.count_nonzero() == 12 * 24


def test_batches_keep_order_with_and_without_workers():
    source = open_source("digits")
    spec = ViewSpec(trained=(24, 24), channels=1, mean=[79.3], std=[91.0], seed=2)
    how = {"protocol": "canvas", "size": (36, 48), "spec": spec, "indices": range(25), "batch_size": 10}
    here, there = (list(batches(source, workers=workers, **how)) for workers in (0, 2))
    assert [len(labels) for _, labels, _ in here] == [10, 10, 5]
    for (a, la, _), (b, lb, _) in zip(here, there):
        assert a.equal(b)
        assert la.equal(lb)
    assert torch.cat([labels for _, labels, _ in here]).equal(load_digits("test")[1][:25])


def test_subset_is_seeded():
    source = open_source("digits")
    assert source.subset(None, 0) == list(range(500))
    assert source.subset(50, 0) == source.subset(50, 0) == sorted(source.subset(50, 0))
    assert source.subset(50, 0) != source.subset(50, 1)


def test_write_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.json"
    write_atomic(path, "old")

    def fail(*args):
        assert path.read_text() == "old"  # the content is complete elsewhere before it takes the name
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file.json"]


def test_store_survives_a_torn_file(tmp_path):
    store = Store(tmp_path)
    assert store.load("a") is None
    store.save("a", {"n": 1})
    assert store.load("a") == {"n": 1}
    (tmp_path / "rows" / "a.json").write_text('{"n":')
    assert store.load("a") is None
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})


def test_out_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("not enough memory: you tried to allocate 10 bytes"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_peak_memory_sees_what_was_freed_again():
    for megabytes in (200, 50):  # the second peak is smaller than the first
        with peak_memory(torch.device("cpu")) as peak:
            block = torch.ones(megabytes * 250_000)
            del block
        assert peak["bytes"] == pytest.approx(megabytes * 1e6, rel=0.2)


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
    shares = {f"top{k}{end}": value for k in (1, 5) for end, value in (("_low", low), ("_high", high))}
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
        **shares,
        "images_per_s": 1.0,
        "peak_bytes": None,
        "flops": 1,
        "corrupt": [],
        "correct": pack(correct),
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


def test_first_line():
    assert first_line(RuntimeError("\n one\n\n two\n three")) == "one two"
    assert first_line(MemoryError()) == "MemoryError"
    assert len(first_line(RuntimeError("x" * 1000))) == 200


FAKE = """
import json, pathlib, sys
work = pathlib.Path(sys.argv[sys.argv.index("--work-dir") + 1])
scalars = work / "20260101_000000" / "vis_data" / "scalars.json"
scalars.parent.mkdir(parents=True, exist_ok=True)
scalars.write_text('{"loss": 2.5, "epoch": 1}\\n{"loss": 1.5, "epoch": 2}\\n{"lo')
print("started")
if "fail" in str(work):
    sys.exit("the last words")
(work / "model.safetensors").write_text("")
(work / "model.json").write_text("{}")
"""


def test_trainings(tmp_path, monkeypatch):
    from visionpe.quickstarts.trainings import Training, train

    script = tmp_path / "train.py"
    script.write_text(FAKE)
    starts = []

    def command(self):
        starts.append(self.name)
        return [sys.executable, str(script), "--work-dir", str(self.directory)]

    monkeypatch.setattr(Training, "command", command)
    console = Console(file=open(os.devnull, "w"))  # noqa: SIM115
    runs = [Training(name, script, tmp_path / name, 0, 2) for name in "abc"]
    train(runs, console, at_once=2, interval=0.02)
    assert starts == ["a", "b", "c"]
    assert runs[0].done() == (2, 1.5)
    train(runs, console, at_once=2, interval=0.02)
    assert starts == ["a", "b", "c"]

    with (
        console.capture() as shown,
        pytest.raises(InputError, match=r"training of d ended with exit code 1.*train\.log"),
    ):
        train([Training("d", script, tmp_path / "fail", 0, 2)], console, at_once=2, interval=0.02)
    assert "the last words" in shown.get()


def test_training_command(tmp_path):
    from visionpe.quickstarts.trainings import Training

    command = Training("a", tmp_path / "c.py", tmp_path / "w", 3, 2, ("train_cfg.max_epochs=2",)).command()
    assert command[1:4] == ["-m", "visionpe", "train"]
    assert command[4:] == [
        *(str(tmp_path / "c.py"), "--work-dir", str(tmp_path / "w"), "--resume", "--seed", "3"),
        *("--cfg-options", "train_cfg.max_epochs=2"),
    ]


def test_quickstart_refuses_what_it_does_not_know(capsys):
    from visionpe.cli import quickstart

    assert quickstart.classification(["--encodings", "magic"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --encodings magic")
    assert "rope_mixed" in err
    assert err.count("\n") == 1
    assert quickstart.classification(["--seeds", "0"]) == 2
    assert "--seeds 0" in capsys.readouterr().err


def test_quickstart_evaluates_finished_runs(tmp_path, capsys, monkeypatch):
    import timm
    from safetensors.torch import save_file

    import visionpe  # noqa: F401
    from visionpe.cli import quickstart

    kwargs = {"img_size": 24, "patch_size": 4, "in_chans": 1, "num_classes": 10}
    kwargs |= {"embed_dim": 16, "depth": 1, "num_heads": 2}
    for encoding, model in (("none", "none_vit_ti"), ("rope_mixed", "rope_vit_ti")):
        directory = tmp_path / "runs" / "digits" / f"{encoding}_seed0"
        directory.mkdir(parents=True)
        save_file(timm.create_model(model, **kwargs).state_dict(), directory / "model.safetensors")
        description = {"model": model, "kwargs": kwargs, "img_size": 24, "data": "digits", "seed": 0}
        (directory / "model.json").write_text(json.dumps(description))
    code = quickstart.classification(
        ["--encodings", "none", "rope_mixed", "--policy", "interpolate", "--out", str(tmp_path), "--limit", "10"]
    )
    assert code == 0
    for name in ("results.csv", "results.json", "resolution.png"):
        assert (tmp_path / name).is_file()
    out = capsys.readouterr().out
    assert "2 of 2 trainings already finished" in out
    assert "At the trained size (24x24)" in out
    # The default policies shrink to those that apply: none at all here.
    assert quickstart.classification(["--encodings", "none", "--out", str(tmp_path), "--limit", "10"]) == 0
    assert {row["policy"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]} == {
        "default",
        "downscale",
    }
