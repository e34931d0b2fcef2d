"""Point Transformer V3 against a slow one of its own, and the properties that any encoding in it must keep."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from plain_ptv3 import PlainPTv3, along, published_state
from tiny_ptv3 import TINY, grid_sampled, tiny

import visionpe
from visionpe.backbones.ptv3.patches import CurvePatches, cut_line, reach
from visionpe.backbones.shared.voxel_level import Level
from visionpe.sparse import ORDERS, Voxels, curve_order

IRREGULAR = [name for name in visionpe.list_encodings() if visionpe.get_encoding(name).irregular]


@pytest.mark.parametrize("order", ORDERS)
def test_curves(order: str) -> None:
    cells = torch.cartesian_prod(*[torch.arange(4)] * 3)
    rows = curve_order(cells, torch.zeros(len(cells), dtype=torch.long), order).tolist()  # type: ignore[arg-type]
    assert rows == sorted(range(len(cells)), key=lambda i: along(order, cells[i].tolist(), 2))
    if "hilbert" in order:  # neighbours on the line are neighbours in space
        assert (cells[rows].diff(dim=0).abs().sum(1) == 1).all()
    two = torch.arange(64) % 2
    rows = curve_order(cells, two, order, bits=5).tolist()  # type: ignore[arg-type]
    assert rows == sorted(range(64), key=lambda i: (int(two[i]), along(order, cells[i].tolist(), 5)))


def test_curves_that_do_not_reach() -> None:
    cells, none = torch.tensor([[0, 1, 9]]), torch.tensor([0])
    for bad, message in ((cells - 1, r"-1 to 8 cells; allowed: 0 to"), (cells * 2**13, "0 to 65535")):
        with pytest.raises(ValueError, match=message):
            curve_order(bad, none, "z")
    with pytest.raises(ValueError, match="allowed: 0 to 7"):
        curve_order(cells, none, "z", bits=3)
    with pytest.raises(ValueError, match=r"order='peano'.*hilbert"):
        curve_order(cells, none, "peano")  # type: ignore[arg-type]


def test_patches() -> None:
    assert cut_line([10, 3, 8], 4) == {4: [0, 4, 6, 13, 17], 3: [10]}
    voxels = grid_sampled(90, clouds=2)
    level = Level(voxels, 64)
    cut = CurvePatches(level, "z", 5, 16)
    x = torch.randn(len(voxels), 3)
    parts = cut.split(x)
    assert torch.equal(cut.join(parts), x)
    assert [tuple(part.shape[:2]) for part in parts] == [(10, 16)]
    for pack, part in zip(cut.packs, cut.split(voxels.coords)):
        assert (part[..., 0] == part[:, :1, 0]).all()  # no patch holds voxels of two clouds
        assert torch.equal(pack.grid.coords, (part[..., 1:] - part[..., 1:].amin(1, keepdim=True)).double())
    equal = CurvePatches(Level(voxels, 64), "z", 5, 70, equal=True)
    assert [tuple(part.shape[:2]) for part in equal.split(x)] == [(3, 60)]


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("form", ["conv", "linear"])
def test_against_loops(form: str, table: bool) -> None:
    spec = "xcpe+rpb_axes" if table else "xcpe"
    scales = {"init_values": 0.4} if form == "linear" else {}
    model = tiny(form=form, pos_encoding=spec, num_classes=0, patch_size=12, **scales)
    plain = PlainPTv3(
        published_state(model, table),
        orders=ORDERS,
        strides=(2, 2),
        heads=TINY["num_heads"],
        decoder_heads=TINY["decoder_heads"],
        patch=12,
        form=form,
        rpe=table,
    )
    batch = grid_sampled(60, clouds=2)
    with torch.no_grad():
        own, wanted = model(batch), plain(batch.features, batch.coords)
    torch.testing.assert_close(own, wanted, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("form", "seen"), [("conv", [3, 2, 1]), ("linear", [3, 3, 2])])
def test_bits_of_the_levels(form: str, seen: list[int]) -> None:
    """The first code counts down from those of the finest level, Sonata's counts anew: 6 + 1, 3 + 1, 1 + 1."""
    model, coords = tiny("ptv3_b", form=form), torch.tensor([[0, 0, 0, 0], [0, 6, 5, 1], [0, 3, 2, 6]])
    voxels = (torch.randn(3, 6, dtype=torch.float64), coords, coords[:, 1:] + 0.5)
    with torch.no_grad():
        assert [bits for *_, bits in model.walk(voxels)] == seen


