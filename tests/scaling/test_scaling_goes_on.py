"""A study goes on: nothing is measured twice, and what fails is recorded and fails alone."""

from __future__ import annotations

import pytest
import timm
import torch
from PIL import Image
from scaling_runs import KWARGS, PHOTO, SMALL, TINY, assert_one_line, fake_images, program, results

from visionpe.scaling import sweep as sweep_module


@pytest.fixture
def run(tmp_path, capsys):
    with program(tmp_path, capsys) as call:
        yield call


def test_second_run_repeats_nothing(run, monkeypatch):
    calls = []
    original = sweep_module.measure
    monkeypatch.setattr(sweep_module, "measure", lambda *a, **k: calls.append(1) or original(*a, **k))
    command = f"--model ape_vit_ti {TINY} {SMALL} --resolutions 1x 2x --protocol object"
    run(command)
    first = results(run)["rows"]
    assert len(calls) == 4
    _, out, _ = run(command)
    assert len(calls) == 4
    assert results(run)["rows"] == first
    assert "4 rows, 4 of them already finished" in out
    run(f"{command} --fresh")
    assert len(calls) == 8
    run(f"{command} --seed 1")  # other weights, images and places
    assert len(calls) == 12
    run(f"{command} --limit 19")
    assert len(calls) == 16


def test_changed_image_is_measured_again(run, tmp_path):
    folder = fake_images(tmp_path / "data")
    command = f"{PHOTO} --data {folder} --resolutions 32 --protocol object"
    assert "2 rows, 0 of them already finished" in run(command)[1]
    assert "2 rows, 2 of them already finished" in run(command)[1]
    Image.new("RGB", (50, 50)).save(folder / "class0" / "0.png")
    assert "2 rows, 0 of them already finished" in run(command)[1]


def test_interrupted_run_goes_on(run, monkeypatch, capsys):
    original, calls = sweep_module.measure, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(sweep_module, "measure", interrupted)
    command = f"--model ape_vit_ti {TINY} {SMALL} --resolutions 1x 2x --protocol object"
    code, _, err = run(command)
    assert code == 130
    assert "goes on" in err
    assert len(list((run.out / "rows").iterdir())) == 2
    code, _, _ = run(command)
    assert code == 0
    assert len(calls) == 3 + 2


def test_out_of_memory_is_recorded_and_the_rest_goes_on(run, monkeypatch):
    original, large = sweep_module.measure, []

    def greedy(model, batches, **kwargs):
        batches = list(batches)
        if batches[0][0].shape[-1] == 48 and kwargs["downscale_to"] is None:
            large.append(1)
            torch.empty(2**50)  # the real message of the CPU allocator
        return original(model, batches, **kwargs)

    monkeypatch.setattr(sweep_module, "measure", greedy)
    command = f"--model none_vit_ti {TINY} {SMALL} --resolutions 1x 2x 3x --protocol object"
    code, out, _ = run(command)
    assert code == 0
    status = {(row["policy"], row["height"]): row["status"] for row in results(run)["rows"]}
    assert status.pop(("default", 48)) == "out of memory"
    assert len(status) == 5
    assert set(status.values()) == {"ok"}
    assert "none_vit_ti at 48x48: out of memory" in out
    run(command)
    assert len(large) == 2  # tried again: memory may have become free


def test_model_that_refuses_a_size_is_recorded(run):
    kwargs = "num_classes=10 in_chans=1 img_size=32"
    code, _, _ = run(f"--model mixer_s16_224 --model-kwargs {kwargs} {SMALL} --resolutions 1x 2x --protocol object")
    assert code == 0
    status = {(row["policy"], row["height"]): row for row in results(run)["rows"]}
    assert status["default", 32]["status"] == "ok"
    assert status["default", 64]["status"] == "failed"
    assert "64" in status["default", 64]["reason"]


def test_policies_that_exclude_each_other_fail_alone(run, monkeypatch):
    def refuse(model, policy):
        if policy == "interpolate":
            raise ValueError("cannot")

    monkeypatch.setattr(sweep_module.visionpe, "set_policy", refuse)
    command = f"--model rope_vit_ti {TINY} {SMALL} --resolutions 2x --protocol object --controls none"
    assert run(f"{command} --policy default interpolate extrapolate")[0] == 0
    status = {row["policy"]: (row["status"], row["reason"]) for row in results(run)["rows"]}
    assert status == {"default": ("ok", ""), "interpolate": ("failed", "cannot"), "extrapolate": ("ok", "")}


def test_corrupt_image(run, tmp_path):
    folder = fake_images(tmp_path / "data")
    broken = folder / "class1" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    command = f"{PHOTO} --data {folder} --resolutions 32 --protocol object --batch-size 1"
    code, _, err = run(command)
    assert code == 2
    assert_one_line(err, str(broken), "--skip-corrupt")
    code, out, _ = run(f"{command} --skip-corrupt")
    assert code == 0
    assert {row["n"] for row in results(run)["rows"]} == {5}
    assert "1 corrupt images left out" in out
    assert str(broken) in out.replace("\n", "")


def test_a_failure_that_may_pass_is_tried_again(run, monkeypatch):
    """A worker that was killed, say: the rows of one run, and none of the next."""
    original = sweep_module.measure

    def unlucky(model, batches, **kwargs):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    command = f"--model none_vit_ti {TINY} {SMALL} --resolutions 1x 2x --protocol object --controls none"
    monkeypatch.setattr(sweep_module, "measure", unlucky)
    code, _, err = run(command)
    assert code == 1
    assert err == "incomplete: 2 of 2 rows failed; the same command tries them again\n"
    assert {row["status"] for row in results(run)["rows"]} == {"failed"}
    monkeypatch.setattr(sweep_module, "measure", original)
    assert run(command)[0] == 0
    assert {row["status"] for row in results(run)["rows"]} == {"ok"}


def test_weights_of_nans_are_no_result(run, tmp_path):
    model = timm.create_model("none_vit_ti", **KWARGS)
    torch.save({key: value * float("nan") for key, value in model.state_dict().items()}, tmp_path / "nan.pth")
    code, out, err = run(f"--model none_vit_ti --checkpoint {tmp_path}/nan.pth {TINY} {SMALL} --resolutions 1x")
    assert code == 1
    assert "the outputs are not finite" in out
    assert "rows failed" in err


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"status": "ok"}', '"x"'])
def test_rows_that_are_none_of_ours_are_measured_again(content, run):
    command = f"--model ape_vit_ti {TINY} {SMALL} --resolutions 1x --protocol object --controls none"
    run(command)
    kept = list((run.out / "rows").iterdir())
    for file in kept:
        file.write_text(content)
    code, out, _ = run(command)
    assert code == 0
    assert f"{len(kept)} rows, 0 of them already finished" in out


@pytest.mark.parametrize("place", [".", "class0", "new", "class0/new"])
@pytest.mark.parametrize("flag", ["--data", "--auto-data"])
def test_results_do_not_go_among_the_images(place, flag, run, tmp_path):
    folder = fake_images(tmp_path / "data")
    before = sorted(folder.rglob("*"))
    more = "" if flag == "--data" else f"--data {fake_images(tmp_path / 'other')} --policy auto"
    code, _, err = run(f"{PHOTO} {more} {flag} {folder} --resolutions 32", folder / place)
    assert code == 2
    assert_one_line(err, f"--out {folder / place}", f"{flag} {folder}", "outside")
    assert sorted(folder.rglob("*")) == before
