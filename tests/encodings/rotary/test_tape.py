"""TAPE: the formula once more, what turns and shifts leave alone, and positions on their way from block to block."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from conftest import randomize
from timm.layers import set_reentrant_ckpt
from torch import Tensor

import visionpe
from visionpe import Grid, create_encoding

OPTIONS: dict[str, Any] = dict(img_size=24, patch_size=4, embed_dim=32, depth=3, num_heads=2, num_classes=5)


def vit(spec: object = "tape", **kwargs: Any) -> Any:
    model = timm.create_model("none_vit_ti", pos_encoding=spec, **{**OPTIONS, "init_values": 1.0, **kwargs})
    model = randomize(model)
    for name, parameter in model.named_parameters():  # so that what blocks do to positions shows
        if ".by_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def pictures(*size: int) -> Tensor:
    return torch.randn(*(size or (2, 3, 24, 32)))


def starts(size: tuple[int, int], prefix: int, theta: float) -> Tensor:
    """A number of length 1 for every token and pair: columns first, then rows; ``(N, 8)``."""
    ladder = theta ** (-torch.arange(4, dtype=torch.float64) / 4)
    angles = [torch.zeros(8)] * prefix
    angles += [torch.cat((x * ladder, y * ladder)) for y in range(size[0]) for x in range(size[1])]
    return torch.stack([torch.polar(torch.ones(8, dtype=torch.float64), a.double()) for a in angles])


def as_pairs(x: Tensor, layout: str) -> Tensor:
    """Channels ``(N, 16)`` as complex numbers ``(N, 8)``."""
    if layout == "adjacent":
        return torch.complex(x[:, 0::2], x[:, 1::2])
    if layout == "half":
        return torch.complex(x[:, :8], x[:, 8:])
    return torch.complex(x[:, [0, 1, 2, 3, 8, 9, 10, 11]], x[:, [4, 5, 6, 7, 12, 13, 14, 15]])


def written_out(model: Any, x: Tensor, e: Tensor, layout: str) -> Tensor:
    """All blocks of one image, one head and token after the other."""
    places = [e.clone(), e.clone()]  # of each head
    part = model.pos_encoding["tape"]
    for index, block in enumerate(model.blocks):
        q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, 2, 16)).unbind(1)  # (N, 2, 16)
        attended = []
        for head in range(2):
            turned_q, turned_k = (as_pairs(t[:, head], layout) * places[head] for t in (q, k))
            weights = ((turned_q @ turned_k.conj().T).real / 4).softmax(-1)
            attended.append(weights @ v[:, head])
            if index < 2:
                places[head] = places[head] + part.by_attention[index].weight[head] * (
                    weights.to(e.dtype) @ places[head]
                )
        x = x + block.ls1(block.attn.proj(torch.cat(attended, dim=-1)))
        fed = block.mlp(block.norm2(x))
        x = x + block.ls2(fed)
        if index < 2:
            told = part.by_tokens[index]
            up, down, gate = told.up, told.down, told.gate.weight
            moved = [place.clone() for place in places]
            for n, m in enumerate(fed):
                channels = torch.stack([sum(up[c, h] * places[h][n] for h in range(2)) for c in range(len(up))])
                channels = channels * torch.nn.functional.silu(gate @ m)[:, None]
                for head in range(2):
                    moved[head][n] += down[head].to(e.dtype) @ channels
            places = moved
    return model.norm(x)


@pytest.mark.parametrize(("layout", "theta"), [("adjacent", 100.0), ("half", 20.0), ("axis_half", 100.0)])
@torch.no_grad()
def test_formula(layout: str, theta: float) -> None:
    model = vit({"name": "tape", "layout": layout, "theta": theta}, reg_tokens=1).double()
    images = pictures(2, 3, 20, 12).double()
    tokens, _ = model._embed(images)
    wanted = torch.stack([written_out(model, x, starts((5, 3), 2, theta), layout) for x in tokens])
    torch.testing.assert_close(model.forward_features(images), wanted, atol=1e-7, rtol=1e-7)
    plain = vit({"name": "rope_axial", "layout": layout, "theta": theta}, reg_tokens=1).double()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".by_" not in k})
    assert (plain.forward_features(images) - wanted).abs().max() > 0.1


@pytest.mark.parametrize("policy", ["extrapolate", "interpolate", "ntk", "yarn", "p(0.3)"])
@pytest.mark.parametrize("options", ["", "(layout=half, grid_offset=2)", "(grid_indexing=ij, theta=20)"])
@torch.no_grad()
def test_starts_as_rope(policy: str, options: str) -> None:
    """Newly built it is ``rope_axial``, under every policy of that; a policy is of where positions start."""
    ours = timm.create_model("none_vit_ti", pos_encoding=f"tape{options}", **OPTIONS).eval()
    rope = timm.create_model("none_vit_ti", pos_encoding=f"rope_axial{options}", **OPTIONS).eval()
    with pytest.raises(RuntimeError, match=r"tape\.by_"):  # of nothing else than these
        rope.load_state_dict(ours.state_dict())
    rope.load_state_dict({k: v for k, v in ours.state_dict().items() if ".by_" not in k})
    for block in (*ours.blocks, *rope.blocks):
        torch.nn.init.ones_(block.ls1.gamma), torch.nn.init.ones_(block.ls2.gamma)
    x = pictures(1, 3, 40, 28)
    before = ours.forward_features(x)
    for model in (ours, rope):
        visionpe.set_policy(model, policy)
    torch.testing.assert_close(ours.forward_features(x), rope.forward_features(x), atol=1e-5, rtol=1e-5)
    if policy != "extrapolate":
        assert (ours.forward_features(x) - before).abs().max() > 1e-4


@torch.no_grad()
def test_a_turn_of_all_positions_changes_nothing() -> None:
    """Each pair of channels by an angle of its own, in all heads and tokens, prefix tokens too."""
    model, x = vit().double(), pictures().double()
    part, wanted = model.pos_encoding["tape"], model(x)
    start = part.rotation
    by = torch.polar(torch.ones(8).double(), torch.rand(8).double() * 6)

    def turned(*args: Any, **kwargs: Any) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(start(*args, **kwargs).contiguous()) * by)

    part.rotation = turned
    torch.testing.assert_close(model(x), wanted, atol=1e-10, rtol=1e-10)
    part.rotation = lambda *args, **kwargs: turned(*args, **kwargs)[:, torch.arange(49) % 48]  # some other places
    assert (model(x) - wanted).abs().max() > 1e-3


@torch.no_grad()
def test_positions_have_no_origin() -> None:
    """But that of prefix tokens, which start unturned."""
    images = pictures().double()
    for keywords, moves in ((dict(class_token=False, global_pool="avg"), False), (dict(reg_tokens=1), True)):
        here, there = vit(**keywords).double(), vit("tape(grid_offset=5)", **keywords).double()
        there.load_state_dict(here.state_dict())
        difference = (here.forward_features(images) - there.forward_features(images)).abs().max()
        assert difference > 1e-3 if moves else difference < 1e-6  # angles are of float32 frequencies


@torch.no_grad()
def test_lying_image() -> None:
    """With rows and columns told apart by the same channels, a transposed image has transposed features."""
    upright, lying = vit().double(), vit("tape(grid_indexing=ij)").double()
    lying.load_state_dict(upright.state_dict())
    lying.patch_embed.proj.weight.copy_(upright.patch_embed.proj.weight.mT)
    x = pictures().double()
    one, other = (m.forward_intermediates(t, indices=1)[1][0] for m, t in ((upright, x), (lying, x.mT)))
    torch.testing.assert_close(one, other.mT, atol=1e-9, rtol=1e-9)


def gradients(model: Any, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}  # each has one


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


def test_a_new_model_can_leave_rope() -> None:
    found = gradients(timm.create_model("none_vit_ti", pos_encoding="tape", **OPTIONS), pictures())
    for name, gradient in found.items():  # of the others as soon as `up` is not zero
        assert gradient.any() == (".by_attention." in name or name.endswith(".up")) or ".by_" not in name, name


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


@pytest.mark.parametrize("spec", ["tape+lepe", "rpb+tape", "lape(ape)+tape+cpe", "tape+irpe", "tape+alibi"])
@torch.no_grad()
def test_beside_others(spec: str) -> None:
    """Other parts do what they do without it: positions that never move are those of ``rope_axial``."""
    model, plain = vit(spec), vit(spec.replace("tape", "rope_axial"))
    x = pictures()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".by_" not in k})
    assert (model(x) - plain(x)).abs().max() > 1e-3
    model.pos_encoding["tape"].by_attention.apply(lambda m: m.weight.zero_() if hasattr(m, "weight") else None)
    model.pos_encoding["tape"].by_tokens.apply(lambda m: m.up.zero_() if hasattr(m, "up") else None)
    torch.testing.assert_close(model(x), plain(x), atol=1e-5, rtol=1e-5)


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
