"""timm's own scripts and its test-suite, from a checkout of its repository, with models of ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
# The script as timm's users run it, after an import that registers our models.
START = "import runpy, sys, visionpe; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
MODEL = ["--model", "rope_mixed_vit_ti", "--img-size", "64", "--num-classes", "2"]
SMALL = ["--model-kwargs", "embed_dim=32", "depth=2", "num_heads=2"]
COMMANDS = {
    "train.py": ["{data}", *MODEL, *SMALL, "--epochs", "1", "-b", "4", "--workers", "0", "--model-ema",
                 "--device", "cpu", "--output", "{work}/train", "--experiment", "run"],
    "validate.py": ["{data}", "--split", "validation", *MODEL, *SMALL, "-b", "4", "--workers", "0", "--device", "cpu",
                    "--checkpoint", "{work}/train/run/last.pth.tar"],
    "inference.py": ["{data}/validation", *MODEL, *SMALL, "-b", "4", "--workers", "0", "--device", "cpu", "--topk", "2",
                     "--checkpoint", "{work}/train/run/last.pth.tar", "--results-dir", "{work}/inference"],
    "benchmark.py": [*MODEL, *SMALL, "--bench", "both", "-b", "2", "--num-warm-iter", "1", "--num-bench-iter", "10",
                     "--device", "cpu"],
}  # fmt: skip
# What timm's tests are run on: names of ours, and those of timm that they are compared with.
NAMES = {
    "rope_mixed_vit_s": "vit_small_patch16_rope_mixed_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "cswin_t": "swin_tiny_patch4_window7_224",
}


def checks(checkout: Path | None) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """The rows of the table; without a checkout they say so."""
    work = tempfile.TemporaryDirectory(prefix="timm_scripts.")  # gone with the functions below
    for script in COMMANDS:
        yield "timm", f"`{script}`", lambda script=script: run_script(checkout, script, Path(work.name))
    yield "timm", f"`tests/test_models.py` with {', '.join(f'`{n}`' for n in NAMES)}", lambda: run_suite(checkout)


def taken_from(checkout: Path | None, name: str) -> Path:
    if checkout is None or not (checkout / name).is_file():
        raise FileNotFoundError(f"--timm {checkout}: has no {name}; a checkout of timm's repository does")
    return checkout / name


def run_script(checkout: Path | None, script: str, work: Path) -> str:
    source, data = taken_from(checkout, script), work / "data"
    if not data.exists():
        draw = np.random.default_rng(0)
        for split in ("train", "validation"):
            for index in range(8):
                (data / split / str(index % 2)).mkdir(parents=True, exist_ok=True)
                picture = draw.integers(0, 255, (80, 72, 3), dtype=np.uint8)
                Image.fromarray(picture).save(data / split / str(index % 2) / f"{index}.png")
    # A copy: beside the script, timm's folder would stand in for the installed package.
    copied = work / script
    shutil.copy(source, copied)
    arguments = [word.format(data=data, work=work) for word in COMMANDS[script]]
    done = subprocess.run(
        [sys.executable, "-c", START, str(copied), *arguments], cwd=work, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    return ""


def run_suite(checkout: Path | None) -> str:
    """Every test that passes for timm's model passes for ours, but TorchScript's.

    Raises:
        AssertionError: Names those that do not.
    """
    tests = taken_from(checkout, "tests/test_models.py")
    theirs, ours = outcomes(tests, sorted(set(NAMES.values()))), outcomes(tests, list(NAMES))
    failed, passed = [], 0
    for name, other in NAMES.items():
        for test in [test for test, model in theirs if model == other and theirs[test, model] == "PASSED"]:
            if ours.get((test, name)) == "PASSED":
                passed += 1
            else:
                failed.append(f"{test}[{name}]")
    left = [test for test in failed if "torchscript" not in test]
    assert not left, ", ".join(left)
    return f"{passed} tests; not the {len(failed)} of TorchScript, which is refused in one sentence"


def outcomes(tests: Path, names: list[str]) -> dict[tuple[str, str], str]:
    """``(test, model) -> PASSED, FAILED or SKIPPED``."""
    with tempfile.TemporaryDirectory() as folder:
        copied = shutil.copy(tests, folder)
        done = subprocess.run(
            [sys.executable, str(HERE / "timm_suite.py"), str(copied), *names],
            capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    line = re.compile(r"^(PASSED|FAILED) \S*::(\w+)\[\d+-(\w+)\]", re.MULTILINE)
    found = {(test, model): outcome for outcome, test, model in line.findall(done.stdout)}
    assert found, (done.stdout + done.stderr).strip().splitlines()[-1]
    return found
