"""The resolution study on several processes, and on published weights up to their download."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time

import pytest
import timm
import torch
from PIL import Image

from visionpe.cli import scaling as resolution_scaling
from visionpe.scaling import study as study_module
from visionpe.scaling.processes import Processes

TINY = "num_classes=10 in_chans=1 img_size=24 patch_size=4 embed_dim=16 depth=1 num_heads=2"


def test_work_is_shared_evenly():
    work = [1, 4, 9, 16] * 5  # by size in one process each, the last would have all the large ones
    shares = [Processes(rank, 4).share(work) for rank in range(4)]
    assert sorted(i for share in shares for i in share) == list(range(20))
    assert all(share == sorted(share) for share in shares)
    totals = [sum(work[i] for i in share) for share in shares]
    assert max(totals) <= 1.5 * min(totals)
    assert Processes().share(work) == list(range(20))
    assert Processes(1, 3).share([5]) == []


def test_device_of_a_process():
    assert Processes(3, 4, local=1).device("cuda") == "cuda:1"
    assert Processes(3, 4).device("cpu") == "cpu"
    assert Processes().device("cuda:2") == "cuda:2"


def _process(rank, port, command, lines):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_PORT": str(port)}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(1)
    original = study_module.sweep

    def sweep(tasks, *args):
        for row in original(tasks, *args):
            lines.put((rank, row["policy"], row["height"]))
            yield row

    study_module.sweep = sweep
    study_module.plot = lambda *args: None  # takes longer than all the rest
    os._exit(resolution_scaling.main([*command, "--launcher", "pytorch"]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes with all imports done are forked")
def test_two_processes_share_the_rows(tmp_path):
    command = f"--model rope_vit_ti --model-kwargs {TINY} --limit 10 --resolutions 1x 2x --protocol object --device cpu"
    command = [*command.split(), "--policy", "default", "interpolate", "--out", str(tmp_path)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    lines = context.Queue()
    processes = [context.Process(target=_process, args=(rank, port, command, lines)) for rank in (0, 1)]
    for process in processes:
        process.start()
    end = time.monotonic() + 60
    for process in processes:
        process.join(max(0, end - time.monotonic()))
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    done = [lines.get(timeout=5) for _ in range(6)]
    assert [sum(rank == which for rank, _, _ in done) for which in (0, 1)] == [3, 3]
    assert len({(policy, height) for _, policy, height in done}) == 6
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["policy"], row["height"]) for row in rows] == [
        (policy, height) for policy in ("default", "downscale", "interpolate") for height in (24, 48)
    ]
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["agreement"] is not None for row in rows)  # also of rows of the other process
    assert len(list((tmp_path / "rows").iterdir())) == 6


def test_published_weights_up_to_the_download(tmp_path, monkeypatch, capsys):
    """The command of the RoPE-ViT paper on a folder of ImageNet's shape; what the hub would send comes from here."""
    names = ("ape_vit_s", "rope_axial_vit_s", "rope_vit_s")
    kwargs = {"embed_dim": 32, "depth": 1, "num_heads": 2}
    asked = []

    def from_hub(model_id, *args, **keywords):
        asked.append(model_id)
        torch.manual_seed(1)
        file = tmp_path / "weights.pth"
        torch.save(timm.create_model(names[len(set(asked)) - 1], **kwargs).state_dict(), file)
        return torch.load(file, weights_only=True)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", from_hub)
    folder = tmp_path / "imagenet" / "val"
    for label in range(1000):
        (folder / f"n{label:08d}").mkdir(parents=True)
    for label in (3, 500, 999):
        Image.new("RGB", (50, 40), (label % 256, 0, 99)).save(folder / f"n{label:08d}" / "a.JPEG")
    command = ["--pretrained", "--data", str(folder.parent), "--resolutions", "144", "224", "--protocol", "object"]
    command += [f"--model={name}" for name in names]
    command += ["--model-kwargs", *(f"{key}={value}" for key, value in kwargs.items())]
    command += ["--policy", "extrapolate", "bicubic", "--crop-pct", "1", "--out", str(tmp_path / "out")]
    assert resolution_scaling.main(command) == 0
    # timm's copies of the files that the paper's authors (and, for ape, those of DeiT-III) published
    assert asked == [
        "timm/deit3_small_patch16_224.fb_in1k",
        "timm/vit_small_patch16_rope_224.naver_in1k",
        "timm/vit_small_patch16_rope_mixed_224.naver_in1k",
    ]
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["status"] for row in rows} == {"ok"}
    stated = {(row["model"], row["height"]): row["paper"] for row in rows if row["policy"] != "downscale"}
    assert list(stated.values()) == [73.6, 80.4, 73.6, 80.9, 74.2, 80.9]
    assert all(row["paper"] is None for row in rows if row["policy"] == "downscale")
    out = capsys.readouterr().out
    assert "ape_vit_s loads deit3_in1k" in out
    assert "stated in the paper" in (tmp_path / "out" / "resolution.html").read_text()
