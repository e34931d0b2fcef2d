"""A neck or head that was written for another backbone is named before training."""

import pytest
import torch
from mmengine.registry import MODELS
from tiny_features import TINY

from visionpe.detection import check_neck


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
