"""A ViT over several views: cameras, other encodings, dropped patches, masks, graphs, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from conftest import randomize, tiny_vit
from small_cameras import cameras, moved
from tiny_backbones import MODELS
from torch import Tensor, nn
from torch.export import Dim

from visionpe import Cameras

READERS = ["prope", "gta", "gta(scale=0.5, learned=True)", "rays"]
# Of others all that read coordinates.
OTHERS = ["rope_mixed+ape", "rpb", "rays+rope_axial", "prope+sincos", "irpe", "alibi"]
SIZE = (16, 24)


def views(batch: int = 2, count: int = 3, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(batch, count, 3, *size)


def seen_by(batch: int = 2, count: int = 3) -> Cameras:
    return cameras(batch, count).to(torch.float32)


@pytest.mark.parametrize("keywords", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}], ids=str)
@pytest.mark.parametrize("spec", READERS)
@torch.no_grad()
def test_all_views_at_once(spec: str, keywords: dict[str, Any]) -> None:
    """Each looks at all others; the world does not matter, a camera does; so do samples of their own."""
    model, x, seen = tiny_vit(spec, **keywords), views(), seen_by()
    out = model.forward_features(x, cameras=seen)
    assert out.shape == (2, model.num_prefix_tokens + 3 * 24, 32)
    torch.testing.assert_close(model(x, cameras=seen), model.forward_head(out))
    torch.testing.assert_close(model.forward_features(x, cameras=moved(seen)), out, atol=1e-4, rtol=1e-3)
    assert (model.forward_features(x, cameras=moved(seen, 2)) - out).abs().amax(-1).min() > 1e-6
    other = x.clone()
    other[:, 1, :, :4, :4] += 1
    assert (model.forward_features(other, cameras=seen) - out).abs().amax(-1).min() > 1e-6
    alone = model(x[1:], cameras=Cameras(seen.extrinsics[1], seen.intrinsics[1]))  # one scene for all samples
    torch.testing.assert_close(model(x, cameras=seen)[1:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", OTHERS)
@torch.no_grad()
def test_views_in_another_order(spec: str) -> None:
    """They may change places with their cameras, but for the first, from which places in the world are told."""
    model, x, seen = tiny_vit(spec), views(), seen_by()
    order = [0, 2, 1]
    out = model.forward_features(x, cameras=seen)[:, 1:].unflatten(1, (3, -1))
    there = Cameras(seen.extrinsics[:, order], seen.intrinsics[:, order])
    swapped = model.forward_features(x[:, order], cameras=there)[:, 1:].unflatten(1, (3, -1))
    torch.testing.assert_close(swapped, out[:, order], atol=1e-4, rtol=1e-3)
    tokens = model.forward_features(x[:, 0])[:, 1:]
    once = Cameras(seen.extrinsics[:, :1], seen.intrinsics[:, :1])
    if not {"rays", "prope"} & set(spec.split("+")):  # to the class token of these the lens matters
        torch.testing.assert_close(model.forward_features(x[:, :1], cameras=once)[:, 1:], tokens, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_a_mask_parts_the_views() -> None:
    model, x, seen = tiny_vit("prope", class_token=False, global_pool="avg"), views(), seen_by()
    which = torch.arange(3).repeat_interleave(24)
    out = model.forward_features(x, which[:, None] == which, cameras=seen).unflatten(1, (3, -1))
    for view in range(3):
        torch.testing.assert_close(out[:, view], model.forward_features(x[:, view]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", ["prope", "gta", "rays+rope_axial", "rope_mixed+ape"])
def test_dropped_patches(spec: str) -> None:
    model = tiny_vit(spec, patch_drop_rate=0.5).train()
    seen = seen_by()
    tokens = model.forward_features(views(), cameras=seen)
    assert tokens.shape == (2, 1 + 36, 32)
    with torch.no_grad():
        results = []
        x = views()
        for known in (seen, moved(seen), moved(seen, 1)):
            torch.manual_seed(3)
            results.append(model.forward_features(x, cameras=known))
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-3)
    assert ((results[2] - results[0]).abs().max() > 1e-4) == (spec != "rope_mixed+ape")


@pytest.mark.parametrize("spec", READERS)
def test_checkpointed_blocks(spec: str) -> None:
    """Gradients of the weights and of the cameras, the same with blocks that run twice."""
    model, x, seen = tiny_vit(spec).train(), views(), seen_by()
    found = []
    for again in (False, True):
        model.set_grad_checkpointing(again)
        model.zero_grad()
        poses = seen.extrinsics.clone().requires_grad_()
        model(x, cameras=Cameras(poses, seen.intrinsics)).square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        found.append([poses.grad, *(p.grad.clone() for p in model.parameters())])
    for one, two in zip(*found):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)
    assert found[0][0].abs().amax((-1, -2)).min() > 0


class Told(nn.Module):
    """A model of tensors alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, extrinsics: Tensor, intrinsics: Tensor) -> Tensor:
        return self.model(x, cameras=Cameras(extrinsics, intrinsics))


