"""Training by two processes is training by one."""

import os
import re
import socket
import subprocess
import sys

import pytest
from digit_runs import ROOT, config, options, tool

from visionpe.data.digit_scenes.writing import SceneSettings, write_scenes


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "digit_scenes"
    write_scenes(folder, SceneSettings(train=16, val=4))
    return folder


def losses(text):
    return [float(value) for value in re.findall(r"Iter\(train\).* loss: ([\d.]+)", text)]


# Two processes as torchrun starts them, forked from one that has imported everything.
FORKS = """
import os, sys
import mmseg.apis
import visionpe.detection.running.commands
from visionpe.cli import main
for rank in ("0", "1"):
    if not os.fork():
        os.environ.update(RANK=rank, LOCAL_RANK=rank)
        code = 1
        try:
            code = main(["train", *sys.argv[1:]])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
sys.exit(any([os.wait()[1] for _ in range(2)]))
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "tools/train.py"]


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tolerance", "start"),
    [
        ("fcn_cpe_vit", 1e-3, ["-c", FORKS]),
        pytest.param("fcn_cpe_vit", 1e-3, TORCHRUN, marks=pytest.mark.long),
        pytest.param("mask_rcnn_rope_vit", 0.1, TORCHRUN, marks=pytest.mark.long),
    ],
    ids=["forked", "torchrun", "a detector"],
)
def test_two_processes_train_as_one(name, tolerance, start, data, tmp_path, monkeypatch):
    """Exact but for rounding in segmentation; a detector draws other proposals and counts positives by process."""
    monkeypatch.chdir(ROOT)
    alone, together = ([config(name), "--work-dir", str(tmp_path / work)] for work in ("alone", "together"))
    tool("train")([*alone, "--cfg-options", *options(data, name, iters=3, batch=8)])
    command = [sys.executable, *start]
    command += [*together, "--launcher", "pytorch", "--cfg-options", *options(data, name, iters=3, batch=4)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if start is not TORCHRUN:
        environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stdout + result.stderr
    found = [losses(next((tmp_path / work).glob("*/*.log")).read_text()) for work in ("alone", "together")]
    assert len(found[0]) == len(found[1]) == 3
    assert found[1] == pytest.approx(found[0], rel=tolerance)
