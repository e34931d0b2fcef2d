"""What the tests of ``visionpe scaling`` share: the program, tiny random models, and pictures."""

from __future__ import annotations

import json
import shlex
from contextlib import contextmanager

import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from visionpe.cli import scaling as resolution_scaling

KWARGS = {
    "img_size": 24,
    "patch_size": 4,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}
PHOTO = (
    "--model vit_tiny_patch16_224 "
    "--model-kwargs num_classes=2 img_size=32 patch_size=8 embed_dim=16 depth=1 num_heads=2"
)
SMALL = "--limit 20 --batch-size 10"
TINY = "--model-kwargs " + " ".join(f"{key}={value}" for key, value in KWARGS.items())


@contextmanager
def program(tmp_path, capsys):
    """Runs the program with a command line, on one thread; it returns the exit code, stdout and stderr."""

    def call(command, out=tmp_path / "out"):
        code = resolution_scaling.main([*shlex.split(command), "--out", str(out)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    call.out = tmp_path / "out"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield call
    torch.set_num_threads(before)


def results(run):
    return json.loads((run.out / "results.json").read_text())


def write_run(directory, *, seed=0, model="rope_vit_ti", **changes):
    """A trained run as tools/train.py leaves it, with random weights."""
    directory.mkdir(parents=True)
    torch.manual_seed(seed)
    save_file(timm.create_model(model, **KWARGS).state_dict(), directory / "model.safetensors")
    description = {
        "model": model,
        "kwargs": KWARGS,
        "img_size": 24,
        "data": "digits",
        "seed": seed,
        "mean": [79.3],
        "std": [91.0],
    }
    (directory / "model.json").write_text(json.dumps(description | changes))
    return directory


def fake_images(root, classes=2, images=3, size=(40, 30)):
    for label in range(classes):
        for index in range(images):
            path = root / f"class{label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (80 * label, 20 * index, 100)).save(path)
    return root


def assert_one_line(err, *words):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