def test_drop_path() -> None:
    """It grows along the encoder, and falls in every level of the decoder, as published."""
    model = tiny(drop_path_rate=0.3)
    rates = [
        [block.drop_path1.drop_prob for block in stage.blocks if hasattr(block.drop_path1, "drop_prob")]
        for stage in (*model.stages, *model.decoder)
    ]
    assert [[round(rate, 4) for rate in some] for some in rates] == [[0.1], [0.2], [0.3], [0.3], [0.15]]


@pytest.mark.parametrize("name", ["ptv3_b_unet", "ptv3_l_unet"])
def test_published_keys(name: str, tmp_path: Path) -> None:
    model = tiny(name, pos_encoding="xcpe+rpb_axes")
    state = published_state(model, True)
    file = {f"module.{'' if 'seg_head' in key else 'backbone.'}{key}": value for key, value in state.items()}
    file["module.backbone.embedding.mask_token"] = torch.zeros(1, 24)
    torch.save({"state_dict": file, "epoch": 3}, tmp_path / "published.pth")
    options = {**TINY, "pos_encoding": "xcpe+rpb_axes", "checkpoint_path": str(tmp_path / "published.pth")}
    other = timm.create_model(name, **options).double().eval()
    x = grid_sampled()
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x))
        encoder = {key: value for key, value in options.items() if not key.startswith("decoder")}
        alone = timm.create_model(name.removesuffix("_unet"), **{**encoder, "num_classes": 0}).double().eval()
        torch.testing.assert_close(alone.encode(x)[-1][0], model.encode(x)[-1][0])
    first = {key: value.permute(1, 2, 3, 4, 0) if value.ndim == 5 else value for key, value in state.items()}
    other.load_state_dict(first)  # as the first version of spconv stores its kernels
    torch.testing.assert_close(other.state_dict(), model.state_dict())
    with pytest.raises(RuntimeError, match=r"enc\.enc0\.block0|blocks\.0"):
        other.load_state_dict({key: value for key, value in state.items() if "enc0.block0.norm1" not in key})


def test_published_sizes() -> None:
    millions = {}
    with torch.device("meta"):
        for name in ("ptv3_b", "ptv3_b_unet", "ptv3_l"):
            millions[name] = sum(p.numel() for p in timm.create_model(name).parameters()) / 1e6
    assert {name: round(count, 1) for name, count in millions.items()} == {
        "ptv3_b": 38.7,
        "ptv3_b_unet": 46.2,  # as the paper says
        "ptv3_l": 108.5,  # as Sonata's
    }


@pytest.mark.parametrize("spec", [*IRREGULAR, "xcpe+rpb_axes", "xcpe+rope_axial"])
def test_rows_batches_and_gradients(spec: str) -> None:
    model, one, two = tiny(pos_encoding=spec), grid_sampled(130), grid_sampled(70, seed=3)
    with torch.no_grad():
        wanted = model(one)
        order = torch.randperm(len(one))
        mixed = Voxels(one.features[order], one.coords[order], one.signals[order])
        torch.testing.assert_close(model(mixed), wanted[order], atol=1e-9, rtol=1e-9)
        batch = Voxels.collate([one, two])
        torch.testing.assert_close(model(batch)[: len(one)], wanted, atol=1e-9, rtol=1e-9)
        if spec != "none":
            without = tiny(pos_encoding="none")
            without.load_state_dict({k: v for k, v in model.state_dict().items() if k in without.state_dict()})
            assert (without(one) - wanted).abs().max() > 1e-3
    model.train()
    model(one).square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not [name for name in missing if "fire.threshold" not in name and ".dpb.mlp." not in name]


