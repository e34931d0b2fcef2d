"""Points to voxels and back."""

from __future__ import annotations

import pytest
import torch

from visionpe.sparse import voxels_of_points


def test_features_and_signals() -> None:
    points = torch.rand(400, 3) * torch.tensor([2.0, 1.0, 0.5]) - 7
    colours = torch.randint(0, 256, (400, 3), dtype=torch.uint8)
    normals = torch.nn.functional.normalize(torch.randn(400, 3), dim=1)
    voxels, voxel = voxels_of_points(points, size=0.1, colors=colours, normals=normals)
    assert voxels.features.shape[1] == 9
    assert voxel.shape == (400,)
    assert len(voxels.checked()) == len(voxel.unique()) < 400
    metres = voxels.positions * 0.1 + points.amin(0)
    assert ((metres[voxel] - points).abs() < 0.1 + 1e-5).all()  # a voxel's point is in the same voxel
    offset = voxels.features[:, 6:]
    assert ((offset >= 0) & (offset < 1)).all()
    torch.testing.assert_close(voxels.coords[:, 1:] + offset, voxels.positions)
    first = torch.stack([(voxel == i).nonzero()[0, 0] for i in range(len(voxels))])
    torch.testing.assert_close(voxels.features[:, :3], colours[first] / 127.5 - 1)
    torch.testing.assert_close(voxels.signals[:, 3:], voxels.features[:, :6] / 1.001)
    random, same = voxels_of_points(points, size=0.1, generator=torch.Generator().manual_seed(0))
    assert random.features.shape[1] == random.signals.shape[1] == 3
    assert torch.equal(same, voxel)
    assert not torch.equal(random.positions, voxels.positions)


def test_bad_points() -> None:
    points = torch.rand(5, 3)
    with pytest.raises(ValueError, match=r"colors must be \(5, 3\), one row a point; got \(4, 3\)"):
        voxels_of_points(points, size=0.1, colors=points[:4])
    with pytest.raises(ValueError, match="at least one point"):
        voxels_of_points(points[:0], size=0.1)
    with pytest.raises(ValueError, match="must be positive"):
        voxels_of_points(points, size=0.0)
    with pytest.raises(ValueError, match="1 points with NaN"):
        voxels_of_points(points.index_fill(0, torch.tensor(2), torch.nan), size=0.1)
