"""What an encoding must do whatever its formula when tokens move: shift, transpose, prefix tokens, shuffling."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import ENCODINGS, tiny_vit
from small_encodings import DIM, SPECS, logits, make, mix, qk, tokens_of
from torch import Tensor

from visionpe import Composition, Grid

TABLES = ["rpb", "attention_bias"]
VECTORS = ["shaw", "deberta"]
CLAMPED = ["rpb_axes", *VECTORS]
NETWORKS = ["cpb", "dpb", "fire"]
ROTARY = [
    "rope_axial",
    "rope_mixed",
    "rope_norm",
    "rope_golden",
    "rope_spiral",
    "rope_vjepa",
    "rope_mrope",
    "rope_raster",
    "harope",
    "string",
    "pope",
    "comrope",
    "prope",
    "gta",
    "tape",
]
RELATIVE = ["none", *ROTARY, "alibi", "kerple", "manhattan", "pape", "xl", *CLAMPED, "crse", *NETWORKS, *TABLES]
ABSOLUTE = ["ape", "sincos", "rays"]
# Tested with the others here, and by formulas of their own.
OWN = [
    "carope",
    "every_block",
    "liere",
    "cpe",
    "lepe",
    "lape",
    "abswin",
    "fourier",
    "seqpe",
    "irpe",
    "decomposed",
    "lookhere",
    "xcpe",
]
# These tell the axes apart by channel, head or digit.
UNEQUAL_AXES = [
    *(name for name in ROTARY if name not in ("rope_axial", "rope_mixed", "comrope", "tape")),
    "carope",
    "lookhere",
    "seqpe",
]
COORDINATES = [name for name in ENCODINGS if name in RELATIVE + ABSOLUTE and name != "none"]


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
        extent = (6, 10) if name in TABLES + CLAMPED else (3, 5)
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
        if name == "rpb_axes":
            part.table.copy_(part.table.flip(1))
        if name == "xcpe":
            for each in part.layers:
                kernel = each.conv.kernel
                kernel.copy_(kernel.unflatten(0, (3, 3)).transpose(0, 1).flatten(0, 1).clone())
        if name == "cpe":
            part.convs[0].weight.copy_(part.convs[0].weight.transpose(-1, -2).clone())
        if name == "lepe":
            for conv in part.convs:
                conv.weight.copy_(conv.weight.transpose(-1, -2).clone())
        if name == "rays":
            part.fc1.weight.copy_(part.fc1.weight[:, [1, 0, 2, 4, 3, 5]])
        if name == "xl":
            part.weight.copy_(part.weight.flip(2))
        if name == "shaw":
            part.k_table.copy_(part.k_table.flip(1))
        if name == "deberta":
            part.table.copy_(part.table.flip(0))
        if name == "pape":
            part.position.copy_(part.position.flip(-1))
        if name == "fourier":
            part.frequencies.copy_(part.frequencies.flip(1))
        if name == "liere":
            part.generators.copy_(part.generators.flip(0))
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
    if name == "every_block":
        for each in part.tables:
            each.table = torch.nn.Parameter(each.table.transpose(0, 1))
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
    if name in ("rope_axial", "tape"):  # the first half of the channels turns with the column
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
    rotated_q, rotated_k = encoding.rotate(q, k, grid, layer=1, tokens=tokens_of(q))
    if spec in ("harope", "string"):  # there they change their basis, in which they meet as before
        wanted = q[:, :, :prefix] @ k[:, :, :prefix].mT
        torch.testing.assert_close((rotated_q @ rotated_k.mT)[:, :, :prefix, :prefix], wanted, atol=1e-3, rtol=1e-3)
        return
    if spec == "pope":  # their sizes alone, at the angle 0
        sizes = torch.nn.functional.softplus(q[:, :, :prefix])
        wanted = torch.stack((sizes, torch.zeros_like(sizes)), dim=-1).flatten(-2)
        torch.testing.assert_close(rotated_q[:, :, :prefix], wanted)
        return
    assert torch.equal(rotated_q[:, :, :prefix], q[:, :, :prefix])
    assert torch.equal(rotated_k[:, :, :prefix], k[:, :, :prefix])
    for bias in encoding.bias(q, k, grid, tokens=tokens_of(q)):
        matrix = bias.matrix(q.dtype)
        assert matrix.shape[-2:] == (grid.num_tokens, grid.num_tokens)
        if spec == "irpe":  # as published, one bucket serves every pair with a prefix token
            continue
        if spec == "xl":  # one number for every key, whoever asks
            assert (matrix[..., :prefix, :] == matrix[..., :1, :]).all()
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


def test_same_token_count_in_another_shape() -> None:
    """4 x 9 has the tokens of 6 x 6: the positions are those of the new shape."""
    for name in ("ape", "sincos", "rope_axial", "rope_mixed", "alibi", "cpe"):
        encoding = make(name)
        x, (q, k) = torch.randn(1, 36, DIM), qk(36)
        square, flat = Grid((6, 6)), Grid((4, 9))
        moved = [encoding.refine(encoding.add(x, g), g) for g in (square, flat)]
        seen = [logits(encoding, q, k, g) for g in (square, flat)]
        assert (moved[0] - moved[1]).abs().max() + (seen[0] - seen[1]).abs().max() > 0.1
