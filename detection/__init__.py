"""Adapters that bring timm models, ours included, into OpenMMLab.

``custom_imports = dict(imports=["visionpe.detection"])`` in a config makes everything here usable by name:

- ``TimmImageClassifier``: any timm model as an mmpretrain classifier;
- ``TimmFeatures``: any timm model as a backbone of mmdet and mmseg;
- ``SimpleFeaturePyramid``: ViTDet's neck, and ``LayerNorm2d`` for the norms of heads;
- ``TimmBinaryCrossEntropy``: timm's loss, with targets above a threshold in full;
- ``DigitsDataset``: real handwritten digits, in memory;
- ``CloudSegmentor``: any timm model over voxels as a segmentor of point clouds, with the data sets, transforms and
  the metric of :mod:`visionpe.detection.clouds`;
- ``TimmOptimWrapperConstructor``: timm's parameter groups (no decay for norms, biases, positions; layer decay);
- ``AutocastOptimWrapper``: bfloat16 autocast on any device;
- ``AdaptiveClipHook``: gradients clipped by the norms of the weights;
- ``ExportHook``: writes ``model.safetensors`` and ``model.json`` for ``timm.create_model`` after training;
- ``mmcv.ops`` without a compiled mmcv (``ops.install()`` runs at import);
- pictures read as everywhere here, and named where they are bad (``pictures.install()`` runs at import);
- ``.safetensors`` files wherever mmengine takes a checkpoint, and ``mmseg::`` and ``visionpe::`` in ``_base_``.

``python -m visionpe.detection SCRIPT ...`` runs a program of OpenMMLab with all of this in place.

``train``, ``test`` and ``predict`` are the commands of those names as functions. In rooms: ``operators`` (mmcv's,
uncompiled), ``models`` (timm's, in OpenMMLab's places), ``running`` (from a config to a run), ``predicting``, ``data``,
``clouds`` (point clouds) and ``scaling`` (the resolution study through mmdet's and mmseg's test loops).
"""

from typing import TYPE_CHECKING

from visionpe.detection.operators import extension as ops
from visionpe.detection.running import grammar

grammar.install()

# Before anything imports mmcv.ops: mmdet and mmseg settle for placeholders when that fails.
ops.install()

from visionpe._renamed import old_modules  # noqa: E402
from visionpe.detection.running import bases, multimodal  # noqa: E402
from visionpe.detection.running.quiet import quiet_imports  # noqa: E402

bases.install()
multimodal.install()

with quiet_imports():
    import mmpretrain.datasets
    import mmpretrain.engine
    import mmpretrain.evaluation
    import mmpretrain.visualization  # noqa: F401

    import visionpe.backbones  # noqa: F401  registers the models with timm
    from visionpe.detection.clouds.colors import ContrastColor, JitterColor, ShiftColor
    from visionpe.detection.clouds.elastic import ElasticCloud
    from visionpe.detection.clouds.metric import CloudMetric
    from visionpe.detection.clouds.packing import CloudVotes, CropCloud, PackCloud, VoxelizeCloud
    from visionpe.detection.clouds.pointcept import PointceptS3DISDataset, PointceptScanNetDataset
    from visionpe.detection.clouds.rooms import RoomsDataset
    from visionpe.detection.clouds.s3dis import S3DISDataset
    from visionpe.detection.clouds.scannet import ScanNetDataset
    from visionpe.detection.clouds.segmentor import CloudPreprocessor, CloudSegmentor
    from visionpe.detection.clouds.transforms import (
        DropColor,
        DropPoints,
        FlipCloud,
        JitterCloud,
        RotateCloud,
        ScaleCloud,
        SwapAxes,
    )
    from visionpe.detection.data import pictures
    from visionpe.detection.data.digits import DigitsDataset
    from visionpe.detection.data.photographs import PhotographsDataset
    from visionpe.detection.models import losses  # noqa: F401  timm's, by name
    from visionpe.detection.models.classifier import TimmImageClassifier
    from visionpe.detection.models.features import TimmFeatures
    from visionpe.detection.models.neck_check import check_neck
    from visionpe.detection.models.simple_pyramid import SimpleFeaturePyramid
    from visionpe.detection.predicting.pictures import predict
    from visionpe.detection.running import checkpoint
    from visionpe.detection.running.clip_hook import AdaptiveClipHook
    from visionpe.detection.running.commands import test, train
    from visionpe.detection.running.export_hook import ExportHook
    from visionpe.detection.running.one_cycle import GroupOneCycleLR
    from visionpe.detection.running.optimizers import AutocastOptimWrapper, TimmOptimWrapperConstructor
    from visionpe.detection.running.runner import QuietRunner

    pictures.install()

__all__ = [
    "AdaptiveClipHook",
    "AutocastOptimWrapper",
    "CloudMetric",
    "CloudPreprocessor",
    "CloudSegmentor",
    "CloudVotes",
    "ContrastColor",
    "CropCloud",
    "DigitsDataset",
    "DropColor",
    "DropPoints",
    "ElasticCloud",
    "ExportHook",
    "FlipCloud",
    "GroupOneCycleLR",
    "JitterCloud",
    "JitterColor",
    "PackCloud",
    "PhotographsDataset",
    "PointceptS3DISDataset",
    "PointceptScanNetDataset",
    "QuietRunner",
    "RoomsDataset",
    "RotateCloud",
    "S3DISDataset",
    "ScaleCloud",
    "ScanNetDataset",
    "ShiftColor",
    "SimpleFeaturePyramid",
    "SwapAxes",
    "TimmFeatures",
    "TimmImageClassifier",
    "TimmOptimWrapperConstructor",
    "VoxelizeCloud",
    "check_neck",
    "checkpoint",
    "ops",
    "predict",
    "test",
    "train",
]

if not TYPE_CHECKING:
    __getattr__ = old_modules(__name__)
