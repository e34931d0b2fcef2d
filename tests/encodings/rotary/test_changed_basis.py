"""HARoPE and STRING over rotary encodings: formulas, what they leave as it is, and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_vit
from safetensors.torch import load_file
from torch import nn

import visionpe
from visionpe import Grid, create_encoding

REFERENCE = Path(__file__).parents[2] / "reference"
GRID = Grid((4, 5))


def make(spec: Any = "harope(rope_axial)", depth: int = 2, random: bool = True) -> Any:
    encoding = create_encoding(spec, dim=16, num_heads=2, depth=depth, grid_size=(4, 5)).eval()
    for parameter in encoding.parameters() if random else ():
        nn.init.normal_(parameter)
    return encoding


def test_bases_of_the_published_code() -> None:
    data = load_file(REFERENCE / "harope.safetensors")
    encoding = make()
    with torch.no_grad():
        for own, its in (("skew_u", "A_u"), ("skew_v", "A_v"), ("scale", "sigma")):
            getattr(encoding, own)[1] = data[its]
        q_basis, k_basis = encoding.bases(1)
    torch.testing.assert_close(data["q"] @ q_basis, data["turned_q"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(data["k"] @ k_basis, data["turned_k"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_bases_of_string() -> None:
    """Its formula with an inverse; orthogonal, and any rotation that has no half turn can be reached."""
    encoding = make("string(rope_axial)")
    s = (encoding.skew[1] - encoding.skew[1].mT) / 2
    eye = torch.eye(8)
    p = (eye - s) @ torch.linalg.inv(eye + s)
    for basis in encoding.bases(1):
        torch.testing.assert_close(basis, p.mT, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(basis @ basis.mT, eye.expand(2, 8, 8), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["harope", "string"])
@pytest.mark.parametrize("over", ["rope_axial", "rope_mixed", "rope_norm", "rope_golden", "rope_spiral", "comrope"])
def test_first_it_is_the_encoding_underneath(over: str, name: str) -> None:
    torch.manual_seed(1)
    inner = make(over, random=False)
    torch.manual_seed(1)
    encoding = make(f"{name}({over})", random=False)
    encoding.over.load_state_dict(inner.state_dict())
    q, k = torch.randn(2, 1, 2, 20, 8)
    for got, wanted in zip(encoding.rotate(q, k, GRID, layer=1), inner.rotate(q, k, GRID, layer=1)):
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-5)  # softplus + 1e-6, as published


@pytest.mark.parametrize("name", ["harope", "string"])
def test_what_does_not_turn_meets_as_before(name: str) -> None:
    """The bases of queries and keys undo each other: without positions logits are those of plain attention."""
    encoding = make(f"{name}(rope_axial)")
    q, k = torch.randn(2, 1, 2, 7, 8, dtype=torch.float64)
    turned_q, turned_k = encoding.double().rotate(q, k, Grid((4, 1), prefix=3))
    wanted, got = q @ k.mT, turned_q @ turned_k.mT
    torch.testing.assert_close(got[..., :3, :3], wanted[..., :3, :3], atol=1e-5, rtol=1e-5)
    assert (got - wanted)[..., 3:, 3:].abs().max() > 0.1


def test_policies_and_wrappers() -> None:
    model = tiny_vit("harope(rope_axial)")
    assert "ntk" in visionpe.policies(model)
    x = torch.randn(1, 3, 40, 32)
    before = model(x)
    visionpe.set_policy(model, "interpolate")
    assert (model(x) - before).abs().max() > 1e-6
    visionpe.set_policy(model, "yarn")
    assert model.pos_encoding.parts[0].logit_factor(Grid((12, 10))) != 1
    random = make("randomised(harope(rope_axial))").train()
    q = torch.randn(1, 2, 20, 8)
    assert not torch.equal(random.rotate(q, q, GRID)[0], random.rotate(q, q, GRID)[0])


def test_refused() -> None:
    for over in ("ape", "alibi", "rope_axial+ape"):
        with pytest.raises(ValueError, match="is not one rotary encoding"):
            make({"name": "harope", "over": over})
    with pytest.raises(ValueError, match="put the wrapper around harope"):
        make("harope(randomised(rope_axial))")


@pytest.mark.parametrize("name", ["harope", "string"])
def test_bases_are_kept_while_parameters_stay(name: str) -> None:
    encoding = make(f"{name}(rope_axial)")
    parameters = [getattr(encoding, own) for own in encoding.made_of]
    assert {id(p) for p in parameters} == {id(p) for p in encoding.parameters()}
    with torch.no_grad():
        first = encoding.bases(0)
        assert encoding.bases(0)[0] is first[0]
        for parameter in parameters:
            before = encoding.bases(0)
            parameter.data += 0.5 * torch.randn_like(parameter)
            after = encoding.bases(0)
            assert not torch.equal(after[0], before[0])
            anew = encoding.compute(*(p[0] for p in parameters))
            assert all(torch.equal(one, other) for one, other in zip(after, anew))
    encoding.bases(0)[0].sum().backward()
    assert parameters[0].grad is not None
    assert not len(encoding.train().kept)
