"""What an encoding must do whatever its formula: dtype, gradients, and state that is never stale."""

from __future__ import annotations

import copy
from fnmatch import fnmatchcase

import pytest
import torch
from conftest import ENCODINGS, tiny_spec, tiny_vit
from small_encodings import DIM, HEADS, SPECS, logits, make, mix, qk, tokens_of
from torch import Tensor

import visionpe
from visionpe import Grid


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_is_kept_and_close(spec: str, dtype: torch.dtype) -> None:
    encoding, grid = make(spec), Grid((32, 48), 1)
    q, k = qk(grid.num_tokens)
    x = torch.randn(2, grid.num_spatial, DIM)
    wanted = encoding.add(x, grid), *encoding.rotate(q, k, grid, tokens=tokens_of(q))
    encoding = copy.deepcopy(encoding).to(dtype)
    got = (
        encoding.add(x.to(dtype), grid),
        *encoding.rotate(q.to(dtype), k.to(dtype), grid, tokens=tokens_of(q.to(dtype))),
    )
    for a, b in zip(got, wanted):
        assert a.dtype == dtype
        assert (a.float() - b).norm() / b.norm() < 0.01
    assert encoding.refine(torch.randn(1, grid.num_tokens, DIM, dtype=dtype), grid).dtype == dtype


@pytest.mark.parametrize("spec", ENCODINGS)
def test_what_is_stacked_by_block_is_told(spec: str) -> None:
    """For learning rates by layer: 17 is no other size of any parameter."""
    encoding = visionpe.create_encoding(tiny_spec(spec), dim=DIM, num_heads=HEADS, depth=17, grid_size=(6, 5))
    for name, parameter in encoding.named_parameters():
        told = [axis for pattern, axis in encoding.stacked if fnmatchcase(name, pattern)]
        assert told == [axis for axis, size in enumerate(parameter.shape) if size == 17], name
        assert not told or name.count(".") == 0


@pytest.mark.parametrize("name", ["rope_axial", "rope_mixed"])
def test_rotary_tables_are_float32(name: str) -> None:
    """At 64 tokens a side a bfloat16 table would be wrong by 0.6."""
    encoding, grid = make(name)[name], Grid((64, 64), 1)
    wanted = encoding.rotation(grid, layer=1, device=torch.device("cpu"), dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        q, k = (t.bfloat16() for t in qk(grid.num_tokens))
        rotated, _ = encoding.rotate(q, k, grid, layer=1)
    exact = torch.view_as_real(torch.view_as_complex(q.double().unflatten(-1, (-1, 2))) * torch.view_as_complex(wanted))
    assert (rotated.double() - exact.flatten(-2)).abs().max() < 0.02  # one rounding to bfloat16
    for cast in (encoding, copy.deepcopy(encoding).bfloat16()):
        narrow = cast.rotation(grid, layer=1, device=torch.device("cpu"), dtype=torch.bfloat16)
        assert narrow.dtype == torch.float32
        assert (narrow - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("spec", SPECS)
def test_gradients(spec: str) -> None:
    """Numerical gradients in float64, for the inputs and every parameter."""
    encoding, grid = make(spec).double(), Grid((3, 4), 1)
    q, k = (t[:1].double().requires_grad_() for t in qk(13))
    x = torch.randn(1, 12, DIM, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(HEADS, 13, 13, dtype=torch.float64)

    def objective(q: Tensor, k: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        tokens = torch.cat((x[:, :1], encoding.add(x, grid)), dim=1)
        moved = encoding.refine(tokens, grid, layer=0)
        return (logits(encoding, q, k, grid).tanh() * weight).sum() + moved.sin().sum()

    assert torch.autograd.gradcheck(objective, (q, k, x, *encoding.parameters()), fast_mode=True)


@pytest.mark.parametrize("spec", SPECS)
def test_every_layer_learns(spec: str) -> None:
    encoding, grid = make(spec), Grid((4, 5), 1)
    carried, total = encoding.carrying(grid, ()), torch.zeros((), requires_grad=True)
    for layer in range(2):
        q, k = qk(21)
        x = torch.randn(2, 21, DIM, requires_grad=True)
        x = torch.cat((x[:, :1], encoding.add(x[:, 1:], grid)), dim=1)
        x = encoding.inject(encoding.refine(x, grid, layer=layer), grid, layer=layer)
        mixed, seen = mix(encoding, q, k, grid, layer), logits(encoding, q, k, grid, layer, carried)
        total = total + seen.square().sum() + x.square().sum() + mixed.square().sum()
        if carried is not None:
            attended = encoding.value(q, grid, layer=layer, carried=carried)
            encoding.output(attended, grid, layer=layer, carried=carried)
            encoding.carry(x, grid, carried, layer=layer)
    total.backward()
    for key, parameter in encoding.named_parameters():
        assert parameter.grad.abs().sum() > 0, key
        if key.endswith("freqs"):
            assert (parameter.grad.abs().sum((0, 2, 3)) > 0).all()


@pytest.mark.parametrize("spec", SPECS)
def test_inference_mode_leaves_nothing_behind(spec: str) -> None:
    """Tables made in inference mode can be trained with later."""
    model = tiny_vit(spec)
    x = torch.randn(1, 3, 24, 20)
    with torch.inference_mode():
        wanted = model(x)
    out = model(x)
    torch.testing.assert_close(out, wanted.clone())
    out.sum().backward()


@pytest.mark.parametrize("spec", SPECS)
def test_changed_parameters_are_seen(spec: str) -> None:
    """Whatever way a parameter is changed, no stale table is used."""
    model = tiny_vit(spec)
    x = torch.randn(1, 3, 24, 20)
    with torch.no_grad():
        before = model(x)
        for p in model.pos_encoding.parameters():
            p.data.mul_(2)
        changed = list(model.pos_encoding.parameters()) != []
        assert torch.equal(model(x), before) != changed


@pytest.mark.parametrize("name", ENCODINGS)
def test_policies(name: str) -> None:
    """Every policy is the identity at the trained size, and none touches the state dict."""
    trained, other = torch.randn(1, 3, 24, 24), torch.randn(1, 3, 40, 16)
    # Of a quarter of a head a policy that leaves out a quarter of the pairs must find some.
    model = tiny_vit(name, **({"embed_dim": 64} if name in ("prope", "gta") else {}))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    outputs = {}
    with torch.no_grad():
        wanted = model(trained)
        for policy in visionpe.policies(model):
            visionpe.set_policy(model, policy)
            torch.testing.assert_close(model(trained), wanted, atol=1e-5, rtol=1e-5)
            outputs[policy] = model(other)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    for policy, output in outputs.items():  # and they do differ elsewhere
        assert all((output - o).abs().max() > 1e-5 for p, o in outputs.items() if p != policy), policy
