"""TAPE: positions on their way from block to block, and the models that have no such way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from tape_vits import gradients, pictures, vit
from timm.layers import set_reentrant_ckpt

import visionpe
from visionpe import Grid, create_encoding


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    model, x = vit().train(), pictures()
    wanted = gradients(model, x)
    model.set_grad_checkpointing(True)
    set_reentrant_ckpt(reentrant)
    try:
        got = gradients(model, x)
    finally:
        set_reentrant_ckpt(False)
    for name, gradient in wanted.items():
        assert gradient.any(), name
        torch.testing.assert_close(got[name], gradient, msg=name)


@torch.no_grad()
def test_compiled() -> None:
    torch._dynamo.reset()
    model = vit(depth=2)
    whole, by_block = torch.compile(model, fullgraph=True, backend="aot_eager"), copy.deepcopy(model)
    for block in by_block.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    for compiled, x in ((whole, pictures()), (by_block, pictures()), (by_block, pictures(1, 3, 40, 16))):
        torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batching", ["pad", "pack"])
@torch.no_grad()
def test_images_of_several_sizes(batching: str) -> None:
    model = vit(reg_tokens=2)
    images = [pictures(3, *size) for size in ((24, 24), (12, 40), (24, 24), (8, 16))]
    for got, image in zip(model(images, batching=batching), images):
        torch.testing.assert_close(got, model(image[None])[0], atol=1e-5, rtol=1e-5)
    _, features = model.forward_intermediates(images)
    for got, image in zip(features[1], images):
        torch.testing.assert_close(got, model.forward_intermediates(image[None])[1][1][0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_models_in_turn() -> None:
    """Nothing is left in an encoding: two models, one block after the other, as if each ran alone."""
    one = vit()
    two, x, y = copy.deepcopy(one), pictures(), pictures(1, 3, 12, 12)
    for parameter in two.parameters():
        parameter.add_(0.05)
    wanted = one(x), two(y), one(y)
    (a, of_a), (b, of_b), (c, of_c) = one._embed(x), two._embed(y), one._embed(y)
    for index in range(3):
        c = one._block(index, c, of_c, None)
        a = one._block(index, a, of_a, None)
        b = two._block(index, b, of_b, None)
    for model, last, want in zip((one, two, one), (a, b, c), wanted):
        torch.testing.assert_close(model.forward_head(model.norm(last[0])), want)


def test_dropped_patches() -> None:
    """Patches that are left out are as those of an image without them, wherever the others stand."""
    model = vit(patch_drop_rate=0.5).train()
    torch.manual_seed(3)
    tokens, grid = model._embed(pictures())
    assert not grid.dense
    wanted = gradients(model, pictures())
    assert all(gradient.any() for gradient in wanted.values())
    x = tokens
    for index in range(3):
        x = model._block(index, x, grid, None)
    for sample in range(2):  # each alone
        own = Grid(grid.size, 1, coords=grid.coords[sample])
        y = tokens[sample : sample + 1]
        for index in range(3):
            y = model._block(index, y, own, None)
        torch.testing.assert_close(y[0][0], x[0][sample], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_positions_keep_their_digits() -> None:
    model = vit()
    for cast in (copy.deepcopy(model).bfloat16(), model):
        with torch.autocast("cpu", torch.bfloat16, enabled=cast is model):
            tokens, grid = cast._embed(pictures().to(cast.patch_embed.proj.weight.dtype))
            assert cast._block(0, tokens, grid, None)[1].dtype == torch.float32
            assert cast(pictures().to(tokens.dtype)).isfinite().all()
    first = model._block(0, *model._embed(pictures()), None)
    exact, rounded = (
        model.blocks[1](first[0], model.pos_encoding, Grid((6, 8), 1), None, places)[1]
        for places in (first[1], first[1].bfloat16())  # as a library may that rounds the inputs of every block
    )
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()


def test_random_coordinates_are_drawn_once() -> None:
    """Queries are turned by the positions that are carried on."""
    model, drawn = vit("tape(shift_coords=3)").train(), []
    start = model.pos_encoding["tape"].rotation
    model.pos_encoding["tape"].rotation = lambda *args, **kwargs: drawn.append(start(*args, **kwargs)) or drawn[-1]
    model(pictures()), model(pictures())
    assert len(drawn) == 2
    assert not torch.equal(*drawn)


@torch.no_grad()
def test_fewer_blocks() -> None:
    model, x = vit(), pictures()
    wanted = model.forward_intermediates(x, indices=[1], intermediates_only=True)[0]
    model.prune_intermediate_layers([1])
    assert len(model.blocks) == 2
    assert len(model.pos_encoding["tape"].by_tokens) == 1  # the last has nothing to hand on
    torch.testing.assert_close(model.forward_intermediates(x, indices=[1], intermediates_only=True)[0], wanted)
    assert not list(vit(depth=1).pos_encoding.parameters())


@torch.no_grad()
def test_talking_heads_and_masks() -> None:
    for keywords in (dict(talking_heads=True), {}):
        model, x = vit(**keywords), pictures()
        alone = torch.ones(49, 49, dtype=torch.bool)
        alone[:, 20] = False
        masked = model.forward_intermediates(x, attn_mask=alone, intermediates_only=True)[-1]
        x[..., 8:12, 12:16] += 5  # the patch of token 20, prefix token first
        moved = model.forward_intermediates(x, attn_mask=alone, intermediates_only=True)[-1]
        changed = (moved - masked).abs().amax(1).flatten(1) > 1e-5
        assert changed[:, 19].all()
        assert changed.sum() == 2


@pytest.mark.parametrize(
    "name", ["swin_t", "cswin_t", "vitdet_b", "mit_b0", "crossformer_t", "rmt_t", "cvt_13", "ptv3_s"]
)
def test_refused_by_name(name: str) -> None:
    found = timm.list_models(name) or timm.list_models(
        f"*{name.split('_')[0]}*_*", module=f"{name.split('_')[0]}_models"
    )
    with torch.device("meta"), pytest.raises(ValueError, match=r"pos_encoding='tape'.*allowed: a vit_\* model"):
        timm.create_model(found[0], pos_encoding="tape")


def test_refused_in_models_of_timm() -> None:
    for name in ("deit_tiny_patch16_224", "eva02_tiny_patch14_224"):
        with pytest.raises(ValueError, match=r"pos_encoding='tape'.*allowed: a vit_\* model"):
            visionpe.adapt(timm.create_model(name), pos_encoding="tape")


def test_names() -> None:
    assert timm.list_models("*tape_*") == [f"tape_vit_{size}" for size in ("b", "l", "s", "ti")]


def test_refused_specifications() -> None:
    context: dict[str, Any] = dict(dim=32, num_heads=2, depth=2, grid_size=(4, 4))
    for spec, message in (
        ("tape+rope_mixed", "'tape' turns queries and keys by what blocks make of the positions"),
        ("dropped(tape)", "what 'tape' does to values"),
        ("harope(tape)", "is not one rotary encoding"),
    ):
        with pytest.raises(ValueError, match=message):
            create_encoding(spec, **context)
    model = vit()
    tokens, grid = model._embed(pictures())
    with pytest.raises(ValueError, match="tape: block 1 is given no positions of the block before it"):
        model.blocks[1](tokens, model.pos_encoding, grid)


def test_state_does_not_follow_the_size() -> None:
    shapes = [{k: v.shape for k, v in vit(img_size=size).state_dict().items()} for size in (24, 48)]
    assert shapes[0] == shapes[1]
