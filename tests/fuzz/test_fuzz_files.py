"""Files of weights and of policies, whatever is in them."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz_models import IMAGES, model
from fuzz_outcomes import fuzz, judge
from fuzz_values import policy, value
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import visionpe
from visionpe import PolicyTable
from visionpe.utils.timm_models import load_checkpoint

KINDS = (
    "good",
    "wrapped",
    "shape",
    "missing",
    "extra",
    "values",
    "list",
    "number",
    "empty",
    "cut",
    "text",
    "pickle",
    "json",
)


@st.composite
def weights(draw: Any) -> tuple[Any, ...]:
    suffix = draw(st.sampled_from((".pth", ".pth", ".safetensors", ".pt", ".npz")))
    return draw(st.sampled_from(IMAGES)), draw(st.sampled_from(KINDS)), suffix, draw(st.integers(1, 4000))


def load(family: str, kind: str, suffix: str, length: int) -> Any:
    network = model(family)
    state: Any = {key: t.clone() for key, t in network.state_dict().items()}
    last = list(state)[-3]
    if kind == "shape":
        state[last] = state[last][..., None].repeat(*[1] * state[last].ndim, 2)
    elif kind == "missing":
        del state[last]
    elif kind == "extra":
        state["another"] = torch.ones(2)
    elif kind == "values":
        state[last] = "a text"
    content = {"wrapped": {"model": state, "epoch": 3}, "list": [1, 2], "number": 7}.get(kind, state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"weights{suffix}"
        if kind in ("empty", "text", "pickle", "json"):
            data = {"empty": b"", "text": b"no weights " * 9, "json": json.dumps({"a": [1]}).encode()}
            path.write_bytes(data.get(kind) or pickle.dumps({"a": Path("b")}))
        elif suffix == ".safetensors" and kind in ("good", "shape", "missing", "extra", "cut"):
            save_file({key: t.contiguous() for key, t in content.items()}, path)
        else:
            torch.save(content, path)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:length])
        load_checkpoint(network, path)
    with torch.no_grad():
        return network(torch.randn(1, 3, 24, 24))


@fuzz(0.02, 60)
@given(weights())
def test_weights(case: tuple[Any, ...]) -> None:
    judge("files of weights", lambda: load(*case), case)


@st.composite
def tables(draw: Any) -> str:
    if draw(st.booleans()):
        sizes = st.sampled_from(("32", "24x40", "0", "axb", "", "1x2x3", "999999"))
        return json.dumps(draw(st.dictionaries(sizes, policy(["default", "bilinear"]), max_size=3)), default=str)
    return draw(st.one_of(st.text(max_size=12), value().map(lambda v: json.dumps(v, default=str))))


def read(text: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policies.json"
        path.write_text(text, errors="replace")
        network = visionpe.set_policy(model("vit", "ape"), path)
    with torch.no_grad():
        return network(torch.randn(1, 3, 24, 28))


@fuzz(0.02, 60)
@given(tables())
def test_tables(text: str) -> None:
    judge("files of policies", lambda: read(text), text)


@fuzz(0.01, 40)
@given(st.one_of(value(), st.lists(value(), max_size=2), st.dictionaries(st.sampled_from((32, "a", None)), value())))
def test_arguments(given_: Any) -> None:
    """What may be a table, images, or batches of them."""
    judge("policy tables", lambda: PolicyTable(given_), given_)
    judge("policy images", lambda: visionpe.choose_policy(model("vit", "ape"), given_, 32).scores, given_)


@pytest.mark.parametrize("name", ["nowhere.json", "nowhere.pth"])
def test_no_file(name: str) -> None:
    with pytest.raises(FileNotFoundError):
        visionpe.set_policy(model("vit"), name) if name.endswith("json") else load_checkpoint(model("vit"), name)
