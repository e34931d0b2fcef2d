"""RMT: parity with the official code, attention along lines of every size, any encoding in it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import randomize, tiny_spec
from reference_files import close, read
from torch import Tensor
from torch.export import Dim

import visionpe
from visionpe import Grid
from visionpe.backbones import RMT
from visionpe.backbones.rmt.model import OWN_ENCODING
from visionpe.backbones.rmt.rmt_models import SIZES
from visionpe.encodings.wrappers.base import innermost

TINY: dict[str, Any] = dict(
    img_size=64,
    embed_dim=(16, 24, 32, 48),
    depths=(1, 1, 2, 1),
    num_heads=(2, 2, 2, 4),
    mlp_ratio=(3, 3, 2, 2),
    decay_range=(4, 4, 6, 6),
    init_values=(None, None, 1e-5, 1e-5),
    projection=48,
    num_classes=5,
)
SHALLOW = dict(embed_dim=(16, 16), depths=(2, 1), num_heads=(2, 2), mlp_ratio=2, decay_range=4, projection=8)
LINES: dict[str, Any] = {**SHALLOW, "decomposed": (True, False), "img_size": 32, "num_classes": 3}
# Parameters, as the authors' logs count them.
PARAMETERS = {"t": 14334216, "s": 26967240, "b": 54154896, "l": 95464864}


def build(pos_encoding: Any = OWN_ENCODING, **kwargs: Any) -> RMT:
    return randomize(RMT(tiny_spec(pos_encoding), **{**LINES, **kwargs}))  # type: ignore[arg-type, return-value]


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size)


@pytest.mark.parametrize("run", ["native", "nonsquare"])
def test_official_classifier(run: str, tmp_path: Any) -> None:
    weights, inputs, outputs, _ = read("rmt")
    torch.save({"model": weights, "epoch": 3}, tmp_path / "rmt.pth")
    model = timm.create_model("rmt_t", checkpoint_path=str(tmp_path / "rmt.pth"), **TINY).eval()
    with torch.no_grad():
        final, maps = model.forward_intermediates(inputs[run], output_fmt="NHWC")
        close(model.forward_head(final, pre_logits=True), outputs[f"{run}.pooled"])
        close(model(inputs[run]), outputs[f"{run}.logits"])
        for index, stage in enumerate(maps):
            if f"{run}.stage{index}" in outputs:
                close(stage, outputs[f"{run}.stage{index}"])


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes(size: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"rmt_{size}")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[size]
    stages = list(model.stages)
    assert [stage.decomposed for stage in stages] == [True, True, size != "t", False]
    scaled = [hasattr(stage.blocks[0].ls1, "gamma") for stage in stages]
    assert scaled == [False, False, size in "bl", size in "bl"]
    first = [4, 4, 6, 6] if size in "ts" else [5, 5, 6, 6] if size == "b" else [6, 6, 6, 6]
    assert list(model.decay_range) == first
    assert model.head_hidden_size == 1024
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert {m.eps for m in norms} == {1e-6}


def naive_block(model: RMT, stage: int, x: Tensor, *, decomposed: bool) -> Tensor:
    """A block of the published model, one token, head and line after the other, from the paper's formulas."""
    own: Any = model.stages[stage]
    block, positions = own.blocks[0], own.pos_encoding
    _, height, width, dim = x.shape
    heads = block.attn.num_heads

    def depthwise(t: Tensor, conv: Any) -> Tensor:
        side = conv.weight.shape[-1] // 2
        return F.conv2d(t.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=side, groups=t.shape[-1]).permute(
            0, 2, 3, 1
        )

    x = x + depthwise(x, positions.map["cpe"].convs[0])
    q, k, v = block.attn.qkv(block.norm1(x)).chunk(3, dim=-1)
    pairs = dim // heads // 2
    freqs = 10000.0 ** (-torch.arange(pairs, dtype=torch.float64) / (pairs - 1))
    angle = torch.polar(torch.ones(()).double(), torch.arange(height * width).double()[:, None] * freqs)
    angle = angle.view(height, width, 1, pairs)

    def turned(t: Tensor) -> Tensor:
        z = torch.view_as_complex(t.unflatten(-1, (heads, pairs, 2)).contiguous())
        return torch.view_as_real(z * angle).flatten(-2)  # (B, height, width, heads, head_dim)

    q, k, out = turned(q), turned(k), v.unflatten(-1, (heads, -1))
    attended = torch.zeros_like(out)
    init, spread = model.decay_init[stage], model.decay_range[stage]
    decay = torch.log(1 - 2 ** (-init - spread * torch.arange(heads, dtype=torch.float64) / heads))
    rows, columns = (p.flatten() for p in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    steps = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    passes = [rows[:, None] == rows, columns[:, None] == columns] if decomposed else [steps >= 0]
    for allowed in passes:
        for h in range(heads):
            a, b, c = (t[..., h, :].flatten(1, 2) for t in (q, k, out))
            logits = a @ b.transpose(1, 2) * (dim // heads) ** -0.5 + decay[h] * steps
            weights = logits.masked_fill(~allowed, float("-inf")).softmax(-1)
            attended[..., h, :] = (weights @ c).view(-1, height, width, c.shape[-1])
        out, attended = attended, torch.zeros_like(out)
    x = x + block.ls1(block.attn.proj(out.flatten(3) + depthwise(v, positions.inside["whole"]["lepe"].convs[0])))
    inner = F.gelu(block.mlp.fc1(block.norm2(x)))
    return x + block.ls2(block.mlp.fc2(inner + depthwise(inner, block.mlp.conv)))


@pytest.mark.parametrize("decomposed", [True, False])
@pytest.mark.parametrize("heads", [2, 5, 10])
def test_a_block_is_the_formula(decomposed: bool, heads: int) -> None:
    """Heads of two channels less than four included, and other decays than the default."""
    options = dict(embed_dim=(60, 60), depths=(1, 1), num_heads=(heads, heads), decomposed=decomposed)
    model = build(**options, decay_init=(2, 1.5), decay_range=(3, 5), init_values=(0.1, None)).double()
    for stage in (0, 1):
        x = torch.randn(2, 5, 7, 60, dtype=torch.float64)
        own: Any = model.stages[stage]
        own.downsample = torch.nn.Identity()
        torch.testing.assert_close(own(x), naive_block(model, stage, x, decomposed=decomposed), atol=2e-5, rtol=1e-5)


def naive_lines(model: RMT, x: Tensor, temperature: float = 1.0) -> Tensor:
    """Attention of the first block, by logits of all pairs: in each row, then in each column; biases of the content."""
    stage: Any = model.stages[0]
    attention, inside = stage.blocks[0].attn, stage.pos_encoding.inside
    _, height, width, _ = x.shape
    qkv = attention.qkv(x.flatten(1, 2)).unflatten(-1, (3, attention.num_heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    a, b = inside["whole"].rotate(q, k, Grid((height, width)), layer=0)
    out = inside["whole"].value(v, Grid((height, width)), layer=0)
    index = torch.arange(height * width).view(height, width)
    for kind, lines in (("rows", index), ("columns", index.T)):
        grid, new = Grid(stage.windows((height, width))[kind]), torch.zeros_like(out)
        for line in lines:
            logits = a[:, :, line] @ b[:, :, line].transpose(-2, -1) * attention.head_dim**-0.5
            for bias in inside[kind].bias(q[:, :, line], k[:, :, line], grid, layer=0):
                logits = logits + bias.matrix(q.dtype)
            new[:, :, line] = (temperature * logits).softmax(-1) @ out[:, :, line]
        out = new
    out = inside["whole"].mix(inside["whole"].output(out, Grid((height, width))), v, Grid((height, width)), layer=0)
    return attention.proj(out.transpose(1, 2).flatten(2)).view_as(x)


SPECS = ["none", "rpb", "rope_mixed+rpb", "decomposed+rope_axial", "gta", "rope_raster+lepe+cpb", "pope+alibi", "fire"]


@pytest.mark.parametrize("spec", SPECS)
def test_tokens_on_the_map_and_pairs_in_lines(spec: str) -> None:
    model = build({"name": "gta", "max_freq": 4.0} if spec == "gta" else spec)
    stage: Any = model.stages[0]
    for size in ((8, 8), (3, 10)):
        x = torch.randn(2, *size, 16)
        with torch.no_grad():
            ours = stage.blocks[0].attn(x, stage.partitions(size, x.device)[0])
            torch.testing.assert_close(ours, naive_lines(model, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("rpb", "temperature"),
        ("rope_raster", "temperature"),
        ("rope_axial+rpb", "temperature"),
        ("rope_axial+rpb", "yarn"),
    ],
)
def test_logits_are_warmed_once(spec: str, policy: str) -> None:
    """By the tokens of a line where pairs are told of positions there, else by those of the map."""
    model = visionpe.set_policy(build(spec), policy)
    stage: Any = model.stages[0]
    x = torch.randn(1, 16, 16, 16)
    inside = stage.pos_encoding.inside
    with torch.no_grad():
        ours = stage.blocks[0].attn(x, stage.partitions((16, 16), x.device)[0])
        factor = 4 / 3 if policy == "temperature" else inside["whole"].logit_rule(Grid((16, 16))).factor
        assert factor > 1
        torch.testing.assert_close(ours, naive_lines(model, x, factor), atol=1e-5, rtol=1e-5)


def test_decomposed_is_the_axial_form() -> None:
    """The same attention by the other kernel, which has no lines of its own."""
    axial = [part | {"form": "axial"} if part["name"] == "manhattan" else part for part in OWN_ENCODING]
    model, other = build(), build(axial, decomposed=False)
    model.stages[1].decomposed = False
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 8, 5, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.stages[0](x), other.stages[0](x), atol=1e-5, rtol=1e-5)


def test_decays_of_the_stages_join_the_specification() -> None:
    def found(spec: Any) -> list[tuple[float, float]]:
        model = build(spec, decay_init=(2, 3), decay_range=(4, 6))
        parts = [innermost(m) for m in model.modules() if isinstance(m, visionpe.PositionEncoding)]
        parts = [part for part in parts if part.name == "manhattan"]
        return list(dict.fromkeys((part.init_value, part.decay_range) for part in parts))

    assert found(OWN_ENCODING) == found("manhattan") == found("randomised(manhattan)") == [(2, 4), (3, 6)]
    assert found("manhattan(init_value=1)") == [(1, 4), (1, 6)]


def test_none_has_no_positions() -> None:
    """The convolutions around attention stay; nothing that tells positions does."""
    model = build("none")
    assert not any("pos_encoding" in key for key in model.state_dict())
    full: Any = model.stages[1]
    x, order = torch.randn(1, 4, 4, 16), torch.randperm(16)
    attend = lambda x: full.blocks[0].attn(x, full.partitions((4, 4), x.device)[0]).flatten(1, 2)  # noqa: E731
    with torch.no_grad():
        shuffled = attend(x.flatten(1, 2)[:, order].view_as(x))
        torch.testing.assert_close(shuffled, attend(x)[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", ["own", "rpb+ape", "rope_mixed+lepe"])
def test_any_size(spec: str) -> None:
    model = build(OWN_ENCODING if spec == "own" else spec)
    for size in ((32, 32), (20, 44), (7, 50), (1, 1), (3, 90)):
        with torch.no_grad():
            maps = model.forward_intermediates(image(*size), intermediates_only=True)
            assert model(image(*size)).isfinite().all()
        assert [m.shape[2:] for m in maps] == [tuple(-(-n // r) for n in size) for r in (4, 8)]


def test_policies_measure_from_the_trained_size() -> None:
    model = build("rope_raster+rpb+ape")
    model.set_trained_size((64, 96), (4, 4))
    model.set_input_size((32, 64))
    stage: Any = model.stages[0]
    assert [part.grid_size for part in stage.pos_encoding.parts] == [(16, 24), (16, 24), (1, 24), (16, 1)]
    assert stage.pos_encoding.inside["rows"]["rpb"].table.shape[-2:] == (1, 31)
    assert model._model_args["img_size"] == (32, 64)
    with torch.no_grad():
        assert model(image(32, 64)).shape == (2, 3)


def test_one_graph_for_every_size() -> None:
    model, x = build(depths=(1, 1)), image(48, 64)
    graph = torch.export.export(model, (x,), dynamic_shapes=({2: Dim.AUTO, 3: Dim.AUTO},), strict=False).module()
    for size in ((48, 64), (37, 90)):
        x = image(*size)
        torch.testing.assert_close(graph(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_compiled() -> None:
    model, x = build(depths=(1, 1)), image(40, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_twins_and_modes() -> None:
    model, x = build(), image(40, 32)
    with torch.inference_mode():
        wanted = model(x)
    for twin in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model).to(memory_format=torch.channels_last),
    ):
        with torch.no_grad():
            torch.testing.assert_close(twin(x), wanted, atol=1e-5, rtol=1e-5)
    model.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_heads=(2, 3)), "num_heads=3 of stage 1 must divide its width, 16"),
        (dict(decay_range=(4, 4, 6)), r"decay_range=\(4, 4, 6\) are 3; allowed: 2, one for each stage"),
        (dict(decay_init=0), "decay_init=0"),
        (dict(decomposed=(True, "no")), "decomposed='no'"),
        (dict(embed_dim=(1, 16), num_heads=(1, 1)), r"embed_dim=\(1, 16\): half of the first"),
        (dict(patch_size=4), "takes no keyword 'patch_size'"),
        (dict(pos_encoding="manhattan(form=axial)+rpb"), "attends along rows, then columns"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        RMT(**{**LINES, **options})
