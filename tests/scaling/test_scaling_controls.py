"""Controls of the resolution study, and what attention is measured to do."""

from __future__ import annotations

from itertools import pairwise
from math import log

import pytest
import timm
import torch
from conftest import tiny_vit
from torch import nn

import visionpe
from visionpe import Grid
from visionpe.attention import kernels
from visionpe.attention.dispatch import AttentionWeights
from visionpe.scaling.controls import TiledModel, tile_grid, tile_starts, tiles
from visionpe.scaling.diagnostics import record_attention
from visionpe.scaling.row import measure
from visionpe.scaling.statistics import unpack_classes
from visionpe.utils.resizing import resize_images
from visionpe.viewing.attention import AttentionLayer


@pytest.mark.parametrize("length", [24, 25, 47, 48, 49, 60, 72, 100])
def test_tiles_of_an_axis(length):
    begin = tile_starts(length, 24)
    assert (begin[0], begin[-1]) == (0, length - 24)
    assert len(begin) == -(-length // 24)  # as few as can cover it
    steps = [b - a for a, b in pairwise(begin)]
    assert max(steps, default=0) <= 24  # no gap
    assert max(steps, default=0) - min(steps, default=0) <= 1  # evenly spread


def test_tiles():
    images = torch.rand(2, 3, 48, 60)
    cut = tiles(images, (24, 24))
    assert cut.shape == (2, 6, 3, 24, 24)
    assert tile_grid((48, 60), (24, 24)) == (2, 3)
    assert cut[:, 1].equal(images[..., :24, 18:42])
    assert cut[:, 3].equal(images[..., 24:, :24])
    assert tiles(images, (48, 60))[:, 0].equal(images)
    narrow = tiles(images, (48, 72))  # a shorter axis is resized, as downscale does
    assert narrow[:, 0].equal(resize_images(images, (48, 72)))
    both = tiles(images, (24, 72))
    assert both.shape == (2, 2, 3, 24, 72)
    assert both[:, 1].equal(resize_images(images, (48, 72))[..., 24:, :])


class Corner(nn.Module):
    """Logits that the upper left pixel decides, and a product to count."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        flat = x.flatten(1)
        return nn.functional.one_hot(x[:, 0, 0, 0].long(), 10).float() + 0 * (flat @ flat.new_ones(flat.shape[1], 10))


def test_measure_over_tiles():
    image = torch.zeros(1, 8, 8)
    image[0, :4, 4:], image[0, 4:, :4], image[0, 4:, 4:] = 3, 3, 7  # tiles vote 0, 3, 3, 7
    images, labels = image.repeat(6, 1, 1, 1), torch.full((6,), 3)
    model = Corner()
    row = measure(model, [(images, labels, [])], device=torch.device("cpu"), tile_to=(4, 4))
    assert row["top1"] == 100
    assert unpack_classes(row["predicted"]).tolist() == [3] * 6
    assert row["flops"] == 4 * 2 * 16 * 10  # of all tiles
    assert {shape[-2:] for shape in model.seen} == {(4, 4)}
    assert max(shape[0] for shape in model.seen) == 6  # no more at a time than images
    logits = TiledModel(model)(tiles(images, (4, 4)))
    assert logits[0].tolist() == [0.25, 0, 0, 0.5, 0, 0, 0, 0.25, 0, 0]


def weights_of(q, k, **kwargs):
    return AttentionWeights(q, k, **kwargs)


def spread(weights, grid):
    return tuple(float(each.mean()) for each in AttentionLayer(weights, grid).spread())


def test_spread_of_equal_weights():
    grid = Grid((2, 3), prefix=1)
    q = torch.zeros(2, 4, 7, 8)
    entropy, distance = spread(weights_of(q, q), grid)
    assert entropy == pytest.approx(log(7))
    # By hand: 6 pairs at 0, 14 at 1, 4 at 2, 8 at sqrt 2, 4 at sqrt 5, of 36.
    assert distance == pytest.approx((14 + 4 * 2 + 8 * 2**0.5 + 4 * 5**0.5) / 36)


def test_spread_of_weights_on_the_prefix():
    grid = Grid((2, 3), prefix=1)
    k = torch.zeros(1, 1, 7, 4)
    k[..., 0, 0] = 1e4  # all attend to the class token, in the limit
    entropy, distance = spread(weights_of(k.new_ones(k.shape), k), grid)
    assert entropy == pytest.approx(0, abs=1e-6)
    assert distance == 0
    k[..., 0, 0] = 10  # e^5: what is left on spatial keys is even, and counts in full
    _, distance = spread(weights_of(k.new_ones(k.shape), k), grid)
    assert distance == pytest.approx((14 + 8 + 8 * 2**0.5 + 4 * 5**0.5) / 36, rel=1e-4)


def test_spread_in_parts_is_the_same(monkeypatch):
    grid = Grid((4, 5), prefix=2)
    q, k = torch.randn(2, 3, 3, 22, 8)
    whole = spread(weights_of(q, k), grid)
    rows = (q * 8**-0.5 @ k.mT).softmax(-1)
    away = torch.cdist(grid.positions(), grid.positions())
    spatial = rows[..., 2:, 2:] / rows[..., 2:, 2:].sum(-1, keepdim=True)
    assert whole[0] == pytest.approx(float(-(rows * rows.log()).sum(-1).mean()), rel=1e-5)
    assert whole[1] == pytest.approx(float((spatial * away).sum(-1).mean()), rel=1e-5)
    monkeypatch.setattr(AttentionWeights, "chunks", lambda self: kernels.ranges(22, 3))  # cuts inside the prefix too
    assert spread(weights_of(q, k), grid) == pytest.approx(whole, rel=1e-5)


def test_tap_changes_nothing_and_ends():
    model = tiny_vit("rope_mixed+lepe")
    images = torch.rand(2, 3, 24, 32)
    with torch.no_grad():
        before = model(images)
        with record_attention(model) as tapped:
            assert model(images).equal(before)
    assert len(tapped.seen) == 2  # layers
    result = tapped.result()
    assert 0 < result["entropy"] < log(6 * 8 + 1)
    assert 0 < result["distance"] < (5**2 + 7**2) ** 0.5
    with torch.no_grad():
        model(images)
    assert len(tapped.seen) == 2


def test_temperature_sharpens_what_is_seen():
    model, images = tiny_vit("rope_mixed"), torch.rand(2, 3, 48, 48)
    seen = {}
    for policy in ("default", "temperature(4)"):
        visionpe.set_policy(model, policy)
        with torch.no_grad(), record_attention(model) as tapped:
            model(images)
        seen[policy] = tapped.result()["entropy"]
    assert seen["temperature(4)"] < seen["default"]


def test_attention_without_weights_gives_none():
    nothing = {"entropy": None, "distance": None}
    kwargs = {"img_size": 24, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    for model in (
        tiny_vit({"name": "manhattan", "form": "axial"}),
        timm.create_model("vit_tiny_patch16_224", **kwargs),
        visionpe.adapt(timm.create_model("cait_xxs24_224", **kwargs)),  # heads mixed after the softmax
    ):
        with torch.no_grad(), record_attention(model) as tapped:
            model(torch.rand(1, 3, 24, 24))
        assert tapped.result() == nothing


def test_windows_bound_the_distance():
    model = timm.create_model(
        "swin_t", img_size=32, patch_size=2, window_size=4, embed_dim=8, depths=(2, 1), num_heads=(1, 2)
    )
    with torch.no_grad(), record_attention(model.eval()) as tapped:
        model(torch.rand(1, 3, 40, 32))
    assert len(tapped.seen) == 3
    for entropy, distance in tapped.seen:
        assert 0 < entropy <= log(16) + 1e-6
        assert 0 < distance < 18**0.5


def test_diagnostics_of_a_row():
    model = tiny_vit("none", num_classes=10)
    images, labels = torch.rand(10, 3, 24, 24), torch.zeros(10, dtype=torch.long)

    def row(split, count):
        parts = zip(images.split(split), labels.split(split))
        return measure(model, [(*part, []) for part in parts], device=torch.device("cpu"), diagnostics=count)

    at_once, apart, none = row(10, 7), row(3, 7), row(10, 0)
    assert at_once["entropy"] == pytest.approx(apart["entropy"], rel=1e-5)  # 3 + 3 + 1 images
    assert at_once["distance"] == pytest.approx(apart["distance"], rel=1e-5)
    assert (none["entropy"], none["distance"]) == (None, None)
    assert row(10, 8)["entropy"] != pytest.approx(at_once["entropy"], rel=1e-9)
