"""Positional artefacts: planted, found, and measured."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from visionpe.viewing.positions import PlaceProbe, PositionRecord

CHANNELS, HEIGHT, WIDTH = 16, 6, 8


def features(images, *, table=0.0, image=0.0, rest=1.0, seed=0):
    """Features whose variance has three parts, of the place, the image and the rest; the table is centred."""
    draws = torch.Generator().manual_seed(seed)
    planted = torch.randn(CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(99))
    planted = planted - planted.mean((1, 2), keepdim=True)
    # In terms of the variance component, which divides by one less than the number of places.
    planted = planted / planted.square().sum((1, 2), keepdim=True).mul(1 / (HEIGHT * WIDTH - 1)).sqrt()
    shift = torch.randn(images, CHANNELS, 1, 1, generator=draws)
    noise = torch.randn(images, CHANNELS, HEIGHT, WIDTH, generator=draws)
    return table**0.5 * planted + image**0.5 * shift + rest**0.5 * noise


def record(maps, **kwargs):
    seen = PositionRecord(**kwargs)
    for batch in maps.split(3):  # sums over batches
        seen.add(batch)
    return seen


@pytest.mark.parametrize(("table", "image"), [(1.0, 0.0), (0.25, 0.0), (0.5, 2.0), (4.0, 1.0)])
def test_a_planted_table_is_measured(table, image):
    share = record(features(200, table=table, image=image)).share()
    assert share == pytest.approx(table / (table + image + 1), rel=0.05)


def test_few_images_do_not_make_a_table():
    shares = [record(features(4, image=1.0, seed=seed)).share() for seed in range(20)]
    assert abs(np.mean(shares)) < 0.01  # the variance of the mean map alone would be an eighth


def test_share_of_spatially_smooth_noise_is_none():
    noise = torch.nn.functional.avg_pool2d(features(300), 3, 1, 1, count_include_pad=False)
    assert abs(record(noise).share()) < 0.02


def test_mean_map_and_batches():
    maps = features(7, table=1.0)
    seen = record(maps)
    torch.testing.assert_close(seen.mean_map, maps.mean(0))
    assert seen.images == 7
    whole = PositionRecord()
    whole.add(maps)
    assert whole.share() == pytest.approx(seen.share(), rel=1e-9)
    assert whole.same_place() == seen.same_place()
    with pytest.raises(ValueError, match="size"):
        seen.add(maps[..., :4])


def test_too_little_is_refused():
    for ask in (PositionRecord.share, PositionRecord.same_place, PlaceProbe.fit):
        with pytest.raises(ValueError, match="images"):
            ask(record(features(1)))
    with pytest.raises(ValueError, match="added"):
        _ = PositionRecord().mean_map


def coordinates(images, strength, seed=0, height=HEIGHT, width=WIDTH):
    """Features of which one channel holds the row and another the column."""
    maps = torch.randn(images, CHANNELS, height, width, generator=torch.Generator().manual_seed(seed))
    rows, columns = (torch.arange(n) + 0.5 for n in (height, width))
    maps[:, 2] += strength * (rows / height - 0.5)[:, None]
    maps[:, 5] += strength * (columns / width - 0.5)
    return maps


def test_probe_reads_what_is_there_and_nothing_else():
    nothing = PlaceProbe.fit(record(features(60))).error(record(features(60)))
    assert nothing["row"] == pytest.approx(0.25, abs=0.02)
    assert abs(nothing["row_r2"]) < 0.05
    seen = record(coordinates(60, 30.0))
    found = PlaceProbe.fit(seen).error(seen)
    assert found["row"] < 0.04
    assert found["column"] < 0.04
    assert found["row_r2"] > 0.97


def test_probe_against_a_ridge_by_hand():
    seen = record(coordinates(20, 3.0))
    error = PlaceProbe.fit(seen).error(seen)
    (x, y), (other_x, other_y) = seen.probed(0), seen.probed(1)
    assert len(x) == len(other_x) == 10 * HEIGHT * WIDTH  # all patches, of every second image
    scaled = [(each - x.mean(0)) / x.std(0) for each in (x, other_x)]
    tries = [Ridge(alpha).fit(scaled[0], y) for alpha in np.logspace(-1, 5, 7)]
    off = [np.abs(each.predict(scaled[1]) - other_y).mean(0) for each in tries]
    assert any(np.allclose([error["row"], error["column"]], each, rtol=1e-4) for each in off)


def test_probe_of_one_size_reads_another():
    probe = PlaceProbe.fit(record(coordinates(40, 30.0)))
    larger = record(coordinates(40, 30.0, seed=1, height=12, width=16))
    assert probe.error(larger)["column"] < 0.04
    mirrored = record(coordinates(40, 30.0, seed=1, height=12, width=16).flip(2))
    assert probe.error(mirrored)["row"] > 0.4
    assert probe.error(mirrored)["column"] < 0.04


def test_neighbours_by_place_and_by_content():
    content = torch.randn(50, CHANNELS, 1, generator=torch.Generator().manual_seed(4))
    tokens = content[torch.randint(50, (12, HEIGHT * WIDTH), generator=torch.Generator().manual_seed(5))][..., 0]
    by_content = tokens.mT.unflatten(2, (HEIGHT, WIDTH)) + 0.01 * features(12)
    found, chance = record(by_content).same_place()
    assert found == pytest.approx(chance, abs=0.06)
    found, chance = record(features(12, table=100.0)).same_place()
    assert found > 0.95
    assert 0.01 < chance < 0.12


def test_outliers_are_counted():
    maps = features(10)
    assert record(maps).outliers()[0] < 0.01
    maps[:, :, 0, 3] *= 20  # one of 48 patches
    share, of_norm = record(maps).outliers()
    assert share == pytest.approx(1 / 48, rel=0.2)
    norms = maps.norm(dim=1)
    assert of_norm == pytest.approx(float(norms[:, 0, 3].sum() / norms.sum()), rel=0.1)
    seen = PositionRecord()
    seen.add(features(10), raw=maps)
    assert seen.outliers() == (share, of_norm)
