"""What an ONNX file holds reaches timm's model array by array, and a file that does not fit is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_onnx import DEPTH, DIM, PATCH, SIDE, file_arrays, random_state, write_onnx, write_tiny

pytest.importorskip("onnx", reason="needs the `onnx` extra")

from visionpe.saliency.layout import backbone_arguments, to_timm
from visionpe.saliency.model import load_saliency_model
from visionpe.saliency.onnx_weights import read_onnx_weights, take

Arrays = dict[str, np.ndarray]
FC1 = "/backbone/encoder/layer.1/mlp/fc1/MatMul"
TABLE = "/backbone/embeddings/Reshape_1"


def test_every_array_reaches_its_place(tmp_path: Path) -> None:
    backbone, decoder = random_state()
    arrays = read_onnx_weights(write_tiny(tmp_path / "tiny.onnx"))
    assert take(arrays, "decoder.").keys() == decoder.keys()
    state = to_timm(take(arrays, "backbone."))
    assert state.keys() == backbone.keys()
    for name, value in (state | take(arrays, "decoder.")).items():
        assert torch.equal(value, (backbone | decoder)[name]), name


def test_the_shape_is_that_of_the_file(tmp_path: Path) -> None:
    arrays = take(read_onnx_weights(write_tiny(tmp_path / "tiny.onnx")), "backbone.")
    assert backbone_arguments(arrays) == {
        "patch_size": PATCH,
        "in_chans": 3,
        "embed_dim": DIM,
        "depth": DEPTH,
        "num_heads": 1,
        "img_size": PATCH * SIDE,
    }


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


def with_one(name: str, *shape: int) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: np.zeros(shape, np.float32)}


BAD = {
    "a linear weight is missing": (without(FC1), r"lacks 'blocks.1.mlp.fc1.weight' \(1 missing, 0 too many\)"),
    "a key is missing": (
        without("backbone.encoder.layer.0.attention.attention.key.bias"),
        r"no 'encoder.layer.0.attention.attention.key.bias' of 1 axes \(found: none\)",
    ),
    "the table is missing": (without(TABLE), r"no 'embeddings.Reshape' of 3 axes"),
    "the table is not square": (with_one(TABLE, 1, 24, DIM), r"position table \(1, 24, 64\); allowed: square"),
    "an array is of another width": (with_one("backbone.layernorm.bias", 8), r"'norm.bias' of shape \(8,\)"),
    "an array too many": (with_one("backbone.encoder.layer.0.gate.bias", 8), r"has 'blocks.0.gate.bias' too many"),
    "a third module": (with_one("neck.bias", 8), r"holds 'neck.bias'; allowed: arrays of a backbone and a decoder"),
    "the decoder is missing": (
        lambda arrays: {name: value for name, value in arrays.items() if not name.startswith("decoder.")},
        r"the decoder .* lacks 'final_conv.weight'",
    ),
    "nothing inside": (lambda arrays: {}, r"holds no weights"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_does_not_fit(case: str, tmp_path: Path) -> None:
    change, message = BAD[case]
    file = write_onnx(tmp_path / "bad.onnx", change(file_arrays(*random_state())))
    with pytest.raises(ValueError, match=message) as caught:
        load_saliency_model(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.onnx' does not exist"):
        load_saliency_model(tmp_path / "none.onnx")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_saliency_model(tmp_path)
    (tmp_path / "text.onnx").write_text("not at all")
    with pytest.raises(ValueError, match="no ONNX file, or cut off"):
        load_saliency_model(tmp_path / "text.onnx")


def test_arrays_in_other_files_are_not_read(tmp_path: Path) -> None:
    import onnx

    file = write_tiny(tmp_path / "tiny.onnx")
    model = onnx.load(file)
    onnx.save(model, tmp_path / "out.onnx", save_as_external_data=True, location="elsewhere", size_threshold=0)
    with pytest.raises(ValueError, match="in another file; allowed: arrays inside the file"):
        load_saliency_model(tmp_path / "out.onnx")


@pytest.mark.parametrize("size", [(20, 20), (12, 28), (23, 17), (40, 40), (4, 4)])
def test_the_map_has_the_size_of_the_image(size: tuple[int, int], tmp_path: Path) -> None:
    model = load_saliency_model(write_tiny(tmp_path / "tiny.onnx"))
    with torch.inference_mode():
        saliency = model(torch.randn(2, 3, *size))
    assert saliency.shape == (2, 1, *size)
    assert 0 <= saliency.min() <= saliency.max() <= 1