@pytest.mark.parametrize("spec", READERS)
def test_export(spec: str) -> None:
    """One graph for every number of scenes, height and width."""
    model, seen = Told(tiny_vit(spec)), seen_by()
    height, width = (4 * Dim(name, min=2, max=32) for name in ("height", "width"))
    batch = Dim("batch", min=1, max=64)
    shapes = {"x": {0: batch, 3: height, 4: width}, "extrinsics": {0: batch}, "intrinsics": {0: batch}}
    example = (views(size=(16, 24)), seen.extrinsics, seen.intrinsics)
    program = torch.export.export(model, example, dynamic_shapes=shapes).module()
    with torch.no_grad():
        for scenes, size in ((2, (16, 24)), (3, (20, 12))):
            x, seen = views(scenes, size=size), seen_by(scenes)
            inputs = (x, seen.extrinsics, seen.intrinsics)
            torch.testing.assert_close(program(*inputs), model(*inputs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", READERS)
def test_compile(spec: str) -> None:
    """No graph break, forward and backward; cameras come as they are or are made inside."""
    torch._dynamo.reset()
    model, x = tiny_vit(spec, depth=1).train(), views()
    compiled, inside = (torch.compile(m, fullgraph=True, backend="aot_eager") for m in (model, Told(model)))
    for _ in range(2):  # cameras of another scene are no other graph
        seen, grads = seen_by(), []
        for run in (model, compiled, inside):
            model.zero_grad()
            out = run(x, seen.extrinsics, seen.intrinsics) if run is inside else run(x, cameras=seen)
            out.square().sum().backward()
            grads.append([out.detach(), *(p.grad.clone() for p in model.parameters())])
        for found in grads[1:]:
            for ours, wanted in zip(found, grads[0]):
                torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", READERS)
def test_compiled_blocks(spec: str) -> None:
    torch._dynamo.reset()
    model, x, seen = tiny_vit(spec), views(), seen_by()
    wanted = model(x, cameras=seen)
    for block in model.blocks:
        block.compile(backend="aot_eager")
    torch.testing.assert_close(model(x, cameras=seen), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", READERS)
@torch.no_grad()
def test_autocast(spec: str) -> None:
    """Few digits of the tokens, all of the cameras."""
    model, x, seen = tiny_vit(spec), views(), seen_by()
    wanted = model.forward_features(x, cameras=seen)
    with torch.autocast("cpu", torch.bfloat16):
        got = model.forward_features(x, cameras=seen)
    assert (got - wanted).norm() / wanted.norm() < 0.03


def test_refused() -> None:
    model, seen = tiny_vit("prope"), seen_by()
    with pytest.raises(ValueError, match=r"images: shape \(2, 3, 16, 24\) with cameras; allowed: \(2, 3, C, height"):
        model(views()[:, 0], cameras=seen)
    with pytest.raises(ValueError, match=r"images: shape \(2, 2, 3, 16, 24\) with cameras; allowed: \(2, 3, C"):
        model(views(2, 2), cameras=seen)
    with pytest.raises(ValueError, match=r"images: shape \(1, 3, 3, 16, 24\) with cameras; allowed: \(2, 3, C"):
        model(views(1), cameras=seen)
    with pytest.raises(ValueError, match=r"images: shape \(2, 3, 3, 16, 24\); allowed: .*\(B, 3, height, width\)"):
        model(views())
    with pytest.raises(TypeError, match=r"cameras=Tensor are none; allowed: a visionpe.Cameras"):
        model(views(), cameras=seen.extrinsics)
    with pytest.raises(ValueError, match="cameras without intrinsics: 'rays'"):
        tiny_vit("rays")(views(), cameras=Cameras(seen.extrinsics))
    with pytest.raises(ValueError, match="lepe"):
        tiny_vit("lepe")(views(), cameras=seen)


@pytest.mark.parametrize(
    ("family", "message"),
    [("vitdet_b", "cameras: ViTDet attends in windows"), ("swin_t", "cameras"), ("cswin_t", "cameras")],
)
def test_other_backbones_refuse(family: str, message: str) -> None:
    model = randomize(timm.create_model(family, pos_encoding="prope", **MODELS[family]))
    assert model(torch.randn(1, 3, 32, 32)).isfinite().all()
    with pytest.raises((ValueError, TypeError), match=message):
        model(torch.randn(1, 2, 3, 32, 32), cameras=seen_by(1, 2))
    with pytest.raises(ValueError, match=r"images: shape \(1, 2, 3, 32, 32\); allowed"):
        model(torch.randn(1, 2, 3, 32, 32))
