"""Files that hold no weights, or others than a model needs, end in one clear error."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import visionpe  # noqa: F401  (registers the models)
from visionpe.utils.errors import InputError, MisfitError
from visionpe.utils.timm_models import load_checkpoint

TINY = {"img_size": 24, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)}


def model() -> torch.nn.Module:
    return timm.create_model("swin_t", **TINY)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize(
    "content", [b"", b"no weights", pickle.dumps({"a": Path("b")}), pickle.dumps([1])], ids=[*"0123"]
)
def test_files_without_weights(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint .*weights"):
        load_checkpoint(model(), path)


def test_files_that_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({key: t.contiguous() for key, t in model().state_dict().items()}, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="is cut off, or no file of weights"):
        load_checkpoint(model(), path)


@pytest.mark.parametrize("content", [7, [1, 2], "text", None])
def test_other_content(tmp_path: Path, content: object) -> None:
    torch.save(content, path := tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="checkpoint"):
        load_checkpoint(model(), path)


def test_weights_that_do_not_fit() -> None:
    """A ValueError of ours, and the RuntimeError that torch's own callers catch."""
    state = model().state_dict()
    key = next(iter(state))
    for changed, message in (
        ({**state, key: "a text"}, f"the checkpoint holds str at '{key}'; allowed: tensors"),
        ({**state, "another": torch.ones(1)}, "not in the model: another"),
        ({k: t for k, t in state.items() if k != key}, f"missing from the file: {key}"),
        ({**state, key: state[key][:3]}, "patch_embed.proj.weight"),  # which timm may adapt, but torch does not
    ):
        for kind in (ValueError, RuntimeError, MisfitError):
            with pytest.raises(kind, match=message):
                model().load_state_dict(changed)
    with pytest.raises(MisfitError, match="the checkpoint is list"):
        model().load_state_dict([1])
