"""ONNX files say what the model says, one of each family; and nothing is written where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import randomize
from safetensors.torch import save_file

import visionpe  # noqa: F401  registers the models
from visionpe import exporting
from visionpe.cli import export as export_onnx

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SHARED = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "num_classes": 3}
# family: what makes its smallest model tiny; every one with positions inside attention that are hard to export.
TINY = {
    "rope_vit_ti": {**SHARED, "depth": 1, "num_heads": 2},
    "vitdet_b": {**SHARED, "depth": 2, "num_heads": 2, "window_size": 3},
    "swin_t": {**SHARED, "depths": (1, 2), "num_heads": (1, 2), "window_size": 3},
    "rmt_t": {
        "img_size": 32,
        "embed_dim": (16, 16, 16, 16),
        "depths": (1, 1, 1, 1),
        "num_heads": (2, 2, 2, 2),
        "num_classes": 3,
    },
    "cswin_t": {
        "img_size": 32,
        "embed_dim": 16,
        "depths": (1, 1, 1, 1),
        "num_heads": (2, 4, 8, 16),
        "stripe_widths": (1, 2, 3, 1),
        "num_classes": 3,
    },
    "crossformer_t": {**SHARED, "patch_size": (4, 8), "depths": (2, 1), "num_heads": (2, 2), "group_size": 3},
}
REDUCED = {"img_size": 32, "embed_dim": (8, 16), "depths": (1, 1), "num_heads": (1, 2), "num_classes": 3}
TINY |= {"rpb_cpvt_v2_s": REDUCED, "rpb_mit_b0": REDUCED, "rpb_cvt_13": REDUCED}
BUILT = [
    pytest.param(name, marks=pytest.mark.slow if name in ("rope_vit_ti", "swin_t", "rpb_mit_b0") else pytest.mark.long)
    for name in TINY
    if timm.is_model(name)
]


def arguments(name: str, out: Path, *further: str) -> list[str]:
    keywords = [f"{key}={value!r}".replace(" ", "") for key, value in TINY[name].items()]
    return [name, "--out", str(out), "--img-size", "28", "44", *further, "--model-kwargs", *keywords]


@pytest.mark.parametrize("name", BUILT)
@torch.no_grad()
def test_a_file_of_each_family(name: str, tmp_path: Path) -> None:
    """From a checkpoint of random weights, at a size that is not the one the model was built for."""
    model = randomize(timm.create_model(name, **TINY[name]))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    out = tmp_path / "model.onnx"
    assert export_onnx.main(arguments(name, out, "--checkpoint", str(tmp_path / "weights.safetensors"))) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "weights.safetensors"]
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    x = torch.randn(1, 3, 28, 44)
    (logits,) = session.run(["logits"], {"image": x.numpy()})
    np.testing.assert_allclose(logits, model(x).numpy(), atol=1e-4)


def test_features_and_another_encoding(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A function that ONNX lacks, and a resize that runtimes do otherwise: both are of parameters alone."""
    out = tmp_path / "deep" / "model.onnx"
    further = ("--features", "0", "--pos-encoding", "comrope+ape", "--batch-size", "2")
    assert export_onnx.main(arguments("rope_vit_ti", out, *further)) == 0
    (output,) = ort.InferenceSession(out, providers=["CPUExecutionProvider"]).get_outputs()
    assert (output.name, output.shape) == ("features_0", [2, 16, 7, 11])
    assert "image 2 x 3 x 28 x 44, features_0; differs from PyTorch by at most" in capsys.readouterr().out


def test_a_file_that_differs_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.onnx"
    out.write_bytes(b"the one before")

    def another_model(model: torch.nn.Module, shape: tuple, names: list, path: Path, fold: bool) -> None:
        exported(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 28 * 44, 3)), shape, names, path)

    exported = exporting.export
    monkeypatch.setattr(exporting, "export", another_model)
    assert export_onnx.main(arguments("rope_vit_ti", out)) == 2
    assert "onnxruntime differs from PyTorch by" in capsys.readouterr().err
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"the one before"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["rope_vit_tiny"], "model 'rope_vit_tiny' is unknown; did you mean rope_vit_ti"),
        (["rope_vit_ti", "--checkpoint", "nowhere.pth"], "--checkpoint nowhere.pth: there is no such file"),
        (["rope_vit_ti", "--img-size", "1", "2", "3"], "--img-size [1, 2, 3]"),
        (["swin3d_s"], "swin3d_s takes no images"),
        (["rope_vit_ti", "--tolerance", "nan"], "--tolerance nan: must be finite and at least 0"),
        (["rope_vit_ti", "--features", "99"], "--features [99]: allowed are 0 to 11"),
        (["rope_vit_ti", "--pos-encoding", "ropes"], "encoding 'ropes' is unknown; did you mean"),
        (["rope_vit_ti", "--img-size", "30"], "rope_vit_ti cannot be exported: "),
    ],
)
def test_what_is_refused(
    changes: list, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export_onnx.main(changes) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["depth", "=1", "depth="])
def test_keywords_have_a_value(text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        export_onnx.main(["rope_vit_ti", "--model-kwargs", text])
    assert ended.value.code == 2
    assert f"--model-kwargs {text}: not KEY=VALUE" in capsys.readouterr().err


def test_names_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(exporting, "NEEDED", ("onnx", "no_such_package"))
    assert export_onnx.main(["rope_vit_ti"]) == 2
    assert "not installed: no_such_package; pip install 'visionpe[onnx]'" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", ["cpb", "dpb", "fire", "rope_mixed", "rpb", "irpe+cpe"])
@torch.no_grad()
def test_the_older_exporter(spec: str, tmp_path: Path) -> None:
    model = randomize(timm.create_model("none_vit_ti", pos_encoding=spec, **TINY["rope_vit_ti"])).eval()
    out, x = tmp_path / "model.onnx", torch.randn(1, 3, 32, 32)
    torch.onnx.export(model, (x,), out, dynamo=False, opset_version=17)
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(logits, model(x).numpy(), atol=1e-4)
