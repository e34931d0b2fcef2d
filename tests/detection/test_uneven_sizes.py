"""Necks and heads of mmdet on our backbones, at image sizes that the largest stride does not divide."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.registry import MODELS

from visionpe.detection.models import uneven_sizes

from test_ops_heads import THINGS, build, train_and_predict  # isort: skip
from mmdet.models import necks  # isort: skip  after the stand-in
from mmdet.models.dense_heads import RTMDetInsHead  # isort: skip
from mmdet.testing import demo_mm_inputs  # isort: skip
from mmdet.utils import register_all_modules  # isort: skip

NECKS = {
    "CSPNeXtPAFPN": dict(in_channels=[8, 8, 16], out_channels=8, num_csp_blocks=1),
    "YOLOXPAFPN": dict(in_channels=[8, 8, 16], out_channels=8),
    "YOLOV3Neck": dict(num_scales=3, in_channels=[16, 8, 8], out_channels=[8, 8, 8]),
    "HRFPN": dict(in_channels=[8, 8, 16], out_channels=8, num_outs=3),
}
VIT = dict(
    type="TimmFeatures",
    model_name="rope_vit_s",
    img_size=64,
    patch_size=16,
    embed_dim=32,
    depth=1,
    num_heads=2,
    out_indices=(0,),
)
PYRAMID = dict(type="SimpleFeaturePyramid", in_channels=32, out_channels=32, scales=(2, 1, 0.5))


@pytest.fixture(scope="module", autouse=True)
def _fitted() -> None:
    register_all_modules()
    uneven_sizes.install()


def maps(height: int, width: int, rounded: object = math.ceil) -> tuple[torch.Tensor, ...]:
    """Of an image, at strides 8, 16 and 32."""
    return tuple(torch.randn(2, c, rounded(height / s), rounded(width / s)) for c, s in ((8, 8), (8, 16), (16, 32)))


@pytest.mark.parametrize("name", NECKS)
def test_necks_that_double_maps_take_any_size(name: str) -> None:
    neck = getattr(necks, name)(**NECKS[name]).eval()
    own = getattr(necks, name).forward.__wrapped__
    with torch.no_grad():
        even = maps(64, 96)
        assert all(torch.equal(a, b) for a, b in zip(neck(even), own(neck, even)))
        for size, rounded in (((70, 90), math.ceil), ((80, 112), math.floor), ((40, 90), math.ceil)):
            uneven = maps(*size, rounded)
            with pytest.raises(RuntimeError, match="must match"):
                own(neck, uneven)
            outputs = sorted(neck(uneven), key=lambda each: -each.shape[-1])
            assert [each.shape[-2:] for each in outputs] == [each.shape[-2:] for each in uneven]
            height, width = (32 * math.ceil(side / 32) for side in size)
            padded = [
                torch.nn.functional.pad(each, (0, width // s - each.shape[-1], 0, height // s - each.shape[-2]))
                for each, s in zip(uneven, (8, 16, 32))
            ]
            expected = sorted(own(neck, tuple(padded)), key=lambda each: -each.shape[-1])
            for output, whole in zip(outputs, expected):
                assert torch.equal(output, whole[..., : output.shape[-2], : output.shape[-1]])


@pytest.mark.parametrize(
    "neck",
    [
        dict(type="PAFPN", in_channels=[8, 8, 16], out_channels=8, num_outs=3),
        [
            dict(type="ChannelMapper", in_channels=[8, 8, 16], out_channels=16, kernel_size=1),
            dict(type="DyHead", in_channels=16, out_channels=16, num_blocks=1, zero_init_offset=False),
        ],
    ],
    ids=["PAFPN", "DyHead"],
)
def test_necks_that_halve_maps_take_those_rounded_down(neck: object) -> None:
    steps = [MODELS.build(each).eval() for each in (neck if isinstance(neck, list) else [neck])]
    with torch.no_grad():
        for rounded in (math.ceil, math.floor):
            uneven = outputs = maps(80, 112, rounded)
            for step in steps:
                own = type(step).forward.__wrapped__ if hasattr(type(step).forward, "__wrapped__") else None
                if own and rounded is math.ceil:
                    assert all(torch.equal(a, b) for a, b in zip(step(outputs), own(step, outputs)))
                outputs = step(outputs)
            assert [each.shape[-2:] for each in outputs] == [each.shape[-2:] for each in uneven]


@pytest.mark.parametrize("size", [(70, 90), (80, 112)])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("backbone", ["pyramid of stages", "one map"])
def test_rtmdet(backbone: str, masks: bool, size: tuple[int, int]) -> None:
    levels = (1, 2, 3)
    config = f"mmdet::rtmdet/rtmdet{'-ins' * masks}_l_8xb32-300e_coco.py"
    changes = {} if backbone == "pyramid of stages" else {"backbone": VIT, "pyramid": PYRAMID}
    model = build(config, levels, **changes)
    data = demo_mm_inputs(2, [(3, *size), (3, size[0], size[1] - 9)], [3, 2], THINGS, with_mask=masks)
    for sample in data["data_samples"]:
        sample.set_metainfo({"scale_factor": (1.0, 1.0)})
    for sample in train_and_predict(model, data):
        assert len(sample.pred_instances) > 0
        if masks:
            assert sample.pred_instances.masks.shape[1:] == sample.ori_shape


def test_what_is_fitted_is_fitted_once() -> None:
    before = RTMDetInsHead.loss_mask_by_feat, necks.YOLOXPAFPN.forward
    uneven_sizes.install()
    assert (RTMDetInsHead.loss_mask_by_feat, necks.YOLOXPAFPN.forward) == before
