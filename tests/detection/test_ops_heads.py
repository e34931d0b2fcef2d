"""Heads of mmdet and mmseg from their packaged configs, made slim, on a timm backbone and the stand-in's operators."""

import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from mmengine.structures import PixelData

import visionpe.detection  # noqa: F401  puts the stand-in in place
from visionpe.detection.operators.extension import NAME, OPS, StandIn

from mmdet.testing import demo_mm_inputs  # isort: skip  after the stand-in
from mmdet.utils import register_all_modules as register_mmdet  # isort: skip
from mmseg.structures import SegDataSample  # isort: skip
from mmseg.utils import register_all_modules as register_mmseg  # isort: skip

SIDE, THINGS, STUFF = 64, 3, 2
WIDTHS = [16, 32, 48, 64]
BACKBONE = {
    "type": "TimmFeatures",
    "model_name": "cswin_t",
    "img_size": SIDE,
    "embed_dim": WIDTHS,
    "depths": [1, 1, 1, 1],
    "num_heads": [2, 2, 2, 2],
    "drop_path_rate": 0.0,
}
# The packaged value of a key, and the one here. Lists of channels of the backbone are told by their length.
SMALL = {
    **dict.fromkeys(["out_channels", "in_channels", "feat_channels", "embed_dims", "channels", "inner_channels"], 32),
    **dict.fromkeys(["conv_out_channels", "fc_out_channels", "feedforward_channels", "mask_channels"], 32),
    **dict.fromkeys(["output_channels", "deform_fc_channels"], 32),
    "num_feats": 16,
    **dict.fromkeys(["num_convs", "stacked_convs", "num_csp_blocks"], 1),
    **dict.fromkeys(["num_queries", "num_dn_queries", "max_per_img", "max_per_image"], 12),
    **dict.fromkeys(["num_classes", "num_things_classes"], THINGS),
    "num_heads": 4,
    "num_groups": 4,
    "num_layers": 2,
    "num_points": 4,
    "num_stuff_classes": STUFF,
    "class_weight": [1.0] * THINGS + [0.1],
    "score_thr": 0.0,  # so that untrained heads have something to suppress
    "batch_augments": None,
}
ROI = {"nms", "roi_align_forward", "roi_align_backward"}
DEFORM_ROI = {"deform_roi_pool_forward", "deform_roi_pool_backward"}
PLAIN_CONV = {"deform_conv_forward", "deform_conv_backward_input"}  # TOOD's weights are ones
MODULATED_CONV = {"modulated_deform_conv_forward", "modulated_deform_conv_backward"}


def case(config, used=(), truth="boxes", levels=(0, 1, 2, 3)):
    """A config, the operators it uses on CPU (on CUDA mmdet uses more), what it learns from, the stages."""
    return pytest.param(config, set(used), truth, levels, id=config.split("/")[0])


DETECTORS = [
    case("mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", ROI, "masks"),
    case("cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py", ROI, "masks"),
    case("panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py", ROI, "panoptic"),
    case("retinanet/retinanet_r50_fpn_1x_coco.py", {"nms"}),
    case("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py", {"nms"}),
    case("atss/atss_r50_fpn_1x_coco.py", {"nms"}),
    case("tood/tood_r50_fpn_1x_coco.py", {"nms", *PLAIN_CONV}),
    case("dyhead/atss_r50_fpn_dyhead_1x_coco.py", {"nms", *MODULATED_CONV}),
    case("rtmdet/rtmdet_l_8xb32-300e_coco.py", {"nms"}, levels=(1, 2, 3)),
    case("dino/dino-4scale_r50_8xb2-12e_coco.py", levels=(1, 2, 3)),
    case("deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", levels=(1, 2, 3)),
    case("mask2former/mask2former_r50_8xb2-lsj-50e_coco.py", truth="masks"),
    case("carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py", ROI | {"carafe_forward", "carafe_backward"}, "masks"),
    case("dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py", {"nms", *DEFORM_ROI}),
]
SEGMENTERS = [
    case("upernet/upernet_r50_4xb4-160k_ade20k-512x512.py", truth="classes"),
    case("segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py", truth="classes"),
    case("mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py", truth="classes"),
    case("psanet/psanet_r50-d8_4xb4-80k_ade20k-512x512.py", {"psamask_forward", "psamask_backward"}, "classes"),
]


