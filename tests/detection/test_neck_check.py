"""A neck or head that was written for another backbone is named before training."""

import re

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from tiny_features import TINY

from visionpe.detection import TimmFeatures, check_neck  # isort: skip
from mmdet.models.task_modules import AnchorGenerator  # isort: skip


@pytest.mark.parametrize("built", [False, True])
def test_neck_that_does_not_fit(built):
    backbone = {
        "type": "TimmFeatures",
        "model_name": "cswin_t",
        **TINY["cswin_t"],
        "init_cfg": {"type": "Pretrained", "checkpoint": "x"},
    }
    neck = {"type": "mmdet.FPN", "in_channels": [16, 32, 64, 128], "out_channels": 8, "num_outs": 4}

    class Model(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.backbone, self.neck = MODELS.build(config["backbone"]), MODELS.build(config["neck"])

    def model(**changes):
        config = {"backbone": dict(backbone), "neck": {**neck, **changes}}
        return Model(config) if built else config

    check_neck(model())
    with pytest.raises(
        ValueError, match=r"neck.in_channels=\[96, 192\].*'cswin_t'.*\(0, 1, 2, 3\).*\[16, 32, 64, 128\]"
    ):
        check_neck(model(in_channels=[96, 192], num_outs=2))


def test_head_that_does_not_fit():
    backbone = {"type": "TimmFeatures", "model_name": "cswin_t", **TINY["cswin_t"]}
    head = {"in_channels": [16, 32, 64, 128], "in_index": [0, 1, 2, 3]}
    check_neck({"backbone": backbone, "decode_head": head, "auxiliary_head": [{"in_channels": 64, "in_index": 2}]})
    check_neck({"backbone": {"type": "ResNet"}, "neck": {"in_channels": [1]}})
    with pytest.raises(ValueError, match=r"auxiliary_head\[0\].in_channels=32 does not fit"):
        check_neck({"backbone": backbone, "decode_head": head, "auxiliary_head": [{"in_channels": 32, "in_index": 2}]})
    with pytest.raises(ValueError, match=r"decode_head.in_channels=\[32, 16\].*allowed here: \[16, 32\]"):
        check_neck({"backbone": backbone, "decode_head": {"in_channels": [32, 16], "in_index": [0, 1]}})


def detector(neck, strides=(4, 8, 16, 32), levels=None, **backbone):
    """A model of the parts that tell strides."""
    model = torch.nn.Module()
    model.backbone = TimmFeatures("resnet18", **backbone)
    model.neck = neck and MODELS.build({"out_channels": 8, "num_outs": 5, **neck})
    model.rpn_head = torch.nn.Module()
    ratios = {"ratios": [1.0], "scales": [8]}
    model.rpn_head.prior_generator = AnchorGenerator(strides=list(strides) if levels is None else levels, **ratios)
    model.roi_head = torch.nn.Module()
    model.roi_head.bbox_roi_extractor = torch.nn.Module()
    model.roi_head.bbox_roi_extractor.featmap_strides = list(strides)
    return model


CHANNELS = [64, 128, 256, 512]


@pytest.mark.parametrize(
    ("neck", "options", "given"),
    [
        ({"type": "mmdet.FPN", "in_channels": CHANNELS}, {"out_indices": 4}, [4, 8, 16, 32, 64]),
        ({"type": "mmdet.FPN", "in_channels": [64, *CHANNELS[:3]]}, {}, [2, 4, 8, 16, 32]),
        ({"type": "mmdet.FPN", "in_channels": CHANNELS, "start_level": 1, "add_extra_convs": True},
         {"out_indices": 4}, [8, 16, 32, 64, 128]),
        ({"type": "SimpleFeaturePyramid", "in_channels": 512}, {"out_indices": 1}, [8, 16, 32, 64, 128]),
        (None, {"out_indices": 4, "output_stride": 8}, [4, 8, 8, 8]),
    ],
)  # fmt: skip
def test_heads_of_other_strides(neck, options, given):
    """Anchors and regions would lie elsewhere, and nothing would say so."""
    check_neck(detector(neck, given[:4], given, **options))
    with pytest.raises(ValueError, match=rf"rpn_head.strides=\[3, 6\] does not fit: .*{re.escape(str(given))}"):
        check_neck(detector(neck, given[:4], [3, 6], **options))
    with pytest.raises(ValueError, match=r"roi_head.bbox_roi_extractor.featmap_strides=\[64, 128\] does not fit"):
        check_neck(detector(neck, [64, 128], given, **options))


def test_anchors_for_fewer_maps_than_there_are():
    """mmdet would break off at the first batch, in an assertion without a word."""
    model = detector({"type": "mmdet.FPN", "in_channels": CHANNELS}, out_indices=4)
    anchors = {"type": "AnchorGenerator", "ratios": [1.0], "scales": [8]}
    for head, fits in (("RPNHead", False), ("RetinaHead", False), ("ATSSHead", True)):
        classes = {} if head == "RPNHead" else {"num_classes": 2}
        for strides in ([4, 8, 16], [4, 8, 16, 32, 64]):
            config = {"type": f"mmdet.{head}", "in_channels": 8, "anchor_generator": {**anchors, "strides": strides}}
            with DefaultScope.overwrite_default_scope("mmdet"):
                model.rpn_head = MODELS.build({**config, **classes})
            if fits or len(strides) == 5:
                check_neck(model)
                continue
            with pytest.raises(ValueError, match=r"rpn_head.strides=\[4, 8, 16\] does not fit: .*\[4, 8, 16, 32, 64\]"):
                check_neck(model)
