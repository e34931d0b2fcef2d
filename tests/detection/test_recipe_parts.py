"""What published recipes need besides OpenMMLab's parts: DeiT-III's loss, gradients in detectron2's cascades."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS as DET_MODELS
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.structures import DataSample

from visionpe.detection import TimmImageClassifier
from visionpe.detection.models.roi_extractor import ScaledGradientRoIExtractor

LOSS = {"type": "TimmBinaryCrossEntropy", "smoothing": 0.0, "target_threshold": 0.0}


def test_every_class_of_a_mixed_image_counts_in_full() -> None:
    """DeiT-III: whatever was mixed in, be it little, is a class of the image."""
    logits = torch.randn(3, 4)
    mixed = torch.tensor([[0.9, 0.1, 0, 0], [0, 0.001, 0, 0.999], [0, 0, 1, 0]])
    loss = MODELS.build(LOSS)
    torch.testing.assert_close(loss(logits, mixed), F.binary_cross_entropy_with_logits(logits, mixed.gt(0).float()))
    assert not torch.isclose(loss(logits, mixed), F.binary_cross_entropy_with_logits(logits, mixed))
    labels = torch.tensor([1, 3, 0])
    torch.testing.assert_close(
        loss(logits, labels), F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, 4).float())
    )


def test_a_classifier_learns_by_it() -> None:
    init_default_scope("mmpretrain")
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 4}
    torch.manual_seed(0)
    model = TimmImageClassifier("none_vit_ti", loss=LOSS, **sizes)
    images = torch.randn(2, 3, 16, 16)
    samples = [DataSample().set_gt_score(torch.tensor(score)) for score in ([0.7, 0.3, 0, 0], [0, 0, 0.2, 0.8])]
    found = model.loss(images, samples)["loss"]
    target = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(model(images), target))


def test_gradients_of_regions_are_scaled() -> None:
    """The features are those of mmdet's extractor; what is behind them gets its share of the gradient."""
    init_default_scope("mmdet")
    config = {"roi_layer": {"type": "RoIAlign", "output_size": 3, "sampling_ratio": 0}}
    config |= {"out_channels": 2, "featmap_strides": [4, 8], "finest_scale": 20}
    plain = DET_MODELS.build({"type": "SingleRoIExtractor", **config})
    scaled = DET_MODELS.build({"type": "ScaledGradientRoIExtractor", "gradient_scale": 0.25, **config})
    assert isinstance(scaled, ScaledGradientRoIExtractor)
    maps = [torch.randn(1, 2, side, side, requires_grad=True) for side in (16, 8)]
    rois = torch.tensor([[0.0, 4, 4, 40, 30], [0, 0, 0, 60, 60]])
    outputs = [extractor(maps, rois) for extractor in (plain, scaled)]
    assert outputs[0].equal(outputs[1])
    whole, part = (torch.autograd.grad(output.square().sum(), maps) for output in outputs)
    for a, b in zip(whole, part):
        assert a.abs().max() > 0
        torch.testing.assert_close(0.25 * a, b)
    assert not scaled(tuple(m.detach() for m in maps), rois).requires_grad
    with pytest.raises(ValueError, match=r"gradient_scale=-1"):
        ScaledGradientRoIExtractor(gradient_scale=-1, **config)
