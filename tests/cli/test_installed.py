"""The installed wheel in an empty directory, outside any checkout: one command on shipped configs and data."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from visionpe.cli import COMMANDS

ROOT = Path(__file__).parents[2]
TRAINED = ["--seed", "0", "--cfg-options", "model.embed_dim=16", "model.depth=1", "model.num_heads=2"]
TRAINED += ["train_cfg.max_epochs=1", "train_dataloader.batch_size=32", "train_dataloader.dataset.indices=64"]
TRAINED += ["val_dataloader.dataset.indices=20", "test_dataloader.dataset.indices=20"]
END = "=== end of a command ==="

pytestmark = pytest.mark.slow


class Installed:
    """An environment that holds the wheel, and an empty directory to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, folder / "env" / "bin" / "python"

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run ``visionpe``; returns what it printed."""
        return self._run([str(self.python.with_name("visionpe")), *arguments], code)

    def python_code(self, code: str) -> str:
        """Run some Python; returns what it printed."""
        return self._run([str(self.python), "-c", code], 0)

    def _run(self, command: list[str], code: int) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(command, cwd=self.folder / "work", env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    (folder / "work").mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    built = [*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.check_call(built, env=plain)
    subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")])
    (wheel,) = folder.glob("*.whl")
    subprocess.check_call(
        [*pip, "--python", str(folder / "env" / "bin" / "python"), "install", "--no-deps", str(wheel)], env=plain
    )
    # What the wheel needs stands here already; as a plain path, its own start-up files are not read.
    (site,) = (folder / "env" / "lib").glob("*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(folder)


def test_help_does_not_wait_for_pytorch(installed: Installed) -> None:
    assert "usage: visionpe train" in installed.run("train", "--help")
    commands = [["--help"], *([name, "--help"] for name in COMMANDS)]
    code = f"""
import sys
sys.argv = ["visionpe"]
from visionpe.cli import main
for command in {commands!r}:
    try:
        assert main(command) == 0
    except SystemExit as ended:
        assert ended.code == 0
print("heavy:", *{{"torch", "timm", "numpy", "rich", "mmengine", "matplotlib"}} & sys.modules.keys())
"""
    assert installed.python_code(code).splitlines()[-1] == "heavy:"
    assert "did you mean train" in installed.run("tran", code=2)


def test_every_command_once(installed: Installed) -> None:
    """In one process, so that PyTorch and OpenMMLab are imported once: what ``visionpe`` itself would do with each."""
    from PIL import Image

    work = installed.folder / "work"
    Image.new("L", (28, 28)).save(work / "digit.png")
    trained = "work_dirs/digits/rope_mixed_vit"
    config, weights, tiny = "visionpe::digits/rope_mixed_vit.py", f"{trained}/model.safetensors", TRAINED[2:6]
    sizes = ["--resolutions", "1x", "2x", "--limit", "10", "--diagnostics", "0", "--protocol", "object"]
    small = ["--model-kwargs", "embed_dim=16", "depth=1", "num_heads=2"]
    commands = {
        "digits/mask_rcnn_rope_vit.py": ["list", "configs", "digits"],
        "rope_vit_ti": ["list", "models", "rope_*"],
        "Epoch(val) [1]": ["train", "digits/rope_mixed_vit.py", *TRAINED],
        "accuracy/top1": ["test", config, weights, *tiny],
        "predictions/digit.png: ": ["predict", "digit.png", "--config", config, "--checkpoint", weights, *tiny],
        "written: results/results.csv": [
            *("scaling", "--runs", trained, "--policy", "interpolate", "--out", "results", *sizes)
        ],
        "differs from PyTorch": ["export", "rope_vit_ti", "--img-size", "32", *small],
        "room.html": ["points", "--room", "3", "--out", "room"],
    }
    code = f"""
import sys, visionpe
from visionpe.cli import main
assert visionpe.__file__.startswith({str(installed.folder / "env")!r}), visionpe.__file__
for command in {list(commands.values())!r}:
    assert main(command) == 0, command
    for stream in (sys.stdout, sys.stderr):
        print("{END}", file=stream, flush=True)
"""
    printed = installed.python_code(code)
    half = len(parts := printed.split(END)) // 2  # what went to stdout, and then what went to stderr
    for words, *said in zip(commands, parts[:half], parts[half:]):
        assert any(words in part for part in said), printed
    assert "accuracy/top1" in parts[2] + parts[half + 2]
    files = (weights, "results/resolution.html", "predictions/digit.png", "rope_vit_ti.onnx", "room.png")
    assert all((work / name).is_file() for name in files)


def test_configs_from_openmmlab(installed: Installed) -> None:
    """mmengine alone knows ``visionpe::``; nothing of ours is imported before the config asks for it."""
    (installed.folder / "work" / "user.py").write_text('_base_ = "visionpe::coco/mask_rcnn_cswin_t_1x.py"\n')
    code = (
        "import sys; from mmengine.config import Config; "
        "config = Config.fromfile('user.py', import_custom_modules=False); "
        "print(config.model.backbone.model_name, 'visionpe' in sys.modules)"
    )
    assert installed.python_code(code).split()[-2:] == ["cswin_t", "False"]
