"""Compiled and exported ViTs say what they say uncompiled."""

from __future__ import annotations

import pytest
import torch
from small_vits import build, image
from torch.export import Dim

import visionpe

# The slow checks of these; the other encodings have theirs among their own tests.
CORE = [f"{name}_vit_ti" for name in ("none", "ape", "sincos", "rope", "rope_axial", "cpe", "alibi", "rope_axial_ape")]
# One of each mechanism: `rope_axial_ape` has a table and fixed rotations, `rope` those that are learnt.
OFTEN = [f"{name}_vit_ti" for name in ("sincos", "rope", "cpe", "alibi", "rope_axial_ape")]


def often(*cases: str) -> list:
    """The names, those that are not among ``cases`` for the long suite."""
    return [name if name in cases else pytest.param(name, marks=pytest.mark.long) for name in CORE]


@pytest.mark.parametrize("name", often(*OFTEN))
def test_compile(name: str) -> None:
    """No graph break, forward and backward, at several sizes."""
    torch._dynamo.reset()
    model = build(name, depth=1).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for size in ((32, 32), (24, 40)):
        x = image(*size)
        model.zero_grad()
        wanted = model(x)
        wanted.sum().backward()
        grads = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        got = compiled(x)
        got.sum().backward()
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
        for p, grad in zip(model.parameters(), grads):
            torch.testing.assert_close(p.grad, grad, atol=1e-4, rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("name", ["rope_vit_ti", "alibi_vit_ti"])
def test_compile_to_machine_code(name: str) -> None:
    torch._dynamo.reset()
    model = build(name)
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        for size in ((32, 32), (24, 40)):
            x = image(*size)
            torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)


def export(name: str, policy: str) -> None:
    """One exported graph serves every number of images, height and width, whatever the policy."""
    model = build(name)
    if policy == "other":
        others = [p for p in visionpe.policies(model) if p in ("bicubic", "interpolate", "extrapolate")]
        if not others:
            pytest.skip("nothing to adapt")
        visionpe.set_policy(model, others[-1])
    height, width = (8 * Dim(name, min=1, max=32) for name in ("height", "width"))
    shapes = ({0: Dim("batch", min=1, max=64), 2: height, 3: width},)
    program = torch.export.export(model, (image(24, 40),), dynamic_shapes=shapes).module()
    with torch.no_grad():
        for batch, size in ((2, (24, 40)), (1, (32, 32)), (5, (56, 16))):
            x = torch.randn(batch, 3, *size)
            torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", often(*OFTEN))
def test_export(name: str) -> None:
    export(name, "default")


@pytest.mark.parametrize("name", often("rope_vit_ti", "rope_axial_ape_vit_ti"))
def test_export_of_another_policy(name: str) -> None:
    export(name, "other")
