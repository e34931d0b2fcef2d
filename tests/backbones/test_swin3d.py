"""The properties of Swin3D that any encoding in it must keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.optim import param_groups_layer_decay
from tiny_voxels import cloud, double, moved, tiny, without_pairs
from torch import Tensor

import visionpe
from visionpe.backbones.shared.voxel_level import Level, coarser
from visionpe.backbones.swin3d.layers import ResidualConvs
from visionpe.sparse import Voxels

IRREGULAR = [name for name in visionpe.list_encodings() if visionpe.get_encoding(name).irregular]
SPECS = [*IRREGULAR, "rope_mixed+cpe", "crse+rope_axial"]
# Windows of 4 and 5 cells, of 1, 2 and 4 voxels.
COMMON_MULTIPLE = 4 * 5 * 4


@pytest.mark.parametrize("spec", SPECS)
def test_translation_permutation_and_batches(spec: str) -> None:
    model, one, two = tiny(spec), double(cloud(150)), double(cloud(90, seed=1))
    odd = double(without_pairs(cloud(190)))
    with torch.no_grad():
        wanted = model(one)
        shift = COMMON_MULTIPLE * torch.tensor([1, -3, 2])
        torch.testing.assert_close(model(moved(one, shift)), wanted, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(model(Voxels.collate([one, two, one]))[150:240], model(two), atol=1e-9, rtol=1e-9)
        order, whole = torch.randperm(len(odd)), model(odd)
        assert len(odd) > 60
        mixed = Voxels(odd.features[order], odd.coords[order], odd.signals[order])
        torch.testing.assert_close(model(mixed), whole[order], atol=1e-9, rtol=1e-9)
        if spec != "none":  # and positions do matter
            signals = one.signals.clone()
            signals[:, :3] += 2 * one.coords[:, 1:]  # as far inside of their cells as before
            stretched = Voxels(one.features, one.coords * torch.tensor([1, 3, 3, 3]), signals)
            assert (model(stretched) - wanted).abs().max() > 1e-3


def test_places_of_a_level() -> None:
    """In cells of the level, from the lowest corner of each cloud."""
    x = Voxels.collate([moved(double(cloud(seed=i)), 7 * i * torch.ones(3).long()) for i in range(2)])
    level = coarser(Level(x, 64), 3)
    assert level.cloud_size == 22
    for i in range(2):
        own = level.voxels.cloud == i
        low = level.voxels.coords[own, 1:].amin(0)
        wanted = (level.voxels.positions[own] - low) / 3
        torch.testing.assert_close(level.places.coords[own], wanted)
        assert (level.places.coords[own] - level.cells.coords[own] + low / 3).amin() >= 0  # each inside its cell


def test_residual_convolutions() -> None:
    stem, x = ResidualConvs(6).double().eval(), double(cloud())
    torch.nn.init.zeros_(stem.conv2.kernel)
    around = Level(x, 64).around
    torch.testing.assert_close(stem(x.features, around), x.features.relu())
    torch.nn.init.normal_(stem.conv2.kernel)
    assert (stem(x.features, around) - x.features.relu()).abs().max() > 0.1


def test_every_encoding_differs() -> None:
    x = double(cloud())
    plain = dict(tiny("none").state_dict())
    outputs = []
    for name in IRREGULAR:
        model = tiny(name)
        model.load_state_dict({**model.state_dict(), **plain})
        with torch.no_grad():
            outputs.append(model(x))
    for i, a in enumerate(outputs):
        assert all((a - b).abs().max() > 1e-3 for b in outputs[:i]), IRREGULAR[i]


@pytest.mark.parametrize("spec", SPECS)
def test_every_parameter_learns(spec: str) -> None:
    model = tiny(spec).train()
    model(double(cloud())).square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # The longest distance in a window is above FIRE's random threshold; DPB's network has one channel at this width.
    assert not [name for name in missing if "fire.threshold" not in name and ".dpb.mlp." not in name]


@pytest.mark.parametrize("spec", ["crse", "rope_mixed", "cpe"])
def test_gradients(spec: str) -> None:
    options = {
        "embed_dims": (8, 12),
        "depths": (2, 1),
        "num_heads": (2, 1),
        "window_size": 3,
        "signals": "XYZ_RGB_NORM",
    }
    model, x = tiny(spec, **options), double(cloud(40, columns=6))
    names, values = zip(*((n, p.detach().requires_grad_()) for n, p in model.named_parameters()))
    leaves = [x.features.requires_grad_(), *values]

    def objective(features: Tensor, *values: Tensor) -> Tensor:
        y = torch.func.functional_call(model, dict(zip(names, values)), (Voxels(features, x.coords, x.signals),))
        return y.sin().sum()

    grads = torch.autograd.grad(objective(*leaves), leaves)
    for _ in range(3):  # along random directions of all of them at once
        way = [torch.randn_like(leaf) for leaf in leaves]
        with torch.no_grad():
            ahead, behind = (objective(*(a + t * b for a, b in zip(leaves, way))) for t in (1e-6, -1e-6))
        wanted = sum((g * w).sum() for g, w in zip(grads, way))
        torch.testing.assert_close((ahead - behind) / 2e-6, wanted, rtol=1e-5, atol=1e-5)


def test_recomputation_and_autocast() -> None:
    model, x = tiny().train(), cloud()
    weight = model.layers[0].blocks[0].attn.qkv.weight
    torch.manual_seed(0)  # the decoder drops paths
    plain = torch.autograd.grad(model(double(x)).square().sum(), weight)
    model.set_grad_checkpointing()
    torch.manual_seed(0)
    torch.testing.assert_close(torch.autograd.grad(model(double(x)).square().sum(), weight), plain)
    model.float().eval()
    with torch.no_grad():
        wide = model.forward_features(x).features
        with torch.autocast("cpu", torch.bfloat16):
            narrow = model.forward_features(x).features
    assert narrow.dtype == torch.float32  # the stream between the blocks
    assert (narrow - wide).norm() / wide.norm() < 0.05


def test_drop_path_draws_for_each_voxel() -> None:
    model = tiny(drop_path_rate=0.5).train()
    rates = [
        block.drop_path1.drop_prob for layer in model.layers for block in list(layer.blocks)[layer is model.layers[0] :]
    ]
    assert rates == pytest.approx([0.125, 0.25, 0.375, 0.5])
    block, level = model.layers[2].blocks[0], Level(double(cloud()), 64)
    x = torch.randn(150, 48, dtype=torch.float64)
    block.drop_path2.drop_prob = 0.0
    kept = block.drop_path1(torch.ones(1000, 48))
    assert 300 < (kept[:, 0] > 0).sum() < 700
    assert ((kept == kept[:, :1]).all(1)).all()
    assert block(x, model.layers[2].pos_encoding, level, level.cut(5, False)).shape == x.shape


@pytest.mark.parametrize(
    "options", [{"knn_down": False}, {"stem_transformer": False, "window_size": (0, 5, 5)}, {"decoder_attn": False}]
)
def test_variants(options: dict[str, Any]) -> None:
    model, x = tiny(**options), double(cloud())
    with torch.no_grad():
        assert model(x).shape == (150, 5)
        torch.testing.assert_close(model(moved(x, COMMON_MULTIPLE * torch.ones(3).long())), model(x))
    keys = model.state_dict().keys()
    if "knn_down" in options:
        assert "layers.0.downsample.norm.norm.weight" in keys
        assert "layers.0.downsample.linear.linear.weight" in keys
    if "stem_transformer" in options:
        assert "stem_layer.0.conv_layers.1.bn.weight" in keys
        assert "stem_layer.1.norm2.bn.weight" in keys
        assert "downsample.linear.weight" in keys
        assert len(model.layers) == 2
    assert any("upsamples.0.block." in key for key in keys) == (options.get("decoder_attn", True))
    model.load_state_dict(tiny(**options).state_dict())


def test_features_and_heads() -> None:
    x = double(cloud())
    encoder = tiny(model="swin3d_s", features_only=True, out_indices=(0, 1))
    assert encoder.feature_info.reduction() == [1, 2]
    assert not any(key.startswith("model.layers.2") for key in encoder.state_dict())
    with torch.no_grad():
        fine, coarse = encoder(x)
        assert torch.equal(fine.coords, x.coords)
        assert (coarse.coords[:, 1:] % 2 == 0).all()
        classifier = tiny(model="swin3d_s")
        pair = Voxels.collate([x, double(cloud(80, seed=3))])
        assert classifier(pair).shape == (2, 5)
        torch.testing.assert_close(classifier(pair)[:1], classifier(x))
        classifier.reset_classifier(0)
        assert classifier(pair).shape == (2, 48)
        last = classifier.forward_features(pair)
        torch.testing.assert_close(classifier(pair)[1], last.features[last.cloud == 1].mean(0))
        unet = tiny()
        unet.reset_classifier(7)
        assert unet.double().eval()(x).shape == (150, 7)
    groups = param_groups_layer_decay(tiny(), layer_decay=0.5)
    assert len({group["lr_scale"] for group in groups}) > 4
    assert any("crse" in name for name in tiny().no_weight_decay())


def test_one_voxel_and_two_in_different_clouds() -> None:
    model = tiny()
    one = Voxels(torch.randn(1, 6).double(), torch.zeros(1, 4).long(), torch.rand(1, 6).double())
    with torch.no_grad():
        assert model(one).isfinite().all()
        torch.testing.assert_close(model(Voxels.collate([one, one]))[1:], model(one))
    with pytest.raises(ValueError, match="1 voxel in the whole batch"):
        model.train()(one)


def test_bad_input() -> None:
    model, x = tiny(), double(cloud())

    def refused(match: str, **changes: Tensor) -> None:
        given = {"features": x.features, "coords": x.coords, "signals": x.signals, **changes}
        with pytest.raises(ValueError, match=match):
            model(tuple(given.values()))

    refused("features has 4 columns; allowed: in_chans=6", features=x.features[:, :4])
    refused("signals has 3 columns; a model of XYZ_RGB reads 6", signals=x.signals[:, :3])
    refused("signals has 5 columns; allowed: 3", signals=x.signals[:, :5])
    refused("one row a voxel; got 150 features, 149 coords", coords=x.coords[:-1])
    refused("whole numbers", coords=x.coords + 0.5)
    refused("int32", coords=x.coords + torch.tensor([0, 2**31, 0, 0]))
    refused("ascending order", coords=x.coords - torch.tensor([1, 0, 0, 0]))
    refused("1 rows whose cell is there already", coords=torch.cat((x.coords[:1], x.coords[:-1])))
    refused("signals hold NaN or infinity in 1 rows", signals=x.signals.index_fill(0, torch.tensor(3), torch.nan))
    refused("features hold NaN", features=x.features.index_fill(0, torch.tensor(3), torch.inf))
    refused("reach 127.5 in the columns of colour", signals=x.signals.index_fill(1, torch.tensor([4]), 127.5))
    refused("cloud, x, y, z", coords=x.coords[:, :3], signals=x.signals[:, :5])
    empty = {"features": x.features[:0], "coords": x.coords[:0], "signals": x.signals[:0]}
    refused("empty", **empty)
    for spec in ("ape", "rpb", "lepe", "irpe", "lape(fourier)", "dropped(rope_mixed)"):
        with pytest.raises(ValueError, match=f"{spec.split('(')[0]}' needs tokens that fill a grid"):
            tiny(spec)
    with pytest.raises(ValueError, match="one entry a level"):
        tiny(depths=(1, 1))
    with pytest.raises(ValueError, match="allowed: any of XYZ, RGB, NORM"):
        tiny(signals="XYZ_HSV")


def test_official_columns_and_clamp() -> None:
    """A batch column ahead of the signals is taken off; colours beyond the table take its last row."""
    model, x = tiny(), double(cloud())
    with torch.no_grad():
        wanted = model(x)
        official = torch.cat((x.coords[:, :1].double(), x.signals), dim=1)
        assert torch.equal(model((x.features, x.coords.int(), official)), wanted)
        colours = x.signals.clone()
        colours[:, 3:] *= 3
        assert model((x.features, x.coords, colours)).isfinite().all()
