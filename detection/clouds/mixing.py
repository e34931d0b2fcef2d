"""Two scenes in one, for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.structures import BaseDataElement

from visionpe.sparse import Voxels, grouped


def mix_pairs(
    clouds: Sequence[Voxels], samples: Sequence[BaseDataElement]
) -> tuple[list[Voxels], list[BaseDataElement]]:
    """Each cloud and the next one, lowest corner on lowest corner, as one; a last one without a next stays as it is.

    Source: Mix3D, arXiv 2110.02210, as in Pointcept's recipes. Of a cell that both fill, one scene, the same for all
    such cells of a pair, keeps its voxel: a coin says which. The published code keeps both.

    Args:
        clouds: One cloud each.
        samples: Theirs, with ``gt_sem_seg.data`` ``(N,)``, labels of voxels.

    Returns:
        Half as many, rounded up.
    """
    mixed, labelled = list(clouds[len(clouds) - len(clouds) % 2 :]), list(samples[len(clouds) - len(clouds) % 2 :])
    for i in reversed(range(0, len(clouds) - 1, 2)):
        pair = [i, i + 1] if np.random.uniform() < 0.5 else [i + 1, i]  # noqa: NPY002  mmengine seeds it
        parts = [clouds[j] for j in pair]
        coords = torch.cat([part.coords for part in parts])
        coords[:, 0] = 0
        _, kept = grouped(coords)  # the first voxel of each cell
        features, signals = (torch.cat([getattr(p, name) for p in parts])[kept] for name in ("features", "signals"))
        sample = BaseDataElement(metainfo={"name": " + ".join(samples[j].get("name", "") for j in pair)})
        sample.gt_sem_seg = BaseDataElement(data=torch.cat([samples[j].gt_sem_seg.data for j in pair])[kept])
        mixed.insert(0, Voxels(features, coords[kept], signals, parts[0].stride))
        labelled.insert(0, sample)
    return mixed, labelled
