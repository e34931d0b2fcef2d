"""ComRoPE against its published code, in both forms."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from zoo_checks import check_compile, check_export

from visionpe import Grid, attend, create_encoding
from visionpe.policy.functions import effective_length

REFERENCE = Path(__file__).parents[1] / "reference"
FORMS = ["ld", "ap"]
RUNS = [("native", (6, 6)), ("larger", (8, 8))]


def make(form: str = "ld", size: tuple[int, ...] = (6, 6), depth: int = 2, **options: object) -> torch.nn.Module:
    return create_encoding(
        {"name": "comrope", "form": form, **options}, dim=32, num_heads=2, depth=depth, grid_size=size
    )


def published(form: str) -> tuple[torch.nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    """The encoding with the published weights, those of the model, and the recorded numbers."""
    data = load_file(REFERENCE / f"comrope_{form}.safetensors")
    state = {k[len("model.vision_model.") :]: v for k, v in data.items() if k.startswith("model.vision_model.")}
    encoding = make(form, prefix_position=0.5)
    with torch.no_grad():
        for layer in range(2):
            attn = f"encoder.layers.{layer}.self_attn"
            encoding.generators[layer].copy_(state[f"{attn}.freqs"][:, 0])
            if form == "ld":
                encoding.multiplier[layer].copy_(state[f"{attn}.multiplier"][0, :, :, 0, 0])
    return encoding, state, data


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("run", "size"), RUNS)
def test_rotations_of_the_official_code(form: str, run: str, size: tuple[int, int]) -> None:
    encoding, _, data = published(form)
    rotation = encoding.rotation(Grid(size, 1), layer=0, device=torch.device("cpu"), dtype=torch.float32)
    full = torch.stack([torch.stack([torch.block_diag(*token) for token in head[:5]]) for head in rotation], dim=1)
    for wanted in data[f"output.{run}.rotation0_first5"]:
        torch.testing.assert_close(full, wanted, atol=1e-5, rtol=1e-6)
    listed = Grid(size, 1, coords=data[f"input.{run}.positions"][0, 1:] * size[0] - 0.5)
    again = encoding.rotation(listed, layer=0, device=torch.device("cpu"), dtype=torch.float32)
    torch.testing.assert_close(again, rotation, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("run", "size"), RUNS)
def test_blocks_of_the_official_code(form: str, run: str, size: tuple[int, int]) -> None:
    """The whole encoder by hand around our rotation: the first attention, and the output of all blocks."""
    encoding, state, data = published(form)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (32,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    with torch.no_grad():
        x = norm(data[f"output.{run}.embeddings"], "pre_layrnorm")
        for layer in range(2):
            block = f"encoder.layers.{layer}"
            tokens = norm(x, f"{block}.layer_norm1")
            q, k, v = (
                linear(tokens, f"{block}.self_attn.{p}_proj").unflatten(-1, (2, 16)).transpose(1, 2) for p in "qkv"
            )
            q, k = encoding.rotate(q, k, Grid(size, 1), layer=layer)
            attended = linear(attend(q, k, v).transpose(1, 2).flatten(2), f"{block}.self_attn.out_proj")
            if layer == 0:
                torch.testing.assert_close(attended, data[f"output.{run}.attn0"], atol=1e-5, rtol=1e-6)
            x = x + attended
            hidden = linear(norm(x, f"{block}.layer_norm2"), f"{block}.mlp.fc1")
            x = x + linear(hidden * (1.702 * hidden).sigmoid(), f"{block}.mlp.fc2")
    torch.testing.assert_close(x, data[f"output.{run}.last_hidden"], atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(4, 7), (9, 5), (3, 3), (2, 3, 4)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_by_hand(form: str, size: tuple[int, ...], prefix: int) -> None:
    """One exponential of the sum, for some tokens; prefix tokens stay to the last bit."""
    encoding, grid = make(form, size), Grid(size, prefix)
    q, k = torch.randn(2, 2, 2, grid.num_tokens, 16)
    rotated = encoding.rotate(q, k, grid, layer=1)
    sides = size if len(size) == 2 else (size[1], *size[1:])
    for got, x in zip(rotated, (q, k)):
        assert torch.equal(got[:, :, :prefix], x[:, :, :prefix])
        for token in (0, 4, grid.num_spatial - 1):
            place = (grid.positions()[token] + 0.5) / torch.tensor(sides)
            for head, block in ((0, 0), (1, 3), (1, 2)):
                p = encoding.generators[1, head, block]
                share = encoding.multiplier[1, :, block] if form == "ld" else torch.eye(len(size))[block % len(size)]
                r = torch.linalg.matrix_exp((place * share).sum() * (p - p.T))
                channels = slice(4 * block, 4 * block + 4)
                wanted = x[:, head, prefix + token, channels] @ r.T
                torch.testing.assert_close(got[:, head, prefix + token, channels], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_relative_and_orthogonal(form: str) -> None:
    encoding, here = make(form), Grid((3, 5)).positions()
    q, k = torch.randn(2, 2, 2, 15, 16)

    def logits(coords: Tensor) -> Tensor:
        a, b = encoding.rotate(q, k, Grid((3, 5), coords=coords), layer=1)
        torch.testing.assert_close(a.norm(dim=-1), q.norm(dim=-1), atol=1e-4, rtol=1e-5)
        return a @ b.mT

    torch.testing.assert_close(logits(here), logits(here + torch.tensor([7.0, -4.0])), atol=1e-4, rtol=1e-4)
    assert (logits(here) - logits(2 * here)).abs().max() > 0.1
    each = torch.stack((here, 2 * here))
    together = logits(each)
    for i in range(2):
        torch.testing.assert_close(together[i], logits(each[i])[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_policies(form: str) -> None:
    encoding = make(form, (4, 6))
    for size in ((4, 6), (3, 9)):
        for policy in encoding.policies:
            encoding.set_policy(policy)
            sides = [effective_length(m, n, policy) for m, n in zip((4, 6), size)]
            rows, columns = encoding.coordinates(Grid(size), torch.device("cpu"), torch.float32)
            torch.testing.assert_close(rows, (torch.arange(size[0]) + 0.5) / sides[0])
            torch.testing.assert_close(columns, (torch.arange(size[1]) + 0.5) / sides[1])
    assert encoding.policies == ("interpolate", "extrapolate", "rescale")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix_position", [None, 0.5])
def test_gradients(form: str, prefix_position: float | None) -> None:
    encoding, grid = make(form, depth=1, prefix_position=prefix_position).double(), Grid((3, 4), 1)
    q, k = torch.randn(2, 1, 2, 13, 16, dtype=torch.float64).requires_grad_().unbind()

    def objective(q: Tensor, k: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        return encoding.rotate(q, k, grid)

    leaves = (q.detach().requires_grad_(), k.detach().requires_grad_(), *encoding.parameters())
    assert torch.autograd.gradcheck(objective, leaves, fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision(form: str) -> None:
    """Angles stay in float32 when the model or the region is bfloat16."""
    encoding, grid = make(form), Grid((8, 12), 1)
    q, k = torch.randn(2, 1, 2, 97, 16).bfloat16()
    wanted = encoding.rotate(q.float(), k.float(), grid)[0]
    narrow = copy.deepcopy(encoding).bfloat16()
    assert narrow.generators.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = encoding.rotate(q, k, grid)[0]
    for got in (narrow.rotate(q, k, grid)[0], under_autocast):
        assert got.dtype == torch.bfloat16
        assert (got.float() - wanted).abs().max() < 0.02  # one rounding


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_export_and_compile(form: str) -> None:
    spec = {"name": "comrope", "form": form}
    check_export(spec)
    check_compile(spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "lie"}, "form='lie' is unknown; allowed: ld, ap"),
        ({"block_size": 3}, "block_size=3 must be 2 or more and divide head dimension 16"),
        ({"form": "ap", "block_size": 16}, "block_size=16 leaves 1 blocks for 2 axes"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize("size", [(6, 6), (4, 9), (11, 2)])
def test_a_table_that_is_read_by_rows(size: tuple[int, int]) -> None:
    """As published: sampled at (centre, row), whichever the column, from corner to corner; and at listed places."""
    ape = create_encoding({"name": "ape", "sampling": "rows"}, dim=8, num_heads=2, grid_size=(5, 6))
    grid = Grid(size)
    rows = (grid.positions()[:, 0] + 0.5) / size[0] * 2 - 1
    places = torch.stack((torch.zeros_like(rows), rows), dim=-1)[None, None]  # x, y
    wanted = F.grid_sample(ape.table.permute(2, 0, 1)[None], places, align_corners=True, padding_mode="border")[
        0, :, 0
    ].T
    for where in (grid, Grid(size, coords=grid.positions())):
        torch.testing.assert_close(ape.add(torch.zeros(1, len(rows), 8), where)[0], wanted, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="policy='bicubic' is unknown to 'ape'; allowed: none"):
        create_encoding({"name": "ape", "sampling": "rows", "policy": "bicubic"}, dim=8, num_heads=2)
    with pytest.raises(ValueError, match="sampling='columns' is unknown; allowed: grid, rows"):
        create_encoding({"name": "ape", "sampling": "columns"}, dim=8, num_heads=2)
