"""Killed with SIGKILL at random moments and started again, programs end as if nothing had been.

Two kills a program and one of the study, or as many as ``VISIONPE_KILLS`` says. Each falls at a random moment of the
time that the whole work takes; where the work ends before enough kills, it begins anew in an empty folder.
"""

from __future__ import annotations

import json
import os
import random
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest
import torch

from visionpe.data.digit_scenes.writing import SceneSettings, write_scenes

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("VISIONPE_KILLS", "0"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="forks")]

DIGITS = [
    "model.embed_dim=16",
    "model.depth=1",
    "model.num_heads=2",
    "train_cfg.max_epochs=3",
    "train_cfg.val_interval=2",
    "train_dataloader.batch_size=8",
    "train_dataloader.dataset.indices=32",
    "val_dataloader.dataset.indices=20",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
    "default_hooks.checkpoint.interval=1",
]


class Warm:
    """Starts commands in a process that has imported everything.

    Args:
        folder: For what they print.
    """

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm_start.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            text=True,
            bufsize=1,
        )

    def run(self, argv: list[str], kill_after: float | None = None) -> bool:
        """Whether the command ended before it was killed; that it ended well is asserted."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"argv": argv, "log": str(self.log)}) + "\n")
        number = int(self.process.stdout.readline())
        if not select.select([self.process.stdout], [], [], 200 if kill_after is None else kill_after)[0]:
            os.kill(number, signal.SIGKILL)
        status = int(self.process.stdout.readline())
        assert status in ((0,) if kill_after is None else (0, signal.SIGKILL)), self.log.read_text()[-3000:]
        return status == 0


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    warm = Warm(tmp_path_factory.mktemp("warm"))
    yield warm
    warm.process.kill()
    warm.process.communicate()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digit_scenes"
    write_scenes(folder, SceneSettings(train=16, val=4))
    return folder


def same_after_kills(
    warm: Warm, command: Callable[[Path], list[str]], compare: Callable[[Path, Path], None], folder: Path, kills: int
) -> None:
    """Run a command whole, then killed until it ends, and compare what they leave."""
    chance, seconds, killed, rounds = random.Random(0), inf, 0, 0
    for name in ("whole", "cut"):  # the second time without what happens once
        start = time.monotonic()
        assert warm.run(command(folder / name))
        seconds = min(seconds, time.monotonic() - start)
    compare(folder / "whole", folder / "cut")
    shutil.rmtree(folder / "cut")
    while killed < kills:
        rounds += 1
        while not warm.run(command(folder / "cut"), chance.uniform(0, seconds)):
            killed += 1
        compare(folder / "whole", folder / "cut")
        left = [str(path) for path in (folder / "cut").rglob(".*") if path.is_file()]
        assert not left
        shutil.rmtree(folder / "cut")
    print(f"killed {killed} times in {rounds} runs of {seconds:.1f} s")


def same_tensors(file: str) -> Callable[[Path, Path], None]:
    def compare(whole: Path, cut: Path) -> None:
        a, b = (torch.load(folder / file, weights_only=False) for folder in (whole, cut))
        assert a["state_dict"].keys() == b["state_dict"].keys()
        for name, value in a["state_dict"].items():
            assert torch.equal(value, b["state_dict"][name]), name
        for mine, other in zip(a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True):
            assert all(torch.equal(mine[key], other[key]) for key in mine)

    return compare


def same_model(whole: Path, cut: Path) -> None:
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()
    assert json.loads((whole / "model.json").read_text()) == json.loads((cut / "model.json").read_text())


def training(config: str, options: list[str]) -> Callable[[Path], list[str]]:
    return lambda folder: ["train", config, "--work-dir", str(folder), "--resume", "--cfg-options", *options]


def test_training_of_a_classifier(warm: Warm, tmp_path: Path) -> None:
    same_after_kills(warm, training("digits/rope_mixed_vit.py", DIGITS), same_model, tmp_path, KILLS or 2)


@pytest.mark.long
@pytest.mark.parametrize(("name", "layout"), [("mask_rcnn_rope_vit", "coco"), ("fcn_cpe_vit", "ade")])
def test_training_of(name: str, layout: str, warm: Warm, scenes: Path, tmp_path: Path) -> None:
    values: dict[str, object] = {}
    for stage in ("train", "val", "test"):
        values[f"{stage}_dataloader.dataset.data_root"] = f"{scenes}/{layout}/"
        values[f"{stage}_dataloader.num_workers"] = 0
        values[f"{stage}_dataloader.persistent_workers"] = False
        if layout == "coco" and stage != "train":
            values[f"{stage}_evaluator.ann_file"] = f"{scenes}/coco/annotations/instances_val2017.json"
    values |= {"model.backbone.embed_dim": 16, "model.backbone.num_heads": 2, "model.backbone.depth": 1}
    values |= {"model.backbone.out_indices": [0], "model.neck.in_channels": 16, "train_dataloader.batch_size": 4}
    values |= {"train_cfg.max_iters": 12, "train_cfg.val_interval": 6, "default_hooks.logger.interval": 1}
    values |= {"default_hooks.checkpoint.interval": 3, "param_scheduler.0.end": 1}
    if layout == "ade":
        values |= {"model.neck.out_channels": 8, "model.decode_head.in_channels": 8, "model.decode_head.channels": 8}
    options = [f"{key}={value}" for key, value in values.items()]
    same_after_kills(warm, training(f"digits/{name}.py", options), same_tensors("iter_12.pth"), tmp_path, KILLS or 2)


@pytest.mark.long
def test_training_of_rooms(warm: Warm, tmp_path: Path) -> None:
    options = [
        "train_cfg.max_epochs=3",
        "model.embed_dims=(12,12,12)",
        "model.depths=(1,1,1)",
        "model.num_heads=(1,1,1)",
    ]
    for stage, rooms in (("train", 6), ("val", 1)):
        options += [f"{stage}_dataloader.num_workers=0", f"{stage}_dataloader.persistent_workers=False"]
        options += [f"{stage}_dataloader.dataset.rooms={rooms}", f"{stage}_dataloader.dataset.room.points=3000"]
    compare = same_tensors("epoch_3.pth")
    same_after_kills(warm, training("rooms/swin3d_tiny_crse.py", options), compare, tmp_path, KILLS or 2)


COUNTED = ("label", "policy", "protocol", "resolution", "status", "n", "top1", "top5")


def same_rows(whole: Path, cut: Path) -> None:
    rows = [json.loads((folder / "results.json").read_text())["rows"] for folder in (whole, cut)]
    kept = [[{key: row.get(key) for key in COUNTED} for row in part] for part in rows]
    assert kept[0] == kept[1]
    assert len(kept[0]) > 3
    assert {path.name for path in whole.iterdir()} == {path.name for path in cut.iterdir()}


def test_the_scaling_tool(warm: Warm, tmp_path: Path) -> None:
    shape = "img_size=24 patch_size=4 in_chans=1 num_classes=10 embed_dim=16 depth=1 num_heads=2"
    options = f"--model rope_ape_vit_ti --model-kwargs {shape} --limit 20 --policy interpolate auto --resolutions 1x 2x"
    command = ["scaling", *shlex.split(options), "--device", "cpu"]
    same_after_kills(warm, lambda folder: [*command, "--out", str(folder)], same_rows, tmp_path, KILLS or 2)


@pytest.mark.long
def test_the_study(warm: Warm, tmp_path: Path) -> None:
    command = [
        "study",
        "--quick",
        "--epochs",
        "2",
        "--seeds",
        "1",
        "--encodings",
        "none",
        "ape",
        "--resolutions",
        "1x",
        "2x",
        "--jobs",
        "2",
    ]
    same_after_kills(warm, lambda folder: [*command, "--out", str(folder)], same_rows, tmp_path, KILLS or 1)
