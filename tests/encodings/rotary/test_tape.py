"""TAPE: the formula once more, and what turns and shifts leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from tape_vits import OPTIONS, gradients, pictures, vit
from torch import Tensor

import visionpe


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


def test_a_new_model_can_leave_rope() -> None:
    found = gradients(timm.create_model("none_vit_ti", pos_encoding="tape", **OPTIONS), pictures())
    for name, gradient in found.items():  # of the others as soon as `up` is not zero
        assert gradient.any() == (".by_attention." in name or name.endswith(".up")) or ".by_" not in name, name


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
