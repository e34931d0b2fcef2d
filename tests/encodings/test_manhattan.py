"""Manhattan decay against RMT's blocks, its formula, and, along the axes, a plain loop."""

from __future__ import annotations

from math import log

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_vit
from torch import Tensor
from zoo_checks import check_compile, check_export, close, read

from visionpe import Composition, Grid, OffsetBias, attend, create_encoding
from visionpe.attention.axial import AxialBias, axial_attention
from visionpe.attention.dispatch import AttentionWeights

AXIAL = {"name": "manhattan", "form": "axial"}


def make(heads: int = 2, size: tuple[int, ...] = (6, 6), **options: object) -> torch.nn.Module:
    return create_encoding({"name": "manhattan", **options}, dim=heads * 8, num_heads=heads, grid_size=size)


def matrix(encoding: torch.nn.Module, grid: Grid) -> Tensor:
    q = torch.zeros(1, encoding.num_heads, grid.num_tokens, 8)
    return encoding.bias(q, q, grid).matrix(torch.float32)[0]


@pytest.mark.parametrize(("stage", "heads", "decay_range"), [(0, 2, 4), (1, 2, 4), (2, 2, 6), (3, 4, 6)])
def test_decays_of_rmt(stage: int, heads: int, decay_range: float) -> None:
    close(torch.tensor(make(heads, decay_range=decay_range).decays()), read("rmt")[0][f"layers.{stage}.Relpos.decay"])


