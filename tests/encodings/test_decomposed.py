"""Decomposed relative position against timm's SAM attention, ViTDet's and its formula."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import randomize, tiny_vit
from safetensors.torch import load_file
from timm.models.vision_transformer_sam import Attention, get_decomposed_rel_pos_bias
from torch import Tensor
from zoo_checks import check_compile, check_export

from visionpe import Composition, Grid, attend, create_encoding
from visionpe.attention.bias import LowRankBias
from visionpe.encodings.bias.decomposed import resize_offsets

REFERENCE = Path(__file__).parents[1] / "reference"
KERNELS = ["auto", "low_rank", "sdpa", "chunked", "small", "math"]


def make(size: tuple[int, ...], dim: int = 32, heads: int = 2, depth: int = 2) -> torch.nn.Module:
    return randomize(create_encoding("decomposed", dim=dim, num_heads=heads, depth=depth, grid_size=size))


def matrix(encoding: torch.nn.Module, q: Tensor, grid: Grid, layer: int = 1) -> Tensor:
    return encoding.bias(q, q, grid, layer=layer).matrix(q.dtype)


@pytest.mark.parametrize("size", [(4, 7), (9, 5), (2, 3)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_by_hand(size: tuple[int, int], prefix: int) -> None:
    encoding, grid = make(size), Grid(size, prefix)
    q = torch.randn(2, 2, grid.num_tokens, 16)
    got = matrix(encoding, q, grid)
    assert got.shape == (2, 2, grid.num_tokens, grid.num_tokens)
    assert not got[..., :prefix].any()
    assert not got[..., :prefix, :].any()
    height, width = size
    for i in range(grid.num_spatial):
        for j in range(grid.num_spatial):
            dy, dx = i // width - j // width, i % width - j % width
            vector = encoding.height_table[1, dy + height - 1] + encoding.width_table[1, dx + width - 1]
            torch.testing.assert_close(
                got[:, :, prefix + i, prefix + j], q[:, :, prefix + i] @ vector, atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("trained", [(4, 7), (9, 5)])
@pytest.mark.parametrize("size", [(4, 7), (9, 5), (3, 3)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_against_timm_sam(trained: tuple[int, int], size: tuple[int, int], kernel: str) -> None:
    """Same size, larger and smaller: timm resizes the same way."""
    theirs = randomize(Attention(32, num_heads=2, use_rel_pos=True, input_size=trained))
    with torch.no_grad():
        theirs.rel_pos_h.normal_()
        theirs.rel_pos_w.normal_()
    ours, grid = make(trained), Grid(size)
    with torch.no_grad():
        ours.height_table[1].copy_(theirs.rel_pos_h)
        ours.width_table[1].copy_(theirs.rel_pos_w)
        x = torch.randn(2, *size, 32)
        q, k, v = theirs.qkv(x).view(2, -1, 3, 2, 16).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v, biases=[ours.bias(q, k, grid, layer=1)], kernel=kernel)
        got = theirs.proj(attended.transpose(1, 2).reshape(2, *size, 32))
        torch.testing.assert_close(got, theirs(x), atol=1e-5, rtol=1e-6)
        wanted = get_decomposed_rel_pos_bias(q.flatten(0, 1), theirs.rel_pos_h, theirs.rel_pos_w, size, size)
        torch.testing.assert_close(matrix(ours, q, grid).flatten(0, 1), wanted, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(("run", "size"), [("native", (8, 8)), ("nonsquare", (10, 14))])
def test_global_block_of_vitdet(run: str, size: tuple[int, int]) -> None:
    """The whole ViTDet by hand: windows of 3 in the first and last block, our bias in all of them."""
    data = load_file(REFERENCE / "vitdet.safetensors")
    state = {k[len("model.") :]: v for k, v in data.items() if k.startswith("model.")}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (32,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def attention(x: Tensor, block: str) -> Tensor:
        """Maps (B, height, width, 32)."""
        tables = [state[f"{block}.attn.rel_pos_{axis}"] for axis in "hw"]
        trained = tuple((len(t) + 1) // 2 for t in tables)
        encoding = create_encoding("decomposed", dim=32, num_heads=2, grid_size=trained)
        with torch.no_grad():
            encoding.height_table[0].copy_(tables[0])
            encoding.width_table[0].copy_(tables[1])
        q, k, v = linear(x, f"{block}.attn.qkv").view(len(x), -1, 3, 2, 16).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v, biases=[encoding.bias(q, k, Grid(tuple(x.shape[1:3])))])
        return linear(attended.transpose(1, 2).reshape(x.shape), f"{block}.attn.proj")

    def windows(x: Tensor, block: str) -> Tensor:
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, 0, -width % 3, 0, -height % 3))
        rows, columns = padded.shape[1] // 3, padded.shape[2] // 3
        tiles = padded.view(-1, rows, 3, columns, 3, 32).transpose(2, 3).reshape(-1, 3, 3, 32)
        tiles = attention(tiles, block).view(-1, rows, columns, 3, 3, 32).transpose(2, 3)
        return tiles.reshape(-1, rows * 3, columns * 3, 32)[:, :height, :width]

    with torch.no_grad():
        image = data[f"input.{run}"]
        x = F.conv2d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4)
        table = state["pos_embed"][:, 1:].view(1, 6, 6, 32).permute(0, 3, 1, 2)
        x = (x + F.interpolate(table, size=size, mode="bicubic")).permute(0, 2, 3, 1)
        for index in range(3):
            block = f"blocks.{index}"
            x = x + (attention if index == 1 else windows)(norm(x, f"{block}.norm1"), block)
            x = x + linear(F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    torch.testing.assert_close(x.permute(0, 3, 1, 2), data[f"output.{run}.last_feat"], atol=1e-5, rtol=1e-6)


def test_resize_of_a_table() -> None:
    table = torch.randn(9, 3)
    assert resize_offsets(table, 5) is table
    wanted = F.interpolate(table.T[None], size=13, mode="linear", align_corners=False)[0].T
    assert torch.equal(resize_offsets(table, 7), wanted)
    exact = resize_offsets(table.bfloat16().float(), 7).bfloat16()
    assert torch.equal(resize_offsets(table.bfloat16(), 7), exact)  # computed in float32


def test_it_starts_at_zero_and_has_low_rank() -> None:
    encoding = create_encoding("decomposed", dim=32, num_heads=2, depth=2, grid_size=(4, 7))
    assert not any(p.any() for p in encoding.parameters())
    assert encoding.no_weight_decay() == {"height_table", "width_table"}
    q = torch.randn(1, 2, 29, 16)
    bias = make((4, 7)).bias(q, q, Grid((4, 7), 1))
    assert isinstance(bias, LowRankBias)
    assert bias.left.shape == (1, 2, 29, 11)
    assert bias.right.shape == (1, 1, 29, 11)


@pytest.mark.parametrize("prefix", [0, 2])
def test_listed_tokens(prefix: int) -> None:
    """Coordinates that list the full grid, some of it, shifted, and others for each sample."""
    encoding, dense = make((4, 7)), Grid((3, 5), prefix)
    q = torch.randn(2, 2, 15 + prefix, 16)
    wanted = matrix(encoding, q, dense)
    places = dense.positions()
    for coords in (places, places + torch.tensor([7.0, -4.0])):
        torch.testing.assert_close(matrix(encoding, q, Grid((3, 5), prefix, coords=coords)), wanted)
    kept = torch.stack([torch.randperm(15)[:8].sort().values for _ in range(2)])
    rows = torch.cat([torch.arange(prefix).expand(2, -1), prefix + kept], dim=1)  # (2, kept + prefix)
    chosen = torch.stack([q[i][:, rows[i]] for i in range(2)])
    part = matrix(encoding, chosen, Grid((3, 5), prefix, coords=places[kept]))
    for i in range(2):
        torch.testing.assert_close(part[i], wanted[i][:, rows[i]][..., rows[i]], atol=1e-5, rtol=1e-5)


def test_three_axes() -> None:
    encoding, grid = make((2, 3, 4)), Grid((2, 3, 4), 1)
    q = torch.randn(1, 2, 25, 16)
    got, places = matrix(encoding, q, grid), grid.positions().long()
    for i, j in ((0, 23), (17, 4), (9, 9)):
        dt, dy, dx = (places[i] - places[j]).tolist()
        vector = encoding.time_table[1, dt + 1] + encoding.height_table[1, dy + 2] + encoding.width_table[1, dx + 3]
        torch.testing.assert_close(got[0, :, 1 + i, 1 + j], q[0, :, 1 + i] @ vector, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="built for 3 axes, the tokens stand on 2"):
        encoding.bias(q, q, Grid((4, 6), 1))
    with pytest.raises(ValueError, match=r"grid_size=\(2, 2, 2, 2\) has 4 axes; allowed: 1, 2, 3"):
        make((2, 2, 2, 2))


@pytest.mark.parametrize("size", [(3, 4), (4, 2)])
def test_gradients(size: tuple[int, int]) -> None:
    encoding, grid = make((3, 4)).double(), Grid(size, 1)
    q = torch.randn(1, 2, grid.num_tokens, 16, dtype=torch.float64, requires_grad=True)

    def objective(q: Tensor, *tables: Tensor) -> Tensor:
        return matrix(encoding, q, grid).sin()

    assert torch.autograd.gradcheck(objective, (q, *encoding.parameters()), fast_mode=True)


def test_sizes_of_a_model() -> None:
    """Any size, a table resized for good, a checkpoint of another size."""
    model = tiny_vit("decomposed")
    x = torch.randn(1, 3, 40, 16)
    with torch.no_grad():
        state, wanted = copy.deepcopy(model.state_dict()), model(x)
        model.set_input_size(img_size=(40, 16))
        torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)

    other = tiny_vit("decomposed", img_size=(40, 16))
    other.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(other(x), wanted, atol=1e-5, rtol=1e-5)
    small, large = make((6, 6)), make((10, 4))
    large.load_state_dict(small.state_dict())
    q = torch.randn(1, 2, 40, 16)
    torch.testing.assert_close(matrix(large, q, Grid((10, 4))), matrix(small, q, Grid((10, 4))), atol=1e-5, rtol=1e-5)
    with pytest.raises(RuntimeError, match="size mismatch for height_table"):
        large.load_state_dict({k: v[:1] for k, v in small.state_dict().items()})


def test_no_matrix_is_built() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                self.numel = max(self.numel, out.numel())
            return out

    encoding, grid = make((4, 4), dim=16), Grid((40, 40), 1)
    q = torch.randn(1, 2, grid.num_tokens, 8)
    with Largest() as largest, torch.no_grad():
        left = encoding.bias(q, q, grid).left
    assert largest.numel < grid.num_tokens**2 / 4
    assert left.numel() <= largest.numel


@pytest.mark.long
def test_export_and_compile() -> None:
    check_export("decomposed")
    check_compile("decomposed")


def test_it_composes() -> None:
    parts = [create_encoding(n, dim=32, num_heads=2, grid_size=(4, 7)) for n in ("decomposed", "rope_axial")]
    q = torch.randn(1, 2, 28, 16)
    assert len(Composition(parts).bias(q, q, Grid((4, 7)))) == 1