def slim(node, widths, key=None):
    """The config with small numbers in place of the packaged ones."""
    if isinstance(node, dict):
        if node.get("type") == "SyncBN":
            node["type"] = "BN"
        small = {name: slim(value, widths, name) for name, value in node.items()}
        if isinstance(node.get("in_index"), int):
            small["in_channels"] = widths[node["in_index"]]
        return small
    if key == "in_channels" and isinstance(node, (list, tuple)) and len(node) == len(widths):
        return widths
    if key in SMALL and node:  # what is 0 or None stays so
        return SMALL[key]
    return type(node)(slim(value, widths) for value in node) if isinstance(node, (list, tuple)) else node


def build(config, levels=(0, 1, 2, 3), backbone=None, pyramid=None):
    """A packaged model made slim, on the stages of the backbone here, or on another and a pyramid ahead of the neck."""
    torch.manual_seed(0)
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD asks for it
    packaged = Config.fromstring(f"_base_ = {config!r}", ".py").model.to_dict()
    packaged.pop("pretrained", None)
    if "encoder" in packaged:
        packaged["bbox_head"]["embed_dims"] = 256  # DETR's heads leave it to their default
    model = slim(packaged, [pyramid["out_channels"] if pyramid else WIDTHS[level] for level in levels])
    model["backbone"] = backbone or {**BACKBONE, "out_indices": levels}
    if pyramid:
        model["neck"] = [pyramid, model["neck"]]
    built = MODELS.build(ConfigDict(model))
    built.init_weights()
    return built


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request):
    return request.param


@pytest.fixture
def called(monkeypatch):
    """The names of the stand-in's operators that run."""
    module, names = sys.modules[NAME], set()
    if not isinstance(module, StandIn):
        pytest.skip("a compiled mmcv is in use")

    def counted(name, op):
        def run(*args, **kwargs):
            names.add(name)
            return op(*args, **kwargs)

        return run

    for name, op in OPS.items():
        monkeypatch.setattr(module, name, counted(name, op))
    return names


def train_and_predict(model, data):
    """One backward pass of the loss, then a prediction; returns the predictions."""
    ready = model.data_preprocessor(data, training=True)
    loss, _ = model.parse_losses(model(**ready, mode="loss"))
    assert torch.isfinite(loss)
    loss.backward()
    gradients = [parameter.grad for parameter in model.backbone.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    stem = next(model.backbone.parameters())
    assert stem.grad.abs().max() > 0
    model.eval()
    with torch.no_grad():
        return model(**model.data_preprocessor(data, training=False), mode="predict")


@pytest.mark.parametrize(("config", "used", "truth", "levels"), DETECTORS)
def test_detector(config, used, truth, levels, device, called):
    register_mmdet()
    panoptic = truth == "panoptic"
    data = demo_mm_inputs(2, (3, SIDE, SIDE), [3, 2], THINGS, with_mask=truth != "boxes", with_semantic=panoptic)
    samples = train_and_predict(build(f"mmdet::{config}", levels).to(device), data)
    assert called >= used
    assert called == used or device == "cuda"
    assert len(samples) == 2
    for sample in samples:
        if panoptic:
            assert sample.pred_panoptic_seg.sem_seg.shape == (1, SIDE, SIDE)
            continue
        found = sample.pred_instances
        assert 0 < len(found) <= SMALL["max_per_img"]
        assert found.bboxes.isfinite().all()
        assert found.labels.max() < THINGS
        if truth == "masks":
            assert found.masks.shape[1:] == sample.ori_shape


@pytest.mark.parametrize(("config", "used", "truth", "levels"), SEGMENTERS)
def test_segmenter(config, used, truth, levels, device, called):
    register_mmseg()
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (3, SIDE, SIDE), np.uint8)) for _ in range(2)]
    samples = [SegDataSample(metainfo={"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE)}) for _ in images]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(rng.integers(0, THINGS, (1, SIDE, SIDE))))
    model = build(f"mmseg::{config}", levels).to(device)
    predicted = train_and_predict(model, {"inputs": images, "data_samples": samples})
    assert called >= used
    assert called == used or device == "cuda"
    for sample in predicted:
        assert sample.pred_sem_seg.data.shape == (1, SIDE, SIDE)
        assert sample.pred_sem_seg.data.max() < THINGS
