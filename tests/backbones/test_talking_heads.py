"""Heads that mix their logits and their weights, against the formula."""

from __future__ import annotations

import pytest
import timm
import torch
from conftest import tiny_vit

import visionpe
from visionpe.attention import kernels
from visionpe.attention.dispatch import AttentionWeights

SPECS = ["none", "alibi+ape", {"name": "irpe", "on": "qkv"}, {"name": "shaw", "values": True}, "rope_mixed"]


def mixing(spec: object, **kwargs: object) -> torch.nn.Module:
    model = tiny_vit(spec, talking_heads=True, **kwargs)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.mix_logits.normal_()
            block.attn.mix_weights.normal_()
    return model


@pytest.mark.parametrize("spec", SPECS)
@torch.no_grad()
def test_at_first_heads_keep_to_themselves(spec: object) -> None:
    plain, x = tiny_vit(spec), torch.randn(2, 3, 24, 32)
    talking = timm.create_model(
        "none_vit_ti", pos_encoding=spec, talking_heads=True, img_size=24, patch_size=4, embed_dim=32, depth=2,
        num_heads=2, num_classes=5,
    ).eval()  # fmt: skip
    talking.load_state_dict(talking.state_dict() | plain.state_dict())
    torch.testing.assert_close(talking(x), plain(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attention, pair by pair, in one piece and in several; a mask hides keys from all heads."""
    model = mixing("alibi")
    attn, grid = model.blocks[0].attn, visionpe.Grid((3, 4), 1)
    x, hidden = torch.randn(2, 13, 32), torch.zeros(13, 13, dtype=torch.bool)
    hidden[:, 5] = True
    q, k, v = attn.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
    (bias,) = model.pos_encoding.bias(q, k, grid)
    logits = q @ k.mT / 4 + bias.matrix(q.dtype)
    mixed = sum(attn.mix_logits[:, h, None, None] * logits[:, h, None] for h in range(2))
    weights = mixed.masked_fill(hidden, float("-inf")).softmax(-1)
    weights = sum(attn.mix_weights[:, h, None, None] * weights[:, h, None] for h in range(2))
    wanted = attn.proj((weights @ v).transpose(1, 2).flatten(2))
    for size in (kernels.CHUNK_BYTES, 100):
        monkeypatch.setattr(kernels, "CHUNK_BYTES", size)
        got = attn(x, model.pos_encoding, grid, attn_mask=~hidden)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_other_values() -> None:
    """What reads the weights for values of its own gets those that were mixed."""
    attn, (q, k) = mixing("none").blocks[0].attn, torch.randn(2, 2, 2, 13, 16)
    _, weights = attn.attended(k, AttentionWeights(q, k))
    values = torch.randn(1, 1, 13, 5)
    torch.testing.assert_close(weights.of(values), weights.rows(0, 13) @ values, atol=1e-5, rtol=1e-5)
    plain = AttentionWeights(q, k).of(values)
    torch.testing.assert_close(plain, AttentionWeights(q, k).rows(0, 13) @ values, atol=1e-5, rtol=1e-5)


def test_in_a_model() -> None:
    model = mixing("rope_mixed+ape").train()
    model(torch.randn(2, 3, 24, 24)).square().sum().backward()
    assert all(b.attn.mix_logits.grad.abs().sum() and b.attn.mix_weights.grad.abs().sum() for b in model.blocks)
    visionpe.set_policy(model.eval(), "temperature+decay")
    assert model(torch.randn(1, 3, 48, 40)).isfinite().all()


def test_refusals() -> None:
    with pytest.raises(
        ValueError, match="'manhattan' attends along rows, then columns, where talking_heads=True finds"
    ):
        mixing({"name": "manhattan", "form": "axial"})
    with pytest.raises(ValueError, match="talking_heads=True: heads in windows do not mix; allowed: False"):
        timm.create_model("vitdet_b", talking_heads=True, depth=1)
