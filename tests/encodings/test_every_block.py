"""LaPE's share and unshare against its published code, and where they join the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import randomize
from reference_files import close
from safetensors.torch import load_file
from torch import Tensor
from zoo_checks import check_compile, check_export, check_sizes, make

import visionpe
from visionpe import Grid

REFERENCE = Path(__file__).parents[1] / "reference"
BODY: dict[str, Any] = {
    "img_size": 12, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 2, "num_classes": 3,
}  # fmt: skip


def published(mode: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    data = load_file(REFERENCE / "lape_join.safetensors")
    return data, {k.partition(".")[2]: v for k, v in data.items() if k.startswith(mode + ".")}


@torch.no_grad()
def test_published_share() -> None:
    data, state = published("share")
    spec = "every_block(ape, shared=True, prefix_slots=1)"
    model = timm.create_model("every_block_vit_ti", pos_encoding=spec, init_values=0, **BODY).eval()
    table = state.pop("pos_embed")
    state["cls_token"] = state["cls_token"] + table[:, :1]
    state["pos_encoding.every_block.prefix_table"] = table[:, :1]
    state["pos_encoding.every_block.tables.0.table"] = table[0, 1:].unflatten(0, (3, 3))
    model.load_state_dict(state)
    close(model(data["x"]), data["out.share"])


@torch.no_grad()
def test_published_unshare(tmp_path: Path) -> None:
    """Its file loads as it is, and at another size as DeiT resizes tables."""
    data, state = published("unshare")
    torch.save({"model": state}, tmp_path / "unshare.pth")
    options = {**BODY, "checkpoint_path": tmp_path / "unshare.pth"}
    model = timm.create_model("every_block_vit_ti", pos_encoding="every_block(ape, prefix_slots=1)", **options).eval()
    close(model(data["x"]), data["out.unshare"])
    assert {part.policy for part in model.pos_encoding["every_block"].tables} == {"bicubic"}
    assert model(torch.randn(1, 3, 24, 16)).isfinite().all()
    for spec in ("every_block(ape, shared=True, prefix_slots=1)", "every_block(fourier, prefix_slots=1)"):
        with pytest.raises(RuntimeError, match="has no table for every block, as the file"):
            timm.create_model("every_block_vit_ti", pos_encoding=spec, **options)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("inner", ["ape", "sincos", "fourier"])
@torch.no_grad()
def test_ahead_of_every_block(inner: str, shared: bool) -> None:
    """And behind none."""
    spec = {"name": "every_block", "over": inner, "shared": shared, "prefix_slots": 1}
    encoding, grid, x = make(spec, depth=3), Grid((3, 7), 2), torch.randn(2, 23, 16)
    part: Any = encoding["every_block"]
    blank = torch.zeros(1, 21, 16)
    p = [part.tables[0 if shared else layer].add(blank, Grid((3, 7))) for layer in range(3)]
    torch.testing.assert_close(encoding.add(x[:, 2:], grid), x[:, 2:] + p[0])
    for layer in range(2):
        slots = torch.cat((part.prefix_table[0 if shared else layer + 1], torch.zeros(1, 16)))  # the second has none
        wanted = x + torch.cat((slots[None], p[layer + 1]), dim=1)
        torch.testing.assert_close(encoding.refine(x, grid, layer=layer), wanted)
    assert torch.equal(encoding.refine(x, grid, layer=2), x)


def test_coordinates_of_each_sample() -> None:
    encoding = make("every_block")
    coords = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[3.0, 0.0], [1.0, 1.0]]])
    whole = encoding.refine(torch.zeros(1, 17, 16), Grid((4, 4), 1), layer=0)[0]
    some = encoding.refine(torch.zeros(2, 3, 16), Grid((4, 4), 1, coords=coords), layer=0)
    torch.testing.assert_close(some, whole[torch.tensor([[0, 2, 12], [0, 13, 6]])])


@pytest.mark.parametrize("spec", ["every_block(ape)", "every_block(ape, shared=True)", "dropped(every_block(ape))"])
@pytest.mark.parametrize("name", ["none_swin_t", "none_cswin_t"])
def test_later_stages(name: str, spec: str) -> None:
    """They have tables of their own, ahead of their first blocks too."""
    options: dict[str, Any] = {"embed_dim": 16, "img_size": 64, "num_classes": 0, "pos_encoding": spec}
    options |= {"num_heads": (2, 2), "depths": (1, 2), "window_size": 4} if "_swin" in name else {}
    options |= {"num_heads": (2, 2, 2, 2), "depths": (1, 1, 1, 1)} if "cswin" in name else {}
    model = randomize(timm.create_model(name, **options))
    x = torch.randn(1, 3, 64, 96)
    model(x).square().sum().backward()
    tables = {key: p for key, p in model.named_parameters() if ".table" in key}
    assert len({key.partition(".tables")[0] for key in tables}) == len(model.stages)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tables.values())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hiera_tiny_224", {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1), "img_size": 64}),
        ("maxvit_tiny_tf_224", {"img_size": 64}),
        ("coatnet_0_rw_224", {"img_size": 64}),
    ],
)
def test_where_the_first_block_of_a_stage_changes_the_width(name: str, options: dict[str, Any]) -> None:
    model = timm.create_model(name, num_classes=0, **options)
    for spec in ("every_block", "dropped(every_block(ape))"):
        with pytest.raises(ValueError, match="acts on the input of every block, whose width changes within a stage"):
            visionpe.adapt(model, pos_encoding=spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("every_block(rope_mixed)", "over='rope_mixed' is not one absolute encoding"),
        ("every_block(ape+sincos)", r"over='ape\+sincos' is not one absolute encoding"),
        ("every_block(lape)", "over='lape' is not one absolute encoding"),
        ("every_block(dropped(ape))", "put the wrapper around every_block instead"),
    ],
)
def test_bad_specifications(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(spec)


@pytest.mark.parametrize("spec", ["every_block(ape)", "every_block(fourier, shared=True)"])
def test_in_a_model(spec: str) -> None:
    check_sizes(spec)
    check_export(spec)
    check_compile(spec)