@pytest.mark.parametrize("run", ["native", "nonsquare"])
def test_stages_of_rmt(run: str) -> None:
    """All of RMT up to the last stage by hand, our attention in it: axial in stages 0 and 1, then full."""
    state, inputs, outputs, metadata = read("rmt")
    official = metadata["kwargs"]

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def depthwise(x: Tensor, name: str, padding: int = 1) -> Tensor:
        """Maps (B, height, width, channels)."""
        return conv(x.permute(0, 3, 1, 2), name, padding=padding, groups=x.shape[-1]).permute(0, 2, 3, 1)

    def batch_norm(x: Tensor, name: str) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.{key}"] for key in keys))

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def rotated(x: Tensor, stage: int) -> Tensor:
        """(B, heads, N, head_dim) by raster position."""
        angle = torch.arange(x.shape[2])[:, None] * state[f"layers.{stage}.Relpos.angle"][::2]
        turn = torch.polar(torch.ones_like(angle), angle)
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)

    def attention(x: Tensor, stage: int, name: str) -> Tensor:
        heads, size = official["num_heads"][stage], x.shape[1:3]
        form = "axial" if official["chunkwise_recurrents"][stage] else "full"
        scales = {"init_value": official["init_values"][stage], "decay_range": official["heads_ranges"][stage]}
        spec = {"name": "manhattan", "form": form, **scales}
        encoding = create_encoding(spec, dim=x.shape[-1], num_heads=heads, grid_size=size)
        q, k, v = (linear(x, f"{name}.{part}_proj") for part in "qkv")
        lepe = depthwise(v, f"{name}.lepe.conv", padding=2)
        q, k, v = (t.flatten(1, 2).unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        q, k = rotated(q, stage), rotated(k, stage)
        attended = attend(q, k, v, biases=[encoding.bias(q, k, Grid(tuple(size)))])
        return linear(attended.transpose(1, 2).reshape(x.shape) + lepe, f"{name}.out_proj")

    def block(x: Tensor, stage: int, name: str) -> Tensor:
        gammas = [state.get(f"{name}.gamma_{i}", torch.ones(())) for i in (1, 2)]
        x = x + depthwise(x, f"{name}.pos.conv")
        x = x + gammas[0] * attention(norm(x, f"{name}.retention_layer_norm"), stage, f"{name}.retention")
        y = F.gelu(linear(norm(x, f"{name}.final_layer_norm"), f"{name}.ffn.fc1"))
        return x + gammas[1] * linear(y + depthwise(y, f"{name}.ffn.dwconv.conv"), f"{name}.ffn.fc2")

    x = inputs[run]
    for index, stride in ((0, 2), (3, 1), (6, 2), (9, 1)):
        x = conv(x, f"patch_embed.proj.{index}", stride=stride, padding=1)
        x = batch_norm(x, f"patch_embed.proj.{index + 1}")
        x = F.gelu(x) if index < 9 else x
    for stage, depth in enumerate(official["depths"]):
        x = x.permute(0, 2, 3, 1)
        for index in range(depth):
            x = block(x, stage, f"layers.{stage}.blocks.{index}")
        if f"{run}.stage{stage}" in outputs:
            close(x, outputs[f"{run}.stage{stage}"])
        if stage < 3:
            x = conv(x.permute(0, 3, 1, 2), f"layers.{stage}.downsample.reduction", stride=2, padding=1)
            x = batch_norm(x, f"layers.{stage}.downsample.norm")


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


@pytest.mark.parametrize("size", [(3, 5), (4, 2), (1, 6), (2, 3, 4)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_axial_by_hand(size: tuple[int, ...], prefix: int) -> None:
    """One query at a time: its line of keys along the width, then along the height, and any axis before them."""
    encoding, grid = make(3, size, form="axial", init_value=1.5), Grid(size, prefix)
    decays = torch.tensor(encoding.decays(), dtype=torch.float64)[:, None]
    q, k, v = torch.randn(3, 2, 3, grid.num_tokens, 8, dtype=torch.float64).unbind()
    bias = encoding.bias(q, k, grid)
    assert isinstance(bias, AxialBias)
    places, ahead = grid.positions(dtype=torch.long), torch.arange(prefix)
    wanted = v
    for axis in reversed(range(len(size))):
        out = wanted.clone()
        for i, place in enumerate(places):
            same = (places == place).sum(-1) + (places[:, axis] != place[axis]) == len(size)
            line = same.nonzero()[:, 0]
            steps = F.pad((places[line, axis] - place[axis]).abs(), (prefix, 0))
            keys = torch.cat((ahead, prefix + line))
            logits = (q[:, :, prefix + i, None] @ k[:, :, keys].mT)[:, :, 0] / 8**0.5 + decays * steps
            values = torch.cat((v[:, :, :prefix], wanted[:, :, prefix + line]), dim=2)
            out[:, :, prefix + i] = (logits.softmax(-1)[:, :, None] @ values)[:, :, 0]
        wanted = out
    wanted[:, :, :prefix] = ((q[:, :, :prefix] @ k.mT) / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(attend(q, k, v, biases=[bias]), wanted)
    halved = axial_attention(q / 2, k, v, bias)
    torch.testing.assert_close(attend(q, k, v, biases=[bias], scale=0.5 * 8**-0.5), halved)
    assert (attend(q, k, v, biases=[bias], dropout_p=0.5) - wanted).abs().max() > 0.1


@pytest.mark.parametrize("prefix", [0, 2])
def test_axial_of_one_line_is_full(prefix: int) -> None:
    """Along an axis of one token nothing happens, so a single row or column without prefix is ordinary attention."""
    for size in ((1, 7), (7, 1)):
        grid = Grid(size, prefix)
        q, k, v = torch.randn(3, 1, 2, 7 + prefix, 8).unbind()
        axial, full = (attend(q, k, v, biases=[make(size=size, form=f).bias(q, k, grid)]) for f in ("axial", "full"))
        close(axial[:, :, :prefix], full[:, :, :prefix])
        assert prefix or torch.allclose(axial, full, atol=1e-5)


def test_axial_gradients() -> None:
    grid = Grid((3, 4), 1)
    leaves = [torch.randn(2, 2, 13, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    leaves += [torch.randn(2, 2 * n - 1, dtype=torch.float64, requires_grad=True) for n in grid.size]

    def run(q: Tensor, k: Tensor, v: Tensor, *tables: Tensor) -> Tensor:
        return axial_attention(q, k, v, AxialBias(tables, grid)).sin()

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_axial_needs_little_memory() -> None:
    """At 48 x 48 tokens nothing of the size of all pairs is built."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple) else (out,):
                self.numel = max(self.numel, t.numel() if isinstance(t, Tensor) else 0)
            return out

    grid = Grid((48, 48))
    q = torch.randn(1, 2, grid.num_tokens, 8)
    with Largest() as largest, torch.no_grad():
        attend(q, q, q, biases=[make(form="axial").bias(q, q, grid)])
    assert largest.numel <= 2 * grid.num_tokens * 2 * 48


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


def test_policies_along_the_axes() -> None:
    """The decay of a step along an axis is that of the full form, under each policy and with no stale table."""
    axial, full, grid = make(form="axial"), make(), Grid((3, 12), 1)
    q = torch.zeros(1, 2, 37, 8)
    for policy in ("interpolate", "extrapolate"):
        axial.set_policy(policy)
        full.set_policy(policy)
        bias, wanted = axial.bias(q, q, grid), matrix(full, grid)
        close(bias.along(1, torch.float32)[0], wanted[:, 1:13, :13])
        close(bias.along(0, torch.float32)[0, :, :, 1:], wanted[:, 1::12, 1::12])


def test_structure() -> None:
    q = torch.zeros(1, 2, 36, 8)
    assert isinstance(make().bias(q, q, Grid((6, 6))), OffsetBias)
    assert (make().structure, make(form="axial").structure) == ("offset", "axial")
    assert not list(make().parameters())


@pytest.mark.long
@pytest.mark.parametrize("spec", ["manhattan", AXIAL])
def test_export_and_compile(spec: object) -> None:
    check_export(spec)
    check_compile(spec)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_axial_dtype(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 2, 2, 36, 8).unbind()
    encoding, grid = make(form="axial"), Grid((5, 7), 1)
    wanted = attend(q, k, v, biases=[encoding.bias(q, k, grid)])
    q, k, v = (t.to(dtype) for t in (q, k, v))
    got = attend(q, k, v, biases=[encoding.bias(q, k, grid)])
    assert got.dtype == dtype
    assert (got.float() - wanted).norm() / wanted.norm() < 0.01


def test_axial_in_a_model() -> None:
    """Any size, with and without prefix tokens; beside what has no bias; far from the full form."""
    for keywords in ({}, dict(reg_tokens=2), dict(class_token=False, global_pool="avg")):
        model, full = tiny_vit(AXIAL, **keywords), tiny_vit("manhattan", **keywords)
        for size in ((24, 24), (8, 40), (4, 4)):
            x = torch.randn(2, 3, *size)
            with torch.no_grad():
                out = model(x)
            assert out.isfinite().all()
            assert size == (4, 4) or (out - full(x)).abs().max() > 1e-3
    assert tiny_vit([AXIAL, "lepe", "rope_axial", "ape", "cpe"])(x).isfinite().all()


@pytest.mark.parametrize("other", ["alibi", "decomposed", "irpe", {"name": "irpe", "on": "v"}, "lookhere"])
def test_axial_stands_alone(other: object) -> None:
    name = other["name"] if isinstance(other, dict) else other
    for spec in ([AXIAL, other], [other, AXIAL]):
        with pytest.raises(ValueError, match=f"'manhattan' attends along rows, then columns, where '{name}' finds no"):
            create_encoding(spec, dim=16, num_heads=2, grid_size=(4, 4))
    Composition([make(), create_encoding("alibi", dim=16, num_heads=2)])  # the full form goes with any


def test_refusals() -> None:
    with pytest.raises(ValueError, match="init_value=0 must be positive"):
        make(init_value=0)
    with pytest.raises(ValueError, match=r"decay_range=-1 must be 0 or more"):
        make(decay_range=-1)
    with pytest.raises(ValueError, match="form='decomposed' is unknown to manhattan; allowed: full, axial"):
        make(form="decomposed")
    encoding, grid = make(form="axial"), Grid((3, 4))
    q = torch.zeros(1, 2, 12, 8)
    bias, second = encoding.bias(q, q, grid), make().bias(q, q, grid)
    with pytest.raises(ValueError, match="an axial one and offset; allowed: the axial one alone"):
        attend(q, q, q, biases=[bias, second])
    with pytest.raises(ValueError, match=r"mask \(12, 12\) is of all pairs"):
        attend(q, q, q, biases=[bias], mask=torch.ones(12, 12, dtype=torch.bool))
    with pytest.raises(ValueError, match="AxialBias has no matrix"):
        AttentionWeights(q, q, [bias]).rows(0, 4)
    with pytest.raises(ValueError, match="grid has explicit coords"):
        encoding.bias(q, q, Grid((3, 4), coords=grid.positions()))
    with pytest.raises(ValueError, match="tables: 1 given; allowed: 2"):
        AxialBias([torch.zeros(1, 5)], grid)
    with pytest.raises(ValueError, match="pos_encoding='manhattan' needs the full map of tokens"):
        tiny_vit(AXIAL, patch_drop_rate=0.5)
