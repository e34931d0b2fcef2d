"""From points to the voxels that a model takes, with the way back to the points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.registry import TRANSFORMS
from mmengine.structures import BaseDataElement

from visionpe.checks import check_choice, check_count, check_number
from visionpe.detection.clouds.transforms import rows_of
from visionpe.sparse import Recipe, Voxels, pack_voxels, voxelize

Results = dict[str, Any]
Keep = Literal["random", "first"]


@TRANSFORMS.register_module()
class VoxelizeCloud(BaseTransform):
    """One point for each voxel that holds any. The corner of the cloud's box becomes the origin.

    ``points`` become ``(N, 3)`` float32 in voxels, ``coords`` are their cells, int64; the other rows follow. With
    ``keep="first"`` the labels of all points stay as ``truth`` ``(P,)`` and ``inverse`` ``(P,)`` is the voxel of each.

    Args:
        size: Side of a voxel, metres.
        keep: The point that stands for a voxel: ``random`` to train, ``first`` to evaluate.
    """

    def __init__(self, size: float, keep: Keep = "random") -> None:
        if not size > 0:
            raise ValueError(f"size={size} must be positive")
        if keep not in get_args(Keep):
            raise ValueError(f"keep={keep!r} is unknown; allowed: {', '.join(get_args(Keep))}")
        self.size, self.keep = size, keep

    def transform(self, results: Results) -> Results:
        """Choose the points."""
        metres = results["points"].astype(np.float64)
        # Rounded before cells are found, so that no position leaves its cell.
        places = torch.from_numpy(((metres - metres.min(0)) / self.size).astype(np.float32))
        generator = torch.default_generator if self.keep == "random" else None
        coords, chosen, inverse = voxelize(places, size=1.0, generator=generator)
        out = {
            **results,
            **rows_of({**results, "points": places.numpy()}, chosen.numpy()),
            "coords": coords[:, 1:].numpy(),
        }
        if self.keep == "first":
            out |= {"truth": results["labels"], "inverse": inverse.numpy()}
        return out


@TRANSFORMS.register_module()
class CropCloud(BaseTransform):
    """Of a large cloud the voxels nearest to one of them, drawn at random; for training.

    Args:
        max_voxels: How many at most; None for any number.
        share: Of the voxels that there are, above 0 to 1.
    """

    def __init__(self, max_voxels: int | None = None, share: float = 1.0) -> None:
        self.max_voxels = None if max_voxels is None else check_count("max_voxels", max_voxels)
        self.share = check_number("share", share, above=0, high=1)

    def transform(self, results: Results) -> Results:
        """Keep the nearest rows, in their order."""
        points = results["points"]
        most = min(max(1, int(self.share * len(points))), self.max_voxels or len(points))
        if len(points) <= most:
            return results
        centre = points[np.random.randint(len(points))]  # noqa: NPY002  mmengine seeds the global generator
        distance = np.square(points - centre).sum(1)
        nearest = np.sort(np.argpartition(distance, most - 1)[:most])
        return {**results, **rows_of(results, nearest)}


@TRANSFORMS.register_module()
class PackCloud(BaseTransform):
    """Make :class:`visionpe.sparse.Voxels` and a data sample, with features as a recipe feeds them.

    Features are ``[colour, (normal), offset]`` for Swin3D, with the place of the point inside its voxel in 0..1 last,
    and ``[colour in 0..1, (normal)]`` for Point Transformer V3; signals ``[position in voxels, colour, (normal)]``, the
    latter two divided by 1.001.

    Args:
        normals: Whether normals are used.
        recipe: ``swin3d`` or ``ptv3``.
    """

    def __init__(self, normals: bool = False, recipe: Recipe = "swin3d") -> None:
        check_choice("recipe", recipe, Recipe)
        self.normals, self.recipe = normals, recipe

    def transform(self, results: Results) -> Results:
        """Pack.

        Returns:
            ``inputs``, voxels; ``data_samples`` with ``gt_sem_seg.data``, the labels of voxels, or after
            ``VoxelizeCloud(keep="first")`` of points, and then ``inverse.data`` ``(1, P)``.

        Raises:
            ValueError: If normals are wanted and there are none.
        """
        if self.normals and "normals" not in results:
            raise ValueError("PackCloud(normals=True): the clouds of this data set have no normals")
        points, coords = torch.from_numpy(results["points"]), torch.from_numpy(results["coords"])
        looks = [torch.from_numpy(results[key]) for key in ("colors", "normals")[: 1 + self.normals]]
        coords = torch.cat((torch.zeros_like(coords[:, :1]), coords), 1)
        voxels = pack_voxels(points, coords, *looks, recipe=self.recipe)
        labels = results.get("truth", results["labels"])
        sample = BaseDataElement(metainfo={"name": results.get("name", "")})
        sample.gt_sem_seg = BaseDataElement(data=torch.from_numpy(labels))
        if "inverse" in results:
            sample.inverse = BaseDataElement(data=torch.from_numpy(results["inverse"])[None])
        return {"inputs": voxels, "data_samples": sample}


@TRANSFORMS.register_module()
class CloudVotes(BaseTransform):
    """Several views of one cloud, which the model's scores are averaged over; for evaluation.

    Args:
        times: How many views. More than one are turned about z, each by any angle; Swin3D's results have 12.
        transforms: Pipeline of each view, with ``VoxelizeCloud(keep="first")`` and ``PackCloud``.
        views: In place of ``times``: for each view the transforms that come first.
    """

    def __init__(
        self, times: int = 1, transforms: Sequence[dict] = (), views: Sequence[Sequence[dict]] | None = None
    ) -> None:
        if times < 1:
            raise ValueError(f"times={times} must be positive")
        if views is not None and (times > 1 or not len(views)):
            raise ValueError(f"views={views!r} with times={times}: allowed: one view or more, and no times")
        turns = [{"type": "RotateCloud"}] if times > 1 else []
        self.pipelines = [Compose([*first, *transforms]) for first in views or [turns] * times]

    def transform(self, results: Results) -> Results:
        """Make the views.

        Returns:
            ``inputs``, voxels of all views, one cloud each; ``data_samples`` with ``inverse.data`` ``(views, P)``, the
            row of each point in each view.
        """
        views = [pipeline(dict(results)) for pipeline in self.pipelines]
        sample = views[0]["data_samples"]
        sample.inverse = BaseDataElement(data=torch.cat([view["data_samples"].inverse.data for view in views]))
        return {"inputs": Voxels.collate([view["inputs"] for view in views]), "data_samples": sample}
