"""Wrappers: random positions in training, nothing in eval mode, and no trace in the state dict."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from conftest import randomize, tiny_vit
from torch import Tensor
from zoo_checks import make, randomized_vit

import visionpe
from visionpe import Composition, Grid, PositionEncoding, create_encoding, register_wrapper
from visionpe.registry import create_encodings

CONTEXT = dict(dim=16, num_heads=2, depth=2, grid_size=(4, 4))
PAIRS = [
    *(("dropped", inner) for inner in ("ape", "sincos", "rope_mixed", "cpe", "lepe", "lape(ape)", "abswin")),
    *(("cropped", inner) for inner in ("ape", "fourier", "rope_axial", "comrope", "irpe", "kerple", "lape(sincos)")),
    *(("randomised", inner) for inner in ("ape", "rope_axial", "rpb", "decomposed", "seqpe", "alibi")),
]
IDS = [f"{w}({i})" for w, i in PAIRS]


def seeded(model: torch.nn.Module, x: Tensor, seed: int = 7) -> Tensor:
    torch.manual_seed(seed)
    return model(x)


@pytest.mark.parametrize(("wrapper", "inner"), PAIRS, ids=IDS)
def test_in_a_model(wrapper: str, inner: str) -> None:
    """Bit-equal in eval mode, weights exchanged both ways; in training random, reproducible, and with gradients."""
    options = dict(class_token=False, global_pool="avg") if inner == "lepe" else {}  # it passes class tokens by
    plain, wrapped = tiny_vit(inner, **options), randomize(tiny_vit(f"{wrapper}({inner})", **options), seed=1)
    wrapped.load_state_dict(plain.state_dict())
    assert [n for n, _ in wrapped.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert wrapped.no_weight_decay() == plain.no_weight_decay()
    x = torch.randn(2, 3, 24, 28)
    with torch.no_grad():
        assert torch.equal(wrapped(x), plain(x))
        wrapped.train()
        first = seeded(wrapped, x)
        assert torch.equal(seeded(wrapped, x), first)
        others = [seeded(wrapped, x, seed) for seed in range(6)]
        assert max((first - other).abs().max() for other in others) > 1e-4
        plain.load_state_dict(randomize(wrapped, seed=2).state_dict())
        assert torch.equal(wrapped.eval()(x), plain(x))
    wrapped.train()
    sum(seeded(wrapped, x, seed).square().sum() for seed in range(4)).backward()
    for name, parameter in wrapped.pos_encoding.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("spec", ["dropped(ape)", "cropped(cpb)", "randomised(decomposed)", "dropped(cropped(ape))"])
def test_parameters_are_those_underneath(spec: str) -> None:
    model = tiny_vit(spec)
    wrapper = model.pos_encoding.parts[0]
    for copied in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        copied.double().set_input_size((32, 48))
        part, x = copied.pos_encoding.parts[0], torch.randn(1, 3, 32, 48).double()
        inner = part.over if not isinstance(part.over, visionpe.PositionWrapper) else part.over.over
        assert [id(p) for p in part.parameters()] == [id(p) for p in inner.parameters()]
        assert all(p.dtype == torch.float64 for p in inner.parameters())
        before = copied(x).detach()
        for parameter in copied.pos_encoding.parameters():
            parameter.data.mul_(2)
        assert (copied(x) - before).abs().max() > 1e-4
        assert copied.train() is copied
        assert inner.training
        assert not copied.eval().pos_encoding.parts[0].over.training
    torch.nn.utils.vector_to_parameters(torch.zeros(10**5), wrapper.parameters())
    assert not any(p.any() for p in wrapper.over.parameters())


@pytest.mark.parametrize("spec", ["dropped(lape(ape))", "cropped(lape(fourier))", "dropped(cropped(lape(ape)))"])
def test_parameters_are_found_by_their_paths(spec: str) -> None:
    """As ``torch.func.functional_call`` and adapters look for them."""
    model = tiny_vit(spec)
    assert model.pos_encoding.parts[0].spelling == spec
    for name, parameter in model.named_parameters():
        assert model.get_parameter(name) is parameter
    for name, module in model.named_modules():
        assert model.get_submodule(name) is module
    with torch.no_grad():
        wanted, x = {k: 2 * p for k, p in model.named_parameters()}, torch.randn(1, 3, 24, 24)
        found = torch.func.functional_call(model, wanted, (x,))
        model.load_state_dict(wanted, strict=False)
        torch.testing.assert_close(found, model(x))


def test_frequencies_stay_wide() -> None:
    assert tiny_vit("dropped(rope_mixed)").bfloat16().pos_encoding["rope_mixed"].freqs.dtype == torch.float32


def test_checkpoint_of_another_size() -> None:
    small, large = tiny_vit("ape"), tiny_vit("dropped(ape)", img_size=48)
    large.load_state_dict(small.state_dict())
    torch.testing.assert_close(large.pos_encoding["ape"].table, small.pos_encoding["ape"].resized((12, 12)))


def test_policies_pass_through() -> None:
    model = tiny_vit("dropped(ape)+cropped(rope_axial)")
    assert list(model.pos_encoding) == ["ape", "rope_axial"]
    assert [p.name for p in model.pos_encoding.at("rotate")] == ["rope_axial"]
    plain = tiny_vit("ape+rope_axial")
    plain.load_state_dict(model.state_dict())
    assert visionpe.policies(model) == visionpe.policies(plain)
    x = torch.randn(1, 3, 32, 20)
    for policy in ("nearest", "interpolate"):
        visionpe.set_policy(model, policy)
        assert policy in {part.policy for part in model.pos_encoding.parts}
        visionpe.set_policy(plain, policy)
        assert torch.equal(model(x), plain(x))
    part = model.pos_encoding["ape"]
    part.grid_size = (3, 3)
    assert part.over.grid_size == (3, 3)
    assert part.policy_is_chosen
    with pytest.raises(ValueError, match="policy='yarn' is unknown to 'ape'"):
        part.set_policy("yarn")
    assert create_encoding("dropped(ape)", policy="bilinear", **CONTEXT).over.policy == "bilinear"


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        ("dropped(rope_mixed)", [(3, 5)]),
        pytest.param("cropped(sincos)+randomised(rope_axial)", [(4, 4), (3, 5), (4, 6)], marks=pytest.mark.long),
    ],
)
def test_compiled(spec: str, sizes: list[tuple[int, int]]) -> None:
    """One draw for all layers as without compilation; no graph break, nothing compiled again at a known size."""
    torch._dynamo.reset()
    encoding = make(spec).train()

    def run(x: Tensor, q: Tensor, height: int, width: int) -> Tensor:
        grid = Grid((height, width), 1)
        x, outs = encoding.add(x, grid), []
        for layer in range(2):
            turned = torch.stack(encoding.rotate(q, q, grid, layer=layer))
            outs.append(turned.sin() + encoding.mix(q, q, grid, layer=layer))
        return torch.stack(outs).sum((1, 3, 5)).flatten(0, 1).mean() + x.sin().sum()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for size in sizes:
        n = size[0] * size[1]
        x, q = torch.randn(6, n, 16, requires_grad=True), torch.randn(6, 2, n + 1, 8, requires_grad=True)
        results = []
        for function in (run, compiled):
            torch.manual_seed(3)
            out = function(x, q, *size)
            leaves = [x, q, *encoding.parameters()]
            results.append([out, *torch.autograd.grad(out, leaves, allow_unused=True)])
        for ours, wanted in zip(*results):
            torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled(x, q, *size)
        compiled(x, q, *size)


@pytest.mark.long
def test_compiled_model() -> None:
    torch._dynamo.reset()
    model = randomized_vit("dropped(rope_mixed)+cropped(ape)").train()
    compiled, x = torch.compile(model, fullgraph=True, backend="aot_eager"), torch.randn(3, 3, 24, 20)
    torch.testing.assert_close(seeded(compiled, x), seeded(model, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"patch_drop_rate": 0.5}], ids=["full", "patches dropped"])
@pytest.mark.parametrize("spec", ["dropped(rope_mixed)", "cropped(rope_mixed)", "randomised(rpb)"])
def test_gradient_checkpointing(spec: str, options: dict) -> None:
    """Layers that run again see the draw of their own pass, though another one came between."""
    model, grads = randomized_vit(spec, **options).train(), []
    x = torch.randn(3, 3, 24, 24)
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        total = seeded(model, x).square().sum()
        model(x)
        total.backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for ours, wanted in zip(*grads):
        torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dropped", r"over=None: 'dropped' stands over another encoding; allowed: 'dropped\(ape\)'"),
        ("dropped(ape+rope_axial)", r"is not one encoding; wrap each part: dropped\(ape\)\+dropped\(rope_axial\)"),
        ("dropped(rpb)", "over='rpb' cannot be dropped: its bias belongs to pairs of tokens, .* N x N"),
        ("dropped(irpe)", "over='irpe' cannot be dropped"),
        ("cropped(cpe)", "'cropped' moves tokens, and 'cpe' needs them to fill the map"),
        ("randomised(lepe)", "'randomised' moves tokens, and 'lepe' needs them to fill the map"),
        ("cropped(rpb)", "'cropped' puts tokens between places, and 'rpb' reads whole coordinates alone"),
        *((f"cropped({n})", f"'{n}' reads whole") for n in ("seqpe", "attention_bias", "abswin", "decomposed")),
        ("cropped(lape(abswin))", "'abswin' reads whole coordinates alone"),
        ("cropped(dropped(abswin))", "reads whole coordinates alone"),
        ("cropped(randomised(ape))", "'randomised' reads whole coordinates alone"),
        ("dropped(ape)+ape", "names the same encoding twice"),
        ("croped(ape)", "encoding 'croped' is unknown; did you mean cropped.*; over them: cropped"),
        (
            "sincos(ape)",
            r"allowed: every_block\(...\), lape\(...\), harope\(...\), string\(...\), cropped\(...\), dropped",
        ),
        ({"name": "dropped", "over": "ape", "rat": 0.5}, "'dropped' takes no option 'rat'; did you mean rate"),
        ({"name": "dropped", "over": "ape", "rate": 1.5}, "rate=1.5 is no probability; allowed: 0 to 1"),
        ({"name": "dropped", "over": "ape", "unit": "batch"}, "unit='batch' is unknown; allowed: image, token"),
        ({"name": "cropped", "over": "ape", "enlarge": 0.5}, "enlarge=0.5 must be 1 or more"),
        ({"name": "cropped", "over": "ape", "scale": (0, 1)}, r"scale=\(0, 1\) is no range"),
        ({"name": "cropped", "over": "ape", "scale": (0.5, 2)}, r"scale=\(0.5, 2\) reaches beyond the grid"),
        ({"name": "cropped", "over": "ape", "aspect": (2, 3)}, r"aspect=\(2, 3\) leaves out 1"),
        (
            {"name": "randomised", "over": "ape", "range": 3},
            r"range=\(3, 3\) has too few places for a grid of \(4, 4\)",
        ),
        ({"name": "randomised", "over": "ape", "range": (9, 9, 9)}, "has not one number for each axis"),
    ],
)
def test_bad_specifications(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(spec)


def test_three_axes() -> None:
    with pytest.raises(ValueError, match="cropped stands on two axes"):
        create_encodings("cropped(rope_axial)", dim=24, num_heads=2, grid_size=(2, 3, 4))
    part = create_encodings("randomised(rope_axial)", dim=24, num_heads=2, grid_size=(2, 3, 4))[0].train()
    q = torch.randn(2, 2, 24, 12)
    assert part.rotate(q, q, Grid((2, 3, 4)))[0].shape == q.shape


def test_registry() -> None:
    assert visionpe.list_wrappers() == ["cropped", "dropped", "randomised"]
    assert not set(visionpe.list_wrappers()) & set(visionpe.list_encodings())
    assert isinstance(make("dropped(ape)"), Composition)
    with pytest.raises(ValueError, match="name='ape' is taken by AbsolutePositionEmbedding"):
        register_wrapper("ape")(visionpe.PositionWrapper)
    with pytest.raises(ValueError, match="name='dropped' is taken by DroppedPositions"):
        visionpe.register_encoding("dropped")(PositionEncoding)
    with pytest.raises(TypeError, match="takes a PositionWrapper class"):
        register_wrapper("plain")(PositionEncoding)
