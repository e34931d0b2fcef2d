"""Biases that depend on the offset alone, against timm, the official code and their formulas."""

from __future__ import annotations

from math import hypot, log1p
from pathlib import Path

import pytest
import timm
import torch
from conftest import tiny_spec
from safetensors.torch import load_file
from timm.layers import RelPosBias
from timm.models.levit import Attention as LevitAttention
from timm.models.swin_transformer_v2 import WindowAttention
from timm.models.swin_transformer_v2_cr import WindowMultiHeadAttention
from torch import Tensor, nn
from zoo_checks import check_compile, check_export

from visionpe import Grid, OffsetBias, create_encoding

REFERENCE = Path(__file__).parents[1] / "reference"
SIZES = [(3, 5), (6, 4)]
NAMES = ["rpb", "attention_bias", "cpb", "dpb", "kerple", "fire", "alibi"]


def make(name: str, size: tuple[int, int], heads: int = 2, dim: int = 32, **options: object) -> nn.Module:
    encoding = create_encoding({"name": name, **options}, dim=dim, num_heads=heads, depth=2, grid_size=size)
    for parameter in encoding.parameters():
        if "table" in str(type(encoding).__name__) or parameter.ndim > 2:
            nn.init.normal_(parameter)
    return encoding


def matrix(encoding: nn.Module, grid: Grid, layer: int = 0) -> Tensor:
    q = torch.zeros(1, encoding.num_heads, grid.num_tokens, encoding.head_dim)
    bias = encoding.bias(q, q, grid, layer=layer)
    return bias.matrix(torch.float32)[0].detach()  # (heads, N, N)


@pytest.mark.parametrize("size", SIZES)
def test_rpb_against_timm(size: tuple[int, int]) -> None:
    theirs, ours = RelPosBias(size, num_heads=2), make("rpb", size)
    nn.init.normal_(theirs.relative_position_bias_table)
    table = theirs.relative_position_bias_table.T.unflatten(1, (2 * size[0] - 1, 2 * size[1] - 1))
    with torch.no_grad():
        ours.table[1].copy_(table)
    torch.testing.assert_close(matrix(ours, Grid(size), 1), theirs.get_bias()[0].detach())


