"""``torch.jit.trace`` and ``torch.func`` over models: what flop counters, older exporters and ensembles rest on."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch
from conftest import ENCODINGS, randomize, tiny_spec
from tiny_backbones import MODELS

# Every encoding in a ViT; elsewhere one of each structure, and what has parameters that are looked up by name.
CASES = [("none_vit_ti", name) for name in ENCODINGS] + [
    (family, spec)
    for family in ("vitdet_b", "swin_t", "cswin_t")
    for spec in ("rpb", "decomposed+ape", "irpe", "rope_mixed", "lepe", "cpb", "crse")
]
# Traced, every structure in some family; the rest in the long suite.
TRACED = [
    "vitdet_b decomposed+ape",
    "vitdet_b rope_mixed",
    "vitdet_b irpe",
    "vitdet_b crse",
    "swin_t rpb",
    "swin_t cpb",
]
TRACED += ["swin_t lepe", "cswin_t rpb", "cswin_t lepe"]


def build(family: str, spec: str) -> torch.nn.Module:
    spec = tiny_spec(spec)
    return randomize(timm.create_model(family, pos_encoding=spec, num_classes=3, **MODELS[family]))


@pytest.mark.parametrize(("family", "spec"), [
    case if case[0] == "none_vit_ti" or " ".join(case) in TRACED else pytest.param(*case, marks=pytest.mark.long)
    for case in CASES
])  # fmt: skip
@torch.no_grad()
def test_jit_trace(family: str, spec: str) -> None:
    model = build(family, spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # sizes become constants, as in timm's models
        traced = torch.jit.trace(model, torch.randn(2, 3, 40, 32))  # which runs it twice and compares
    x = torch.randn(3, 3, 40, 32)
    torch.testing.assert_close(traced(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("family", "spec"), CASES)
def test_functional_call_and_vmap(family: str, spec: str) -> None:
    model, x = build(family, spec), torch.randn(2, 3, 40, 32)
    state = {k: v.detach() for k, v in (*model.named_parameters(), *model.named_buffers())}

    def call(weights: dict, one: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, weights, (one[None],))[0]

    with torch.no_grad():
        wanted = model(x)
        torch.testing.assert_close(torch.func.functional_call(model, state, (x,)), wanted, atol=1e-5, rtol=1e-5)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            found = torch.func.vmap(call, in_dims=(None, 0))(state, x)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        each = torch.func.vmap(torch.func.grad(lambda w, one: call(w, one).square().sum()), in_dims=(None, 0))(state, x)
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(each[name].sum(0), parameter.grad, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("family", "spec"), CASES)
def test_channels_last(family: str, spec: str) -> None:
    model, x = build(family, spec), torch.randn(2, 3, 40, 32)
    wanted = model(x)
    model.to(memory_format=torch.channels_last)
    found = model(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    found.sum().backward()
    model.set_input_size((48, 64))  # tables are resized, whatever their strides
    model(torch.randn(1, 3, 48, 64).to(memory_format=torch.channels_last))


def test_channels_last_among_voxels() -> None:
    model = timm.create_model("swin3d_s", embed_dims=(12, 12), depths=(1, 1), num_heads=(1, 1), window_size=(3, 3))
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.to(memory_format=torch.channels_last)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize(("family", "spec"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_every_linear_layer_is_called(family: str, spec: str, dtype: torch.dtype) -> None:
    """Adapters and quantisation of other libraries wrap ``nn.Linear``: one that is called around escapes them."""
    model, called = build(family, spec).to(dtype), set()
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda *_, name=name: called.add(name))
    model(torch.randn(1, 3, 32, 32, dtype=dtype))
    assert {name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)} == called


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "spec"), [
    *(("none_vit_ti", spec) for spec in ("cpb", "fire", "seqpe", "fourier", "lape", "rope_mixed+cpe")),
    *((family, "cpb") for family in MODELS if family != "none_vit_ti"),
])  # fmt: skip
@torch.no_grad()
def test_dynamic_quantisation(family: str, spec: str) -> None:
    model, x = build(family, spec).eval(), torch.randn(2, 3, 40, 32)
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    assert not any(type(module) is torch.nn.Linear for module in quantised.modules())
    torch.testing.assert_close(quantised(x), model(x), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("spec", ["rpb", "kerple", "decomposed", "rope_mixed", "none"])
def test_ensembles_learn(spec: str) -> None:
    """Models side by side by ``vmap``, with gradients of their stacked parameters: those of each alone."""
    members, x = [build("none_vit_ti", spec) for _ in range(2)], torch.randn(2, 3, 32, 32)
    parameters, buffers = torch.func.stack_module_state(members)
    found = torch.func.vmap(
        lambda p, b: torch.func.functional_call(members[0], (p, b), (x,)), randomness="same", in_dims=(0, 0)
    )(parameters, buffers)
    found.square().sum().backward()
    for index, member in enumerate(members):
        wanted = member(x)
        torch.testing.assert_close(found[index], wanted, atol=1e-5, rtol=1e-5)
        wanted.square().sum().backward()
        for name, parameter in member.named_parameters():
            torch.testing.assert_close(parameters[name].grad[index], parameter.grad, atol=1e-3, rtol=1e-3)
