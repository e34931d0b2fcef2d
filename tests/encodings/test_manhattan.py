"""Manhattan decay against RMT's and its formula."""

from __future__ import annotations

from math import log
from pathlib import Path

import pytest
import torch
from conftest import tiny_vit
from safetensors.torch import load_file
from torch import Tensor
from torch.export import Dim

from visionpe import Grid, OffsetBias, create_encoding

REFERENCE = Path(__file__).parents[1] / "reference"


def make(heads: int = 2, size: tuple[int, ...] = (6, 6), **options: object) -> torch.nn.Module:
    return create_encoding({"name": "manhattan", **options}, dim=heads * 8, num_heads=heads, grid_size=size)


def matrix(encoding: torch.nn.Module, grid: Grid) -> Tensor:
    q = torch.zeros(1, encoding.num_heads, grid.num_tokens, 8)
    return encoding.bias(q, q, grid).matrix(torch.float32)[0]


@pytest.mark.parametrize(("stage", "heads", "decay_range"), [(0, 2, 4), (1, 2, 4), (2, 2, 6), (3, 4, 6)])
def test_decays_of_rmt(stage: int, heads: int, decay_range: float) -> None:
    wanted = load_file(REFERENCE / "rmt.safetensors")[f"model.layers.{stage}.Relpos.decay"]
    got = torch.tensor(make(heads, decay_range=decay_range).decays())
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("size", [(4, 7), (9, 5), (3, 3)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_by_hand(size: tuple[int, int], prefix: int) -> None:
    got = matrix(make(3, init_value=1.5, decay_range=3.0), Grid(size, prefix))
    assert not got[:, :prefix].any()
    assert not got[..., :prefix].any()
    got, width = got[:, prefix:, prefix:], size[1]
    for i in range(len(got[0])):
        for j in range(len(got[0])):
            steps = abs(i // width - j // width) + abs(i % width - j % width)
            wanted = [steps * log(1 - 2 ** (-1.5 - 3 * head / 3)) for head in range(3)]
            assert got[:, i, j].tolist() == pytest.approx(wanted, rel=1e-5)


def test_policies_and_coordinates() -> None:
    encoding, grid = make(policy="interpolate"), Grid((3, 12))
    decay = encoding.decays()[1]
    got = matrix(encoding, grid)
    assert got[1, 0, 1].item() == pytest.approx(0.5 * decay)  # a column is half a trained token
    assert got[1, 0, 12].item() == pytest.approx(2 * decay)  # a row is two
    for policy in encoding.policies:
        encoding.set_policy(policy)
        listed = Grid((3, 12), coords=grid.positions() + torch.tensor([3.0, -8.0]))  # relative
        torch.testing.assert_close(matrix(encoding, listed), matrix(encoding, grid), atol=1e-5, rtol=1e-5)
    assert encoding.policies[0] == "extrapolate"
    assert matrix(make(size=(2, 3, 4)), Grid((2, 3, 4)))[0, 0, 23].item() == pytest.approx(6 * encoding.decays()[0])


def test_structure() -> None:
    q = torch.zeros(1, 2, 36, 8)
    assert isinstance(make().bias(q, q, Grid((6, 6))), OffsetBias)
    assert not list(make().parameters())


def test_export_and_compile() -> None:
    model = tiny_vit("manhattan")
    shapes = ({2: 4 * Dim("height", min=1, max=32), 3: 4 * Dim("width", min=1, max=32)},)
    program = torch.export.export(model, (torch.randn(1, 3, 24, 40),), dynamic_shapes=shapes)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for size in ((24, 40), (24, 24), (8, 16)):
        x = torch.randn(1, 3, *size)
        wanted = model(x)
        torch.testing.assert_close(program.module()(x), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(compiled(x), wanted, atol=1e-5, rtol=1e-5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="init_value=0 must be positive"):
        make(init_value=0)
    with pytest.raises(ValueError, match=r"decay_range=-1 must be 0 or more"):
        make(decay_range=-1)