@pytest.mark.parametrize("size", SIZES)
def test_cpb_against_timm(size: tuple[int, int]) -> None:
    theirs, ours = WindowAttention(32, window_size=size, num_heads=2), make("cpb", size)
    for parameter in theirs.cpb_mlp.parameters():
        nn.init.normal_(parameter)
    state = theirs.cpb_mlp.state_dict()
    ours.mlp[1].load_state_dict({k: v for k, v in state.items() if k in ours.mlp[1].state_dict()})
    raw = theirs.cpb_mlp(theirs.relative_coords_table).view(-1, 2)
    n = size[0] * size[1]
    wanted = 16 * raw[theirs.relative_position_index.view(-1)].view(n, n, 2).permute(2, 0, 1).sigmoid()
    torch.testing.assert_close(matrix(ours, Grid(size), 1), wanted.detach(), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_raw_cpb_against_timm(size: tuple[int, int]) -> None:
    theirs = WindowMultiHeadAttention(32, num_heads=2, window_size=size).eval()
    ours = make("cpb", size, form="raw", hidden=384, dropout=0.125).eval()
    layers = {"fc1": "0", "fc2": "2"}
    for parameter in theirs.meta_mlp.parameters():
        nn.init.normal_(parameter)
    state = {f"{layers[key[:3]]}{key[3:]}": value for key, value in theirs.meta_mlp.state_dict().items()}
    ours.mlp[1].load_state_dict(state)
    wanted = theirs._relative_positional_encodings()[0].detach()
    torch.testing.assert_close(matrix(ours, Grid(size), 1), wanted, atol=1e-4, rtol=1e-5)
    larger = matrix(ours, Grid((2 * size[0], 2 * size[1])), 1)[:, 0, 1]
    torch.testing.assert_close(larger, wanted[:, 0, 1], atol=1e-4, rtol=1e-5)  # one token on, whatever the size
    ours.train()
    assert not torch.equal(matrix(ours, Grid(size), 1), matrix(ours, Grid(size), 1))


@pytest.mark.parametrize("size", SIZES)
def test_attention_bias_against_timm(size: tuple[int, int]) -> None:
    theirs, ours = LevitAttention(32, key_dim=16, num_heads=2, resolution=size), make("attention_bias", size)
    nn.init.normal_(theirs.attention_biases)
    with torch.no_grad():
        ours.table[1].copy_(theirs.attention_biases.unflatten(1, size))
    wanted = theirs.attention_biases[:, theirs.attention_bias_idxs]
    torch.testing.assert_close(matrix(ours, Grid(size), 1), wanted.detach())


def test_dpb_against_crossformer() -> None:
    file = load_file(REFERENCE / "crossformer_dpb.safetensors")
    ours = make("dpb", (4, 4), heads=2, dim=48)
    names = ["pos_proj", "pos1.0", "pos1.2", "pos2.0", "pos2.2", "pos3.0", "pos3.2"]
    modules = [m for m in ours.mlp[0] if not isinstance(m, nn.ReLU)]
    for module, name in zip(modules, names):
        module.load_state_dict({k: file[f"{name}.{k}"] for k in ("weight", "bias")})
    wanted = file["output"]  # (offsets, heads)
    table = ours._table(Grid((4, 4)), 0, torch.device("cpu"), torch.float32)  # (heads, 7, 7)
    torch.testing.assert_close(table.flatten(1).T, wanted, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("kernel", ["log", "power"])
def test_kerple_by_hand(kernel: str) -> None:
    ours = make("kerple", (4, 4), kernel=kernel)
    got = matrix(ours, Grid((3, 5)), 1)
    for head in range(2):
        r1, r2 = ours.r1[1, head].item(), ours.r2[1, head].item()
        for i, j in ((0, 0), (0, 14), (3, 11), (14, 2)):
            d = hypot(i // 5 - j // 5, i % 5 - j % 5)
            wanted = -r1 * log1p(r2 * d) if kernel == "log" else -r1 * d**r2
            assert got[head, i, j].item() == pytest.approx(wanted, abs=1e-5)


def test_fire_by_hand() -> None:
    ours = make("fire", (4, 4))
    for size in ((3, 5), (9, 7)):  # below and above the threshold
        got, width = matrix(ours, Grid(size), 1), size[1]
        reach = max(hypot(3, 3), hypot(size[0] - 1, size[1] - 1))
        for i, j in ((0, 0), (1, 13), (14, 2)):
            d = hypot(i // width - j // width, i % width - j % width)
            x = log1p(0.1 * d) / log1p(0.1 * reach)
            wanted = ours.mlp[1](torch.tensor([[x]]))[0]
            torch.testing.assert_close(got[:, i, j], wanted.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_full_grid_equals_its_coordinates(name: str, prefix: int) -> None:
    ours = make(name, (4, 4))
    for policy in ours.policies:
        ours.set_policy(policy)
        for size in ((4, 4), (3, 6)):
            dense, listed = Grid(size, prefix), Grid(size, prefix, coords=Grid(size).positions())
            a, b = matrix(ours, dense, 1), matrix(ours, listed, 1)
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
            assert not a[:, :prefix].any()
            assert not a[..., :prefix].any()


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_linear_in_the_tokens(name: str) -> None:
    """What is computed per offset is a table of four times the tokens, not of their square."""
    ours = make(name, (4, 4))
    q = torch.zeros(1, 2, 64 * 64, 16)
    bias = ours.bias(q, q, Grid((64, 64)))
    assert isinstance(bias, OffsetBias)
    assert bias.table.shape == (2, 127, 127)
    assert bias.rows(5, 9, torch.float32).shape == (1, 2, 4, 4096)


@pytest.mark.parametrize("name", ["rpb", "attention_bias"])
def test_tables_resize(name: str) -> None:
    small, large = make(name, (4, 4)), make(name, (7, 5))
    nn.init.normal_(small.table)
    large.load_state_dict(small.state_dict())
    torch.testing.assert_close(matrix(large, Grid((7, 5)), 1), matrix(small, Grid((7, 5)), 1), atol=1e-5, rtol=1e-5)
    before = matrix(small, Grid((6, 9)), 1)
    small.set_input_grid((6, 9))
    torch.testing.assert_close(matrix(small, Grid((6, 9)), 1), before, atol=1e-5, rtol=1e-5)


def test_attention_bias_stays_symmetric() -> None:
    ours = make("attention_bias", (4, 4))
    nn.init.normal_(ours.table)
    got = matrix(ours, Grid((6, 5)), 1)
    torch.testing.assert_close(got, got.transpose(1, 2))


def test_cpb_policies() -> None:
    """At twice the side: beyond the trained range, or squeezed into it."""
    ours = make("cpb", (4, 4))
    native = matrix(ours, Grid((4, 4)))
    ours.set_policy("interpolate")
    assert torch.equal(matrix(ours, Grid((4, 4))), native)
    torch.testing.assert_close(matrix(ours, Grid((7, 7)))[:, 0, -1], native[:, 0, -1])  # corner to corner
    ours.set_policy("extrapolate")
    torch.testing.assert_close(matrix(ours, Grid((7, 7)))[:, 0, 1], native[:, 0, 1])  # one token on


def test_rpb_gain() -> None:
    ours = make("rpb", (4, 4), gain=10.0)
    torch.testing.assert_close(matrix(ours, Grid((4, 4)))[:, 0, 0], 10 * ours.table[0, :, 3, 3].detach())
    with pytest.raises(ValueError, match="kernel='exp' is unknown to kerple; allowed: log, power"):
        make("kerple", (4, 4), kernel="exp")


# In the short suite `alibi` among the ViTs, `rpb` in compiled blocks and in an exported Swin.
@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in NAMES if name != "alibi"])
def test_compile_and_export(name: str) -> None:
    check_compile(tiny_spec(name))
    check_export(tiny_spec(name))


@pytest.mark.parametrize("name", NAMES)
def test_one_token_a_side(name: str) -> None:
    model = timm.create_model(f"{name}_vit_ti", depth=1, img_size=16, num_classes=2)
    assert model(torch.randn(1, 3, 16, 16)).isfinite().all()
    assert model(torch.randn(1, 3, 16, 48)).isfinite().all()
