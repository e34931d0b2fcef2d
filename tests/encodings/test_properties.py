"""What an encoding must do whatever its formula: shift, transpose, prefix tokens, shuffling, dtype, gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import ENCODINGS, randomize, tiny_spec, tiny_vit
from torch import Tensor

import visionpe
from visionpe import Composition, Grid, create_encoding
from visionpe.attention.dispatch import AttentionWeights

DIM, HEADS, HEAD_DIM = 32, 2, 16
TABLES = ["rpb", "attention_bias"]
NETWORKS = ["cpb", "dpb", "fire"]
ROTARY = ["rope_axial", "rope_mixed", "rope_norm", "comrope"]
RELATIVE = ["none", *ROTARY, "alibi", "kerple", "manhattan", "crse", *NETWORKS, *TABLES]
ABSOLUTE = ["ape", "sincos"]
# Tested with the others here, and by formulas of their own.
OWN = ["cpe", "lepe", "lape", "abswin", "fourier", "seqpe", "irpe", "decomposed", "lookhere"]
# These tell the axes apart by channel, head or digit.
UNEQUAL_AXES = ["rope_norm", "lookhere", "seqpe"]
COORDINATES = [name for name in ENCODINGS if name in RELATIVE + ABSOLUTE and name != "none"]
SPECS = [*ENCODINGS, "rope_mixed+ape", "alibi+rope_axial+cpe", "rpb+kerple"]


def make(spec: object, grid_size: tuple[int, ...] = (6, 6), **options: object) -> Composition:
    encoding = create_encoding(tiny_spec(spec), dim=DIM, num_heads=HEADS, depth=2, grid_size=grid_size, **options)
    encoding = encoding if isinstance(encoding, Composition) else Composition([encoding])
    return randomize(encoding)


def logits(encoding: Composition, q: Tensor, k: Tensor, grid: Grid, layer: int = 1) -> Tensor:
    """What the softmax would see, unscaled."""
    rotated_q, rotated_k = encoding.rotate(q, k, grid, layer=layer)
    total = rotated_q @ rotated_k.transpose(-2, -1)
    for bias in encoding.bias(q, k, grid, layer=layer):
        total = total + bias.matrix(q.dtype)
    return total


def mix(encoding: Composition, attended: Tensor, v: Tensor, grid: Grid, layer: int = 0) -> Tensor:
    """The site, with weights of some queries and keys."""
    weights = AttentionWeights(attended, v, encoding.bias(attended, v, grid, layer=layer))
    return encoding.mix(attended, v, grid, layer=layer, weights=weights)


def qk(tokens: int) -> tuple[Tensor, Tensor]:
    return torch.randn(2, HEADS, tokens, HEAD_DIM), torch.randn(2, HEADS, tokens, HEAD_DIM)


def test_all_encodings_are_listed_here() -> None:
    assert set(RELATIVE + ABSOLUTE + OWN) == set(ENCODINGS)


@pytest.mark.parametrize("name", RELATIVE)
@pytest.mark.parametrize("prefix", [0, 3])
def test_shift_changes_nothing(name: str, prefix: int) -> None:
    encoding, (q, k) = make(name), qk(15 + prefix)
    here = Grid((3, 5)).positions()
    there = here + torch.tensor([7.0, -4.0])
    a, b = (logits(encoding, q, k, Grid((3, 5), prefix, coords=c))[..., prefix:, prefix:] for c in (here, there))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    if name != "none":
        extent = (6, 10) if name in TABLES else (3, 5)
        stretched = logits(encoding, q, k, Grid(extent, prefix, coords=2 * here))[..., prefix:, prefix:]
        assert (a - stretched).abs().max() > 0.1


@pytest.mark.parametrize("name", COORDINATES)
@pytest.mark.parametrize("prefix", [0, 2])
def test_full_grid_equals_its_coordinates(name: str, prefix: int) -> None:
    encoding, (q, k) = make(name), qk(28 + prefix)
    dense, listed = Grid((4, 7), prefix), Grid((4, 7), prefix, coords=Grid((4, 7)).positions())
    for policy in encoding[name].policies:
        encoding[name].set_policy(policy)
        torch.testing.assert_close(logits(encoding, q, k, dense), logits(encoding, q, k, listed), atol=1e-5, rtol=1e-5)
        x = torch.randn(2, 28, DIM)
        torch.testing.assert_close(encoding.add(x, dense), encoding.add(x, listed))


@pytest.mark.parametrize("name", [name for name in RELATIVE if name != "none"])
def test_coordinates_of_each_sample(name: str) -> None:
    """Coordinates may differ from sample to sample."""
    encoding, (q, k) = make(name), qk(12)
    coords = torch.randint(0, 6, (2, 12, 2)).float()
    together = logits(encoding, q, k, Grid((6, 6), coords=coords))
    for i in range(2):
        alone = logits(encoding, q[i : i + 1], k[i : i + 1], Grid((6, 6), coords=coords[i]))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def transposed(name: str, encoding: Composition) -> Composition:
    """The encoding in a world whose axes are swapped: parameters change places, fixed formulas stay."""
    other = copy.deepcopy(encoding)
    part = other[name]
    part.grid_size = part.grid_size[::-1]
    with torch.no_grad():
        if name == "rope_mixed":
            part.freqs.copy_(part.freqs.flip(0))
        if name == "cpe":
            part.proj[0].weight.copy_(part.proj[0].weight.transpose(-1, -2).clone())
        if name == "lepe":
            for conv in part.proj:
                conv.weight.copy_(conv.weight.transpose(-1, -2).clone())
        if name == "fourier":
            part.frequencies.copy_(part.frequencies.flip(1))
        if name == "comrope":
            part.multiplier.copy_(part.multiplier.flip(1))
        if name == "irpe":  # product of a row and a column bucket, and one more
            pairs = part.k_table[..., :-1].unflatten(-1, (7, 7)).transpose(-1, -2).flatten(-2)
            part.k_table[..., :-1] = pairs
        if name in ("cpb", "dpb"):
            for mlp in part.mlp:
                mlp[0].weight.copy_(mlp[0].weight.flip(1))
    if name == "crse":
        for table in part.parameters():
            table.data = table.flip(1)
    if name in ("ape", "abswin"):
        part.table = torch.nn.Parameter(part.table.transpose(0, 1))
    if name == "abswin":
        part.window_table = torch.nn.Parameter(part.window_table.transpose(0, 1))
    if name == "lape":
        part.over.table = torch.nn.Parameter(part.over.table.transpose(0, 1))
    if name == "decomposed":
        part.height_table, part.width_table = part.width_table, part.height_table
    if name in TABLES:
        part.table = torch.nn.Parameter(part.table.transpose(-1, -2))
    return other


def halves_swapped(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)


@pytest.mark.parametrize("name", [name for name in ENCODINGS if name not in UNEQUAL_AXES])
@pytest.mark.parametrize("policy", [0, -1])
def test_axes_swapped(name: str, policy: int) -> None:
    """Swap the axes of the input and the output's are swapped."""
    encoding = make(name, grid_size=(4, 6))
    if encoding[name].policies:
        encoding[name].set_policy(encoding[name].policies[policy])
    other = transposed(name, encoding)
    size = (3, 5)
    upright, lying = Grid(size), Grid(size[::-1])
    order = torch.arange(15).view(size).T.flatten()  # where the tokens of the lying grid stand in the upright one

    x = torch.randn(2, 15, DIM)
    moved, moved_lying = encoding.add(x, upright) - x, other.add(x[:, order], lying) - x[:, order]
    if name == "sincos":  # column channels come first
        moved = halves_swapped(moved)
    torch.testing.assert_close(moved[:, order], moved_lying, atol=1e-5, rtol=1e-5)
    for site in ("refine", "inject"):
        refined, refined_lying = getattr(encoding, site)(x, upright), getattr(other, site)(x[:, order], lying)
        torch.testing.assert_close(refined[:, order], refined_lying, atol=1e-5, rtol=1e-5)

    q, k = qk(15)
    q_lying, k_lying = q[:, :, order], k[:, :, order]
    if name == "rope_axial":  # the first half of the channels turns with the column
        q_lying, k_lying = halves_swapped(q_lying), halves_swapped(k_lying)
    attended, v = qk(15)
    if name not in ("irpe",):  # of its values elsewhere
        mixed, mixed_lying = (
            mix(encoding, attended, v, upright),
            mix(other, attended[:, :, order], v[:, :, order], lying),
        )
        torch.testing.assert_close(mixed[:, :, order], mixed_lying, atol=1e-5, rtol=1e-5)
    wanted = logits(encoding, q, k, upright)[:, :, order][..., order]
    torch.testing.assert_close(logits(other, q_lying, k_lying, lying), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("prefix", [1, 5])
def test_prefix_tokens_have_no_position(spec: str, prefix: int) -> None:
    encoding, (q, k), grid = make(spec), qk(20 + prefix), Grid((4, 5), prefix)
    rotated_q, rotated_k = encoding.rotate(q, k, grid, layer=1)
    assert torch.equal(rotated_q[:, :, :prefix], q[:, :, :prefix])
    assert torch.equal(rotated_k[:, :, :prefix], k[:, :, :prefix])
    for bias in encoding.bias(q, k, grid):
        matrix = bias.matrix(q.dtype)
        assert matrix.shape[-2:] == (grid.num_tokens, grid.num_tokens)
        if spec == "irpe":  # as published, one bucket serves every pair with a prefix token
            continue
        assert not matrix[..., :prefix, :].any()
        assert not matrix[..., :prefix].any()
    if spec != "irpe":
        assert torch.equal(mix(encoding, q, k, grid)[:, :, :prefix], q[:, :, :prefix])
    x = torch.randn(2, 20 + prefix, DIM)
    assert torch.equal(encoding.refine(x, grid)[:, :prefix], x[:, :prefix])
    # what prefix tokens hold changes nothing for the others
    y = x.clone()
    y[:, :prefix] += 1
    assert torch.equal(encoding.refine(x, grid)[:, prefix:], encoding.refine(y, grid)[:, prefix:])


@pytest.mark.parametrize("spec", SPECS)
def test_shuffled_patches(spec: str) -> None:
    """Shuffle the patches: the outputs are shuffled alike without positions, and otherwise with them."""
    model = tiny_vit(spec)
    order = torch.randperm(36)
    x = torch.randn(1, 3, 24, 24)
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4).reshape(1, 3, 36, 4, 4)[:, :, order]
    y = patches.view(1, 3, 6, 6, 4, 4).transpose(3, 4).reshape(1, 3, 24, 24)
    with torch.no_grad():
        a, b = model.forward_features(x), model.forward_features(y)
    difference = (a[:, 1:][:, order] - b[:, 1:]).abs().max()
    assert difference < 1e-4 if spec == "none" else difference > 1e-2


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_is_kept_and_close(spec: str, dtype: torch.dtype) -> None:
    encoding, grid = make(spec), Grid((32, 48), 1)
    q, k = qk(grid.num_tokens)
    x = torch.randn(2, grid.num_spatial, DIM)
    wanted = encoding.add(x, grid), *encoding.rotate(q, k, grid)
    encoding = copy.deepcopy(encoding).to(dtype)
    got = encoding.add(x.to(dtype), grid), *encoding.rotate(q.to(dtype), k.to(dtype), grid)
    for a, b in zip(got, wanted):
        assert a.dtype == dtype
        assert (a.float() - b).norm() / b.norm() < 0.01
    assert encoding.refine(torch.randn(1, grid.num_tokens, DIM, dtype=dtype), grid).dtype == dtype


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
    for layer in range(2):
        q, k = qk(21)
        x = torch.randn(2, 21, DIM, requires_grad=True)
        x = torch.cat((x[:, :1], encoding.add(x[:, 1:], grid)), dim=1)
        x = encoding.inject(encoding.refine(x, grid, layer=layer), grid, layer=layer)
        mixed, seen = mix(encoding, q, k, grid, layer), logits(encoding, q, k, grid, layer)
        (seen.square().sum() + x.square().sum() + mixed.square().sum()).backward()
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
    model = tiny_vit(name)
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


def test_same_token_count_in_another_shape() -> None:
    """4 x 9 has the tokens of 6 x 6: the positions are those of the new shape."""
    for name in ("ape", "sincos", "rope_axial", "rope_mixed", "alibi", "cpe"):
        encoding = make(name)
        x, (q, k) = torch.randn(1, 36, DIM), qk(36)
        square, flat = Grid((6, 6)), Grid((4, 9))
        moved = [encoding.refine(encoding.add(x, g), g) for g in (square, flat)]
        seen = [logits(encoding, q, k, g) for g in (square, flat)]
        assert (moved[0] - moved[1]).abs().max() + (seen[0] - seen[1]).abs().max() > 0.1