def test_orders_are_drawn_in_training_alone() -> None:
    model, x = tiny(), grid_sampled()
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        model.orders = model.orders[::-1]
        turned = model(x)
        model.orders = model.orders[::-1]
        assert (model(x) - turned).abs().max() > 1e-3
        for shuffle in (True, False):
            model.shuffle_orders = shuffle
            seen = {tuple(model.train()._turns()) for _ in range(20)}
            assert (len(seen) > 1) == shuffle


def test_conventions() -> None:
    model, x = tiny("ptv3_b"), grid_sampled()
    with torch.no_grad():
        assert model(x).shape == (1, 5)
        final, levels = model.forward_intermediates(x)
        assert [level.features.shape[1] for level in levels] == [24, 24, 48]
        assert [level.stride for level in levels] == [1, 2, 4]
        assert torch.equal(model.forward_head(final), model(x))
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), model(x))
        pair = model((x.features, x.coords))
        assert torch.equal(pair, model(x))
        (features,) = timm.create_model(
            "ptv3_b", **{k: v for k, v in TINY.items() if "decoder" not in k}, features_only=True, out_indices=(1,)
        ).double()(x)
        assert features.features.shape[1] == 24
    model.set_grad_checkpointing()
    model.train().shuffle_orders = False
    again = copy.deepcopy(model)
    again.set_grad_checkpointing(False)
    for each in (model, again):
        torch.manual_seed(0)
        each(x).sum().backward()
    for (name, p), q in zip(model.named_parameters(), again.parameters()):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    assert all(".xcpe." not in name for name in model.no_weight_decay())


def test_half_precision() -> None:
    model, x = tiny().float(), grid_sampled()
    x = Voxels(x.features.float(), x.coords, x.signals.float())
    with torch.no_grad():
        wanted = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x)
    assert rough.dtype == torch.bfloat16
    assert (rough - wanted).abs().mean() < 0.1 * wanted.abs().mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (2,)}, r"strides=\(2,\) must be 2 numbers"),
        ({"orders": ("z", "spiral")}, r"orders=\('z', 'spiral'\): allowed: one or more of z, z-trans, hilbert"),
        ({"orders": ()}, "allowed: one or more of z"),
        ({"patch_size": 0}, r"patch_size=\(?0"),
        ({"decoder_dims": (12,), "decoder_depths": (1,), "decoder_heads": (2,)}, "one for each of 2 finer levels"),
        ({"form": "bn"}, "form='bn'.*conv, linear"),
        ({"curve_margin": -1}, "curve_margin=-1"),
        ({"pos_encoding": "ape"}, "'ape' needs tokens that fill a grid"),
        ({"shuffle_order": True}, "takes no keyword 'shuffle_order'; did you mean shuffle_orders"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        tiny(**options)


def test_refused_voxels() -> None:
    model, x = tiny(), grid_sampled()
    low = x.coords - torch.tensor([0, 0, 0, 30])
    with pytest.raises(ValueError, match=r"coords reach from -.* allowed: 0 to 65535, as grid sampling gives them"):
        model((x.features, low))
    with pytest.raises(ValueError, match="features has 5 columns; allowed: in_chans=6"):
        model((x.features[:, :5], x.coords))


def test_reach() -> None:
    """As wide as the published table of a patch of 48 and of 1024 points."""
    assert [reach(size) for size in (48, 128, 1024)] == [11, 15, 31]


def test_memory_is_linear_in_the_voxels() -> None:
    """A patch attends within itself: twice the voxels are twice the parts."""
    voxels = grid_sampled(150)
    cut = CurvePatches(Level(voxels, 64), "hilbert", 5, 16)
    parts = cut.split(torch.zeros(len(voxels), 1))
    assert sum(part.shape[0] * part.shape[1] for part in parts) < len(voxels) + 16
